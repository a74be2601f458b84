"""AdamW with decay on matrices only, and learning rates that rise, then fall."""

import math
from typing import TypeVar

from torch import Tensor, nn
from torch.optim import AdamW

from explore.training.options import Training

Number = TypeVar("Number", float, Tensor)
# Parameters by these names are matrices by shape, but positions and tokens by meaning.
_NEVER_DECAYED = ("position", "class_token")


def make_optimizer(network: nn.Module, recipe: Training, *, stacked: bool = False) -> AdamW:
    """AdamW (Loshchilov & Hutter, 2019), fused: on a CPU several times faster per step than the default.

    Where parameters are `stacked`, their first axis tells networks apart.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim - stacked >= 2 and not any(word in name for word in _NEVER_DECAYED)
        (decayed if is_matrix else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], lr=recipe.lr, fused=True)


def rate(step: int, steps: int, recipe: Training) -> float:
    """Learning rate at a step (from 0) of `steps`, as a fraction of the peak.

    Rises linearly over the recipe's epochs of warm-up, then goes by its schedule, down to zero or constant: then an
    epoch is the same whatever the number of epochs.
    """
    warmup = recipe.warmup_epochs * steps / recipe.epochs
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if recipe.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1.0, steps - warmup)
    if recipe.schedule == "linear":
        return max(0.0, 1 - progress)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def averaging(step: Number, recipe: Training) -> Number:
    """Decay of the moving average of the weights after step `step` (from 0).

    The first steps are forgotten sooner, so that the average of a short training is one of trained weights: the rule of
    TensorFlow's `ExponentialMovingAverage`.
    """
    share = (1 + step) / (10 + step)
    return share.clamp(max=recipe.ema) if isinstance(share, Tensor) else min(recipe.ema, share)
