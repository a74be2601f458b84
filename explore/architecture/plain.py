"""Whether a module is what its class says, so that another form of the same can stand in for it.

Forms read weights and hyperparameters off the modules that they are given, and do not call them. Whoever changed what a
module does (a subclass, a parametrization, pruning), or looks at what goes through it (a hook), gets it called.
"""

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def hooked(module: nn.Module) -> bool:
    """Whether calling `module` does more than the `forward` of its class."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    found = bool(own or "forward" in module.__dict__ or _has_any_global_hook())  # type: ignore[no-untyped-call]
    # Whoever traces hangs hooks on every module to know where it is, and is to see the operators that others see.
    return found and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]


def hooked_inside(network: nn.Module) -> bool:
    """Whether somebody looks at what goes in or out of the modules in `network`, itself left out.

    Asked once for each pass, in 0.15 µs for each module; `modules()` would take several times as long.
    """
    modules: list[nn.Module | None] = [*network._modules.values()]
    for module in modules:  # which grows meanwhile
        if module is not None:
            own = module.__dict__
            if own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own:
                return True
            if own["_modules"]:
                modules += own["_modules"].values()
    return bool(_has_any_global_hook())  # type: ignore[no-untyped-call]


def plain_linear(layer: nn.Module) -> bool:
    """Whether `layer` is `x·Wᵀ + b` of its weight and its bias, which may be None, and nobody looks."""
    if type(layer) is not nn.Linear or hooked(layer):
        return False
    return len(layer._parameters) == 2 and "weight" in layer._parameters and "bias" in layer._parameters
