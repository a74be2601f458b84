"""What an MLP does to its hidden values, with an eye on memory.

The hidden tensor is several times as large as what comes in. A second one of that size costs a processor more than the
activation function itself, because the system has to hand out fresh pages for it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.activations import SquaredRelu

_OVERWRITING: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.GELU: lambda gelu, x: torch.ops.aten.gelu_(x, approximate=gelu.approximate),
    nn.ReLU: lambda relu, x: x.relu_(),
    nn.SiLU: lambda silu, x: F.silu(x, inplace=True),
    SquaredRelu: lambda squared_relu, x: x.relu_().square_(),
}


def activated(activation: nn.Module, hidden: Tensor) -> Tensor:
    """Applies the activation function; where no gradient needs `hidden`, which the caller must own, over itself."""
    overwriting = None if hidden.requires_grad else _OVERWRITING.get(type(activation))
    result: Tensor = activation(hidden) if overwriting is None else overwriting(activation, hidden)
    return result


def added(x: Tensor, branch: Tensor) -> Tensor:
    """`x + branch`; where no gradient needs it, over `branch`, unless that is a view of `x`."""
    if x.requires_grad or branch.requires_grad or branch.dtype != x.dtype or torch.compiler.is_compiling():
        return x + branch
    # A storage of its own is what tells a new tensor from a view; its address would not do without memory.
    return branch.add_(x) if branch.untyped_storage()._cdata != x.untyped_storage()._cdata else x + branch


def gated(activation: nn.Module, gate: Tensor, value: Tensor) -> Tensor:
    """`activation(gate) · value`, over `gate` itself where no gradient needs it; the caller must own `gate`."""
    factor = activated(activation, gate)
    return factor * value if factor.requires_grad or value.requires_grad else factor.mul_(value)
