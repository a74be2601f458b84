"""What an MLP does to its hidden values, with an eye on memory.

The hidden tensor is several times as large as what comes in. A second one of that size costs a processor more than the
activation function itself, because the system has to hand out fresh pages for it.

So values that nobody needs any more are overwritten. A network knows whether somebody keeps some, so that it is done
within the pass of one only.
"""

from collections.abc import Callable
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.activations import SquaredRelu
from explore.architecture.parts import transformed
from explore.architecture.plain import hooked

_OVERWRITING: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.GELU: lambda gelu, x: torch.ops.aten.gelu_(x, approximate=gelu.approximate),
    nn.ReLU: lambda relu, x: x.relu_(),
    nn.SiLU: lambda silu, x: F.silu(x, inplace=True),
    SquaredRelu: lambda squared_relu, x: x.relu_().square_(),
}

# Whether what no gradient needs may be overwritten: not outside of a network's pass, where anybody may keep it.
MAY_OVERWRITE: ContextVar[bool] = ContextVar("may_overwrite", default=False)


def needed(x: Tensor) -> bool:
    """Whether a gradient needs `x` as it is; under `torch.func` a tensor does not say, and has no storage."""
    return x.requires_grad or transformed()


def _kept(x: Tensor) -> bool:
    # What is compiled takes no memory for it, and could not ask the context.
    return torch.compiler.is_compiling() or not MAY_OVERWRITE.get() or needed(x)


def activated(activation: nn.Module, hidden: Tensor) -> Tensor:
    """Applies the activation function; where nobody needs `hidden`, which the caller must own, over itself."""
    over = None if _kept(hidden) or hooked(activation) else _OVERWRITING.get(type(activation))
    result: Tensor = activation(hidden) if over is None else over(activation, hidden)
    return result


def added(x: Tensor, branch: Tensor) -> Tensor:
    """`x + branch`; where nobody needs it, over `branch`, unless that is a view of `x`."""
    if _kept(branch) or x.requires_grad or branch.dtype != x.dtype:
        return x + branch
    # A storage of its own is what tells a new tensor from a view; its address would not do without memory.
    return branch.add_(x) if branch.untyped_storage()._cdata != x.untyped_storage()._cdata else x + branch


def gated(activation: nn.Module, gate: Tensor, value: Tensor) -> Tensor:
    """`activation(gate) · value`, over `gate` itself where nobody needs it; the caller must own `gate`."""
    factor = activated(activation, gate)
    return factor * value if _kept(factor) or value.requires_grad else factor.mul_(value)
