"""What an MLP does to its hidden values, with an eye on memory.

The hidden tensor is several times as large as what comes in. A second one of that size costs a processor more than the
activation function itself, because the system has to hand out fresh pages for it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.activations import SquaredRelu
from explore.architecture.parts import one_of_several

_OVERWRITING: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.GELU: lambda gelu, x: torch.ops.aten.gelu_(x, approximate=gelu.approximate),
    nn.ReLU: lambda relu, x: x.relu_(),
    nn.SiLU: lambda silu, x: F.silu(x, inplace=True),
    SquaredRelu: lambda squared_relu, x: x.relu_().square_(),
}


def needed(x: Tensor) -> bool:
    """Whether a gradient needs `x` as it is; under `torch.vmap` a tensor does not say, and has no storage."""
    return x.requires_grad or one_of_several(x)


def activated(activation: nn.Module, hidden: Tensor) -> Tensor:
    """Applies the activation function; where no gradient needs `hidden`, which the caller must own, over itself."""
    overwriting = None if needed(hidden) else _OVERWRITING.get(type(activation))
    result: Tensor = activation(hidden) if overwriting is None else overwriting(activation, hidden)
    return result


def added(x: Tensor, branch: Tensor) -> Tensor:
    """`x + branch`; where no gradient needs it, over `branch`, unless that is a view of `x`."""
    if needed(x) or needed(branch) or branch.dtype != x.dtype or torch.compiler.is_compiling():
        return x + branch
    # A storage of its own is what tells a new tensor from a view; its address would not do without memory.
    return branch.add_(x) if branch.untyped_storage()._cdata != x.untyped_storage()._cdata else x + branch


def gated(activation: nn.Module, gate: Tensor, value: Tensor) -> Tensor:
    """`activation(gate) · value`, over `gate` itself where no gradient needs it; the caller must own `gate`."""
    factor = activated(activation, gate)
    return factor * value if needed(factor) or needed(value) else factor.mul_(value)
