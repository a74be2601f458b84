"""A training step of an MLP on a processor, in parts that stay in cache.

Automatic differentiation would keep the hidden values before and behind the activation function, and make two
gradients of that size, all on fresh pages of memory. Here only the values before it are kept. All others are computed
in a buffer for a few images at a time, those behind it once more in the backward pass: less work than to write and
read them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from explore.architecture.parts import images_at_once, runs_now_on_processor


class Axis(Protocol):
    """Products of batch × tokens × channels with a weight of outputs × inputs along one axis, into what is given."""

    others: tuple[int, int]
    """The axes that a bias is the same for."""

    def shape(self, x: Tensor, size: int) -> tuple[int, ...]:
        """The shape of a tensor like `x` with `size` entries along the axis."""

    def product(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        """W·x + b."""

    def input_gradient(self, gradient: Tensor, weight: Tensor, out: Tensor) -> None:
        """Wᵀ·gradient."""

    def add_weight_gradient(self, gradient: Tensor, x: Tensor, total: Tensor) -> None:
        """Adds gradient·xᵀ, summed over the other axes, to `total`."""


class _Channels:
    others = (0, 1)

    def shape(self, x: Tensor, size: int) -> tuple[int, ...]:
        return (*x.shape[:2], size)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        torch.addmm(bias, x.flatten(0, 1), weight.t(), out=out.flatten(0, 1))

    def input_gradient(self, gradient: Tensor, weight: Tensor, out: Tensor) -> None:
        torch.mm(gradient.flatten(0, 1), weight, out=out.flatten(0, 1))

    def add_weight_gradient(self, gradient: Tensor, x: Tensor, total: Tensor) -> None:
        total.addmm_(gradient.flatten(0, 1).t(), x.flatten(0, 1))


class _Tokens:
    others = (0, 2)

    def shape(self, x: Tensor, size: int) -> tuple[int, ...]:
        return (x.shape[0], size, x.shape[2])

    def product(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        torch.baddbmm(bias.unsqueeze(1), weight.expand(x.shape[0], -1, -1), x, out=out)

    def input_gradient(self, gradient: Tensor, weight: Tensor, out: Tensor) -> None:
        torch.bmm(weight.t().expand(gradient.shape[0], -1, -1), gradient, out=out)

    def add_weight_gradient(self, gradient: Tensor, x: Tensor, total: Tensor) -> None:
        total.add_(torch.bmm(gradient, x.transpose(1, 2)).sum(0))


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
    """Whether this MLP is at a training step that can be taken in parts."""
    if not torch.is_grad_enabled() or not runs_now_on_processor(x) or torch.is_autocast_enabled("cpu"):
        return False
    tensors = (x, expand.weight, expand.bias, contract.weight, contract.bias)
    return type(activation) in _FORWARD and all(
        one is not None and one.requires_grad and one.dtype in (torch.float32, torch.float64) for one in tensors
    )


def mlp_in_parts(expand: nn.Linear, activation: nn.Module, contract: nn.Linear, x: Tensor, axis: Axis) -> Tensor:
    """The MLP along an axis of batch × tokens × channels, with a gradient for `x` and the parameters of both layers."""
    result: Tensor = _MlpInParts.apply(  # type: ignore[no-untyped-call]
        x.contiguous(), expand.weight, expand.bias, contract.weight, contract.bias, activation, axis
    )
    return result


class _MlpInParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        expand: Tensor,
        expand_bias: Tensor,
        contract: Tensor,
        contract_bias: Tensor,
        activation: nn.Module,
        axis: Axis,
    ) -> Tensor:
        hidden = x.new_empty(axis.shape(x, expand.shape[0]))
        result = x.new_empty(axis.shape(x, contract.shape[0]))
        size = images_at_once(len(x), hidden.shape[1] * hidden.shape[2], x.shape[1], x.element_size())
        buffer = torch.empty_like(hidden[:size])
        for before, inside, behind in _parts(size, x, hidden, result):
            axis.product(before, expand, expand_bias, inside)
            active = _FORWARD[type(activation)](activation, inside, buffer[: len(inside)])
            axis.product(active, contract, contract_bias, behind)
        ctx.save_for_backward(x, hidden, expand, contract)
        ctx.activation, ctx.axis, ctx.size = activation, axis, size
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, expand, contract = ctx.saved_tensors
        given, axis, activation = given.contiguous(), ctx.axis, ctx.activation
        x_gradient = torch.empty_like(x)
        expand_gradient, contract_gradient = torch.zeros_like(expand), torch.zeros_like(contract)
        bias_gradient = expand.new_zeros(expand.shape[0])
        buffers = torch.empty_like(hidden[: ctx.size]), torch.empty_like(hidden[: ctx.size])
        for before, inside, behind, result in _parts(ctx.size, x, hidden, given, x_gradient):
            active, gradient = (buffer[: len(inside)] for buffer in buffers)
            _FORWARD[type(activation)](activation, inside, active)
            axis.add_weight_gradient(behind, active, contract_gradient)
            axis.input_gradient(behind, contract, gradient)
            _BACKWARD[type(activation)](activation, gradient, inside)
            axis.add_weight_gradient(gradient, before, expand_gradient)
            bias_gradient += gradient.sum(axis.others)
            axis.input_gradient(gradient, expand, result)
        contract_bias_gradient = given.sum(axis.others)
        return x_gradient, expand_gradient, bias_gradient, contract_gradient, contract_bias_gradient, None, None


def _parts(size: int, *tensors: Tensor) -> Sequence[tuple[Tensor, ...]]:
    return list(zip(*(torch.split(tensor, size) for tensor in tensors), strict=True))
