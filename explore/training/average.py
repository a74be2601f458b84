"""The moving average of the weights, with which a network is validated and kept."""

from itertools import chain

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from explore.training.optimizer import averaging
from explore.training.options import Training


class Average(WeightAveraging):
    """The moving average of weights and buffers after every optimizer step, with the decay of `averaging`.

    What Lightning calls a step is an epoch here, so the optimizer's own hook is used. On a GPU the decay is computed
    there, from the count of steps, so that nothing waits for it and a step can be captured (see `Update`).
    """

    def __init__(self, recipe: Training) -> None:
        super().__init__()
        self._recipe = recipe

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Never when Lightning asks."""
        return False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the optimizer."""
        average = self._average_model
        assert average is not None
        pairs = zip(
            chain(average.module.parameters(), average.module.buffers()),
            chain(pl_module.parameters(), pl_module.buffers()),
            strict=True,
        )
        tensors = [(one.detach(), other.detach()) for one, other in pairs]
        numbers = [pair for pair in tensors if pair[0].is_floating_point()]
        # Indices and counts have no average.
        others = [pair for pair in tensors if not pair[0].is_floating_point()]

        def update(*_: object) -> None:
            self._blend([one for one, _ in numbers], [one for _, one in numbers], average.n_averaged)
            for one, other in others:
                one.copy_(other)
            average.n_averaged.add_(1)

        trainer.optimizers[0].register_step_post_hook(update)

    @torch.no_grad()
    def _blend(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        """Move each average towards the current weights, before which there were `count`; at first it is a copy."""
        if count.device.type == "cpu":
            decay = averaging(float(count), self._recipe) if count else 0.0
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:
            kept = averaging(count, self._recipe) * (count > 0)
            torch._foreach_mul_(averaged, kept)
            torch._foreach_add_(averaged, torch._foreach_mul(current, 1 - kept))
