"""Products in float32 on the tensor cores of a GPU: three in TF32 that add up to one.

A tensor core rounds what it multiplies to 11 bits (TF32). A number in float32 is the sum of two that have no more, but
for its last two bits, and of the four products of such halves that of the lower ones is below the rounding of the sum:
a·b = aₗ·bₕ + aₕ·bₗ + aₕ·bₕ (Ootomo and Yokota, 2022, arXiv 2203.03341; CUTLASS calls it 3xTF32). So three products of
eight to sixteen times the speed stand for one in float32, and what comes out is as near to the true product.

To take numbers apart, and to lay the halves side by side, is more memory to write. A compiler does it where it writes
them anyway, behind an activation function or a norm, so this is for compiled programs only.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from explore.architecture.parts import exporting

# Compute capabilities of GPUs whose tensor cores multiply TF32 at least eight times as fast as their other cores
# multiply float32: NVIDIA's A100, H100 and H200, B100 and B200, and not those that are made for screens.
FAST = ((8, 0), (9, 0), (10, 0))
_LEAST = 128  # inputs and outputs: with fewer, a product takes less time than its numbers on their way
_DROPPED = 13  # bits that TF32 lacks
# Products that are added up inside a tensor core, which cuts off what it cannot keep, before sums are rounded as usual.
_INNER = 512
_MANY = 8  # parts


def suits_tensor_cores(linear: nn.Linear, x: Tensor) -> bool:
    """Whether a product of `linear` with `x` is one in float32 that is compiled for a GPU on which three are faster."""
    if not torch.compiler.is_compiling() or exporting() or x.device.type != "cuda":
        return False
    if torch.is_autocast_enabled("cuda") or not x.dtype == linear.weight.dtype == torch.float32:
        return False
    return min(linear.weight.shape) >= _LEAST and _fast(x.device.index)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product of a and b, rows × inner and inner × columns, of both or of `b` alone a batch; with gradients.

    Both are float32 with numbers below 1e38.
    """
    result: Tensor = _Product.apply(a, b)  # type: ignore[no-untyped-call]
    return result


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest numbers with the bits of TF32, and what is left, of which TF32 has all but two bits."""
    rounded = (x.view(torch.int32) + (1 << _DROPPED - 1)) & -(1 << _DROPPED)
    upper = rounded.view(torch.float32)
    return upper, x - upper


@torch.library.custom_op("explore::tf32_products", mutates_args=())
def tf32_products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """The sum of the products of pairs; what a GPU multiplies is rounded to TF32, and what it adds up is float32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        (a, b), *others = zip(left, right, strict=True)
        batch = b.shape[:-2]
        result: Tensor = torch.bmm(a.expand(*batch, -1, -1), b) if batch else torch.mm(a, b)
        for a, b in others:
            if batch:
                result.baddbmm_(a.expand(*batch, -1, -1), b)
            else:
                result.addmm_(a, b)
        return result
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@tf32_products.register_fake
def _(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    a, b = left[0], right[0]
    return b.new_empty((*b.shape[:-2], a.shape[-2], b.shape[-1]))


def _times(a: Tensor, b: Tensor) -> Tensor:
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    if b.ndim == 2 and inner > _MANY * _INNER and (size := _part(inner)):
        # As a batch they are computed side by side, which such a product of few rows and columns would not be.
        return _times(a.view(rows, -1, size).transpose(0, 1), b.reshape(-1, size, columns)).sum(0)
    left: list[Tensor] = []
    right: list[Tensor] = []
    for one, other in zip(a.split(_INNER, -1), b.split(_INNER, -2), strict=True):  # type: ignore[no-untyped-call]
        (upper_a, lower_a), (upper_b, lower_b) = halves(one), halves(other)
        pairs = [lower_a, upper_a, upper_a], [upper_b, lower_b, upper_b]
        # Side by side the halves are written three times, one after the other the sums are written and read again.
        if one.shape[-1] * (rows + columns) < 4 * rows * columns:
            pairs = [torch.cat(pairs[0], -1)], [torch.cat(pairs[1], -2)]
        left += pairs[0]
        right += pairs[1]
    result: Tensor = tf32_products(left, right)
    return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return _times(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        of_a = of_b = None
        if ctx.needs_input_grad[0]:
            of_a = _times(gradient, b.mT)
            of_a = of_a if a.ndim == b.ndim else of_a.sum(0)
        if ctx.needs_input_grad[1]:
            of_b = _times(a.mT, gradient)
        return of_a, of_b


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _fast(index: int | None) -> bool:
    return torch.cuda.get_device_capability(index) in FAST


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _part(inner: int) -> int:
    """The largest of equal parts, none above `_INNER`, that a sum of so many products has; 0 where all are small."""
    return max((size for size in range(_INNER // 8, _INNER + 1) if inner % size == 0), default=0)
