"""What a mixture of experts needs of PyTorch: products of sorted rows with one matrix per expert, and a hidden loss.

These are operators of their own, so that they compile, and so that their cost can be counted.

`ends` says where the rows of each expert end; how many rows an expert gets is known only at run time, but all shapes
are static. On a GPU one grouped product does it where PyTorch and the dtype offer that; elsewhere a loop over the
experts, which makes a GPU wait for `ends`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_GROUPED = getattr(F, "grouped_mm", None)  # since PyTorch 2.10
_ALIGNMENT = 16  # bytes of a row must be a multiple


@torch.library.custom_op("explore::expert_product", mutates_args=())
def expert_product(rows: Tensor, ends: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The biased product of each row with the matrix of its expert: rows × channels in to rows × channels out.

    `weight` is experts × channels in × channels out, `bias` experts × channels out; `ends`, int32, grows from expert to
    expert up to the number of rows.
    """
    in_one = _grouped_takes(rows, weight)
    return product_at_once(rows, ends, weight, bias) if in_one else product_in_turn(rows, ends, weight, bias)


@torch.library.custom_op("explore::expert_gradient", mutates_args=())
def expert_gradient(rows: Tensor, ends: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of `expert_product` with respect to `weight`; `gradient` is rows × channels out."""
    in_one = _grouped_takes(rows, gradient)
    return gradient_at_once(rows, ends, gradient) if in_one else gradient_in_turn(rows, ends, gradient)


@torch.library.custom_op("explore::charged", mutates_args=())
def charged(x: Tensor, charge: Tensor) -> Tensor:
    """`x`, whose gradient gets `charge` added to it: that of a loss that the caller of the network need not know."""
    return x.clone()


def product_in_turn(rows: Tensor, ends: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`expert_product`, one expert after the other."""
    result = rows.new_empty(rows.shape[0], weight.shape[2])
    start = 0
    for matrix, offset, end in zip(weight, bias, ends.tolist(), strict=True):
        torch.addmm(offset, rows[start:end], matrix, out=result[start:end])
        start = end
    return result


def gradient_in_turn(rows: Tensor, ends: Tensor, gradient: Tensor) -> Tensor:
    """`expert_gradient`, one expert after the other."""
    result = rows.new_empty(ends.shape[0], rows.shape[1], gradient.shape[1])
    start = 0
    for matrix, end in zip(result, ends.tolist(), strict=True):
        torch.mm(rows[start:end].t(), gradient[start:end], out=matrix)
        start = end
    return result


def product_at_once(rows: Tensor, ends: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`expert_product` as one grouped product."""
    assert _GROUPED is not None
    result: Tensor = _GROUPED(rows, weight, offs=ends)
    return result.add_(bias[_expert_of_each(rows, ends)])


def gradient_at_once(rows: Tensor, ends: Tensor, gradient: Tensor) -> Tensor:
    """`expert_gradient` as one grouped product."""
    assert _GROUPED is not None
    result: Tensor = _GROUPED(rows.t(), gradient, offs=ends)
    # What a grouped product writes for an expert without rows is not documented.
    idle = torch.diff(ends, prepend=ends.new_zeros(1)) == 0
    return result.masked_fill_(idle.view(-1, 1, 1), 0)


def _grouped_takes(rows: Tensor, other: Tensor) -> bool:
    aligned = all(one.shape[-1] * one.element_size() % _ALIGNMENT == 0 for one in (rows, other))
    return _GROUPED is not None and rows.is_cuda and rows.dtype == torch.bfloat16 and aligned


def _expert_of_each(rows: Tensor, ends: Tensor) -> Tensor:
    places = torch.arange(rows.shape[0], device=rows.device, dtype=ends.dtype)
    return torch.searchsorted(ends, places, right=True)


@expert_product.register_fake
def _(rows: Tensor, ends: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[2])


@expert_gradient.register_fake
def _(rows: Tensor, ends: Tensor, gradient: Tensor) -> Tensor:
    return rows.new_empty(ends.shape[0], rows.shape[1], gradient.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
    rows, ends, weight, bias = ctx.saved_tensors
    gradient = gradient.contiguous()
    of_rows = of_weight = of_bias = None
    if ctx.needs_input_grad[0]:
        no_bias = weight.new_zeros(weight.shape[:2])
        of_rows = expert_product(gradient, ends, weight.transpose(1, 2), no_bias)
    if ctx.needs_input_grad[2]:
        of_weight = expert_gradient(rows, ends, gradient)
    if ctx.needs_input_grad[3]:
        # A GPU adds rows in any order; in bfloat16 each order would give another sum.
        sums = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        of_bias = sums.index_add(0, _expert_of_each(rows, ends), gradient.to(sums.dtype)).to(bias.dtype)
    return of_rows, None, of_weight, of_bias


@charged.register_fake
def _(x: Tensor, charge: Tensor) -> Tensor:
    return torch.empty_like(x)


def _setup_charge(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward_of_charged(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return gradient + ctx.saved_tensors[0], None


charged.register_autograd(_backward_of_charged, setup_context=_setup_charge)
expert_product.register_autograd(_backward, setup_context=_setup_context)
