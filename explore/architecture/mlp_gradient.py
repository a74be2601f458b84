"""A training step of an MLP on a processor, in parts that stay in cache.

Automatic differentiation would keep the hidden values before and behind the activation function, and make two
gradients of that size, all on fresh pages of memory. Here only the values before it are kept. All others are computed
in a buffer for a few images at a time, those behind it once more in the backward pass: no more work than to write and
to read them, and much less memory.

Under autocast in bfloat16, what is kept is bfloat16, and what is computed is too where the processor multiplies it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from explore.architecture.parts import fit_into_cache, images_at_once, multiplies_bfloat16, runs_now_on_processor


class Axis(Protocol):
    """Products of batch × tokens × channels with a weight of outputs × inputs along one axis.

    All that goes into a product has one dtype; `out` and `total` may have another.
    """

    def shape(self, x: Tensor, size: int) -> tuple[int, ...]:
        """The shape of a tensor like `x` with `size` entries along the axis."""

    def product(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        """W·x + b, written into `out`."""

    def input_gradient(self, gradient: Tensor, weight: Tensor, out: Tensor) -> None:
        """Wᵀ·gradient, written into `out`."""

    def weight_gradient(self, gradient: Tensor, x: Tensor, total: Tensor, *, first: bool) -> None:
        """Writes gradient·xᵀ, summed over the other axes, into `total`, or adds it to what is not the `first`."""

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        """The sum over the axes that a bias is the same for, in the dtype in which that is fastest."""


class _Channels:
    def shape(self, x: Tensor, size: int) -> tuple[int, ...]:
        return (*x.shape[:2], size)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        if out.dtype != x.dtype:
            out.copy_(nn.functional.linear(x, weight, bias))
        else:
            torch.addmm(bias, x.flatten(0, 1), weight.t(), out=out.flatten(0, 1))

    def input_gradient(self, gradient: Tensor, weight: Tensor, out: Tensor) -> None:
        if out.dtype != gradient.dtype:
            out.copy_(gradient @ weight)
        else:
            torch.mm(gradient.flatten(0, 1), weight, out=out.flatten(0, 1))

    def weight_gradient(self, gradient: Tensor, x: Tensor, total: Tensor, *, first: bool) -> None:
        columns, rows = gradient.flatten(0, 1).t(), x.flatten(0, 1)
        if total.dtype != x.dtype:
            _put(columns @ rows, total, first=first)
        elif first:
            torch.mm(columns, rows, out=total)
        else:
            total.addmm_(columns, rows)

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        return gradient.sum((0, 1))  # added up in float32, rounded once


class _Tokens:
    def shape(self, x: Tensor, size: int) -> tuple[int, ...]:
        return (x.shape[0], size, x.shape[2])

    def product(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        into = out if out.dtype == x.dtype else x.new_empty(out.shape)
        torch.baddbmm(bias.unsqueeze(1), weight.expand(x.shape[0], -1, -1), x, out=into)
        if into is not out:
            out.copy_(into)

    def input_gradient(self, gradient: Tensor, weight: Tensor, out: Tensor) -> None:
        into = out if out.dtype == gradient.dtype else gradient.new_empty(out.shape)
        torch.bmm(weight.t().expand(gradient.shape[0], -1, -1), gradient, out=into)
        if into is not out:
            out.copy_(into)

    def weight_gradient(self, gradient: Tensor, x: Tensor, total: Tensor, *, first: bool) -> None:
        _put(torch.bmm(gradient, x.transpose(1, 2)).sum(0, dtype=total.dtype), total, first=first)

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        return gradient.sum(2, dtype=torch.promote_types(gradient.dtype, torch.float32)).sum(0)


def _put(part: Tensor, total: Tensor, *, first: bool) -> None:
    if first:
        total.copy_(part)
    else:
        total += part


CHANNELS: Axis = _Channels()
TOKENS: Axis = _Tokens()

# The activation function into `out`, and its gradient over the gradient of what it gave.
_FORWARD: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.GELU: lambda gelu, x, out: torch.ops.aten.gelu.out(x, approximate=gelu.approximate, out=out),
    nn.ReLU: lambda relu, x, out: torch.clamp_min(x, 0, out=out),
    nn.SiLU: lambda silu, x, out: torch.ops.aten.silu.out(x, out=out),
}
_BACKWARD: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.GELU: lambda gelu, gradient, x: torch.ops.aten.gelu_backward.grad_input(
        gradient, x, approximate=gelu.approximate, grad_input=gradient
    ),
    nn.ReLU: lambda relu, gradient, x: torch.ops.aten.threshold_backward.grad_input(
        gradient, x, 0, grad_input=gradient
    ),
    nn.SiLU: lambda silu, gradient, x: torch.ops.aten.silu_backward.grad_input(gradient, x, grad_input=gradient),
}


def takes_parts(expand: nn.Linear, activation: nn.Module, contract: nn.Linear, x: Tensor) -> bool:
    """Whether this MLP is at a training step that can be taken in parts, and large enough to gain from them."""
    if not torch.is_grad_enabled() or not runs_now_on_processor(x) or type(activation) not in _FORWARD:
        return False
    if fit_into_cache(x.numel() // expand.in_features * expand.out_features, x.element_size()):
        return False
    parameters = (expand.weight, expand.bias, contract.weight, contract.bias)
    if not x.requires_grad or any(one is None or not one.requires_grad for one in parameters):
        return False
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.float32 if torch.get_autocast_dtype("cpu") == torch.bfloat16 else None
    else:
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else None
    return all(one.dtype == dtype for one in parameters)


def mlp_in_parts(expand: nn.Linear, activation: nn.Module, contract: nn.Linear, x: Tensor, axis: Axis) -> Tensor:
    """The MLP along an axis of batch × tokens × channels, with a gradient for `x` and the parameters of both layers."""
    kept = computed = expand.weight.dtype
    if torch.is_autocast_enabled("cpu"):
        kept = torch.bfloat16
        computed = torch.bfloat16 if multiplies_bfloat16() else torch.float32
    with torch.autocast("cpu", enabled=False):
        result: Tensor = _MlpInParts.apply(  # type: ignore[no-untyped-call]
            x.to(kept).contiguous(), *expand.parameters(), *contract.parameters(), (activation, axis, computed)
        )
    return result


class _MlpInParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, expand: Tensor, b: Tensor, contract: Tensor, c: Tensor, how: Any) -> Tensor:
        activation, axis, dtype = how
        hidden = x.new_empty(axis.shape(x, expand.shape[0]))
        result = torch.empty_like(x)
        size = images_at_once(len(x), hidden.shape[1] * hidden.shape[2], x.shape[1], dtype.itemsize)
        ctx.how, ctx.size, ctx.dtype = how, size, expand.dtype
        expand, b, contract, c = (one.to(dtype) for one in (expand, b, contract, c))
        ctx.save_for_backward(x, hidden, expand, contract)
        buffer = torch.empty_like(hidden[:size], dtype=dtype)
        for before, inside, behind in _parts(size, x, hidden, result):
            axis.product(before.to(dtype), expand, b, inside)
            active = _FORWARD[type(activation)](activation, inside.to(dtype), buffer[: len(inside)])
            axis.product(active, contract, c, behind)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, expand, contract = ctx.saved_tensors
        activation, axis, dtype = ctx.how
        totals = [torch.empty_like(weight, dtype=ctx.dtype) for weight in (expand, contract)]
        bias, x_gradient, given = totals[0].new_zeros(len(expand)), torch.empty_like(x), given.contiguous()
        buffers = [torch.empty_like(hidden[: ctx.size], dtype=dtype) for _ in range(2)]
        with torch.autocast("cpu", enabled=False):
            for number, (before, inside, behind, result) in enumerate(_parts(ctx.size, x, hidden, given, x_gradient)):
                first = number == 0
                before, inside, behind = (one.to(dtype) for one in (before, inside, behind))
                active, gradient = (buffer[: len(inside)] for buffer in buffers)
                _FORWARD[type(activation)](activation, inside, active)
                axis.weight_gradient(behind, active, totals[1], first=first)
                axis.input_gradient(behind, contract, gradient)
                _BACKWARD[type(activation)](activation, gradient, inside)
                axis.weight_gradient(gradient, before, totals[0], first=first)
                bias += axis.bias_gradient(gradient)
                axis.input_gradient(gradient, expand, result)
        return x_gradient, totals[0], bias, totals[1], axis.bias_gradient(given).to(bias.dtype), None


def _parts(size: int, *tensors: Tensor) -> Sequence[tuple[Tensor, ...]]:
    return list(zip(*(torch.split(tensor, size) for tensor in tensors), strict=True))
