"""A training step of an MLP on a processor, in parts that stay in cache.

Automatic differentiation would keep the hidden values before and behind the activation function, and make two
gradients of that size. Here only the values before it are kept. All others are computed for a few images at a time,
those behind it once more in the backward pass: no more work than to write and to read them, and much less memory.

Under autocast in bfloat16, what is kept is bfloat16, and what is computed is too where the processor multiplies it.

There is no gradient of this gradient: `create_graph=True` is refused. What `torch.func` differentiates is not taken in
parts, so that `torch.func.grad` and `torch.func.vjp` give gradients that can be differentiated.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from explore.architecture.parts import (
    fit_into_cache,
    images_at_once,
    multiplies_bfloat16,
    runs_now_on_processor,
)
from explore.architecture.plain import hooked, plain_linear
from explore.architecture.products import product


class Axis(Protocol):
    """Products of batch × tokens × channels with a weight of outputs × inputs along one axis, in one dtype."""

    def product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """W·x + b."""

    def input_gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Wᵀ·gradient."""

    def weight_gradient(self, gradient: Tensor, x: Tensor, total: Tensor, *, first: bool) -> None:
        """Writes gradient·xᵀ, summed over the other axes, into `total`, or adds it to what is not the `first`."""

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        """The sum over the axes that a bias is the same for, in the dtype in which that is fastest."""


class _Channels:
    def product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return product(x, weight, bias)

    def input_gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        return product(gradient, weight.t())

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
    def product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias.unsqueeze(1), weight.expand(x.shape[0], -1, -1), x)

    def input_gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(weight.t().expand(gradient.shape[0], -1, -1), gradient)

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
    if not torch.is_grad_enabled() or not runs_now_on_processor(x):
        return False
    if type(activation) not in _FORWARD or hooked(activation) or not (plain_linear(expand) and plain_linear(contract)):
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
    parameters = expand.weight, expand.bias, contract.weight, contract.bias
    with torch.autocast("cpu", enabled=False):
        result: Tensor = _MlpInParts.apply(  # type: ignore[no-untyped-call]
            x.to(kept).contiguous(), *parameters, (activation, axis, computed)
        )
    return result


class _MlpInParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, expand: Tensor, b: Tensor, contract: Tensor, c: Tensor, how: Any) -> Tensor:
        activation, axis, dtype = how
        values = x[0].numel() // expand.shape[1] * len(expand) if len(x) else 1
        size = images_at_once(len(x), values, x.shape[1], dtype.itemsize)
        ctx.how, ctx.size, ctx.dtype = how, size, expand.dtype
        expand, b, contract, c = (one.to(dtype) for one in (expand, b, contract, c))
        # Where memory ends it ends here, and not in small pieces that leave no room for what libraries set up.
        x.new_empty(len(x), values)
        hidden, result = [], torch.empty_like(x)
        for before, behind in zip(torch.split(x, size), torch.split(result, size), strict=True):
            inside = axis.product(before.to(dtype), expand, b)
            active = _FORWARD[type(activation)](activation, inside, torch.empty_like(inside))
            behind.copy_(axis.product(active, contract, c))
            hidden.append(inside.to(x.dtype))
            del inside, active  # before the next part takes as much
        ctx.save_for_backward(x, expand, contract, *hidden)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, expand, contract, *hidden = ctx.saved_tensors
        activation, axis, dtype = ctx.how
        totals = [torch.empty_like(weight, dtype=ctx.dtype) for weight in (expand, contract)]
        bias, x_gradient, given = totals[0].new_zeros(len(expand)), torch.empty_like(x), given.contiguous()
        with torch.autocast("cpu", enabled=False):
            parts = (torch.split(x, ctx.size), hidden, *(torch.split(one, ctx.size) for one in (given, x_gradient)))
            for number, (before, inside, behind, result) in enumerate(zip(*parts, strict=True)):
                first = number == 0
                before, inside, behind = (one.to(dtype) for one in (before, inside, behind))
                active = _FORWARD[type(activation)](activation, inside, torch.empty_like(inside))
                axis.weight_gradient(behind, active, totals[1], first=first)
                del active  # before the gradient takes as much
                gradient = axis.input_gradient(behind, contract)
                _BACKWARD[type(activation)](activation, gradient, inside)
                axis.weight_gradient(gradient, before, totals[0], first=first)
                bias += axis.bias_gradient(gradient)
                result.copy_(axis.input_gradient(gradient, expand))
                del gradient
        return x_gradient, totals[0], bias, totals[1], axis.bias_gradient(given).to(bias.dtype), None
