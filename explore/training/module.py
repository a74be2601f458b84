"""The LightningModule: one network, its loss, its optimizer, and the learning curve so far."""

import math
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from explore.training.optimizer import make_optimizer, make_schedule
from explore.training.options import Training

# Looking at the loss makes a GPU wait, so it is looked at now and then.
_STEPS_BETWEEN_LOOKS = 10


class Diverged(ArithmeticError):  # noqa: N818 - a result of the training, not an error
    """The loss became infinite or not a number."""


class Classifier(LightningModule):
    """Trains `network` (images → `batch × classes` logits) by the recipe, for `steps` optimizer steps.

    Sums are kept on the device and read once an epoch. `curve` holds a record per epoch; it travels with the
    checkpoint, so that a run that was resumed has it whole.
    """

    def __init__(self, network: nn.Module, recipe: Training, steps: int) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.steps = steps
        self.curve: list[dict[str, float]] = []
        self._loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self._began = 0.0
        self._own = slice(None)
        self._training: list[Tensor] = []
        self._validation: list[Tensor] = []

    def setup(self, stage: str) -> None:
        """Note which part of every batch is this device's."""
        if self.trainer.world_size > 1:
            self._own = slice(self.trainer.global_rank, None, self.trainer.world_size)

    def configure_optimizers(self) -> Any:
        """AdamW, its rate set anew every step."""
        optimizer = make_optimizer(self.network, self.recipe)
        schedule = make_schedule(optimizer, self.recipe, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any) -> None:
        """Step without Lightning's per-step checks."""
        scheduler.step()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm also in mixed precision, where Lightning refuses fused optimizers."""
        if gradient_clip_val and isinstance(self.trainer.precision_plugin, MixedPrecision):
            # It fears for the scale of the loss, and bfloat16 needs none.
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_epoch_start(self) -> None:
        """Seed stochastic depth by run and epoch, so that an epoch is the same after a resumption."""
        self._began = time.perf_counter()
        self._training = []
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss of a batch; raises Diverged when it is no longer a number."""
        images, targets = self._share(batch)
        loss: Tensor = self._loss(self.network(images), targets)
        self._training.append(loss.detach())
        if index % _STEPS_BETWEEN_LOOKS == 0 and not torch.isfinite(loss):
            raise Diverged(f"loss {loss.item()} in epoch {self.current_epoch + 1}, step {index + 1}")
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin the sums of an epoch."""
        self._validation = []

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Add a batch to loss, right answers and count."""
        self._validation.append(self._sums(batch))

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Add a batch to loss, right answers and count."""
        self.validation_step(batch, index)

    def on_test_epoch_start(self) -> None:
        """Begin the sums."""
        self._validation = []

    def on_validation_epoch_end(self) -> None:
        """Write the epoch into the curve; raises Diverged when a loss is no longer a number."""
        train_loss = torch.stack(self._training).float().mean()
        loss, accuracy = self.means()
        train_loss = self.trainer.strategy.reduce(train_loss, reduce_op="mean")
        if not (torch.isfinite(train_loss) and math.isfinite(loss)):
            raise Diverged(f"loss {train_loss.item()}, validation loss {loss} in epoch {self.current_epoch + 1}")
        self.curve.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": train_loss.item(),
                "val_loss": loss,
                "val_accuracy": accuracy,
                "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": time.perf_counter() - self._began,
            }
        )

    def means(self) -> tuple[float, float]:
        """Mean loss in nats and accuracy as a fraction over the batches seen since the sums began, on all devices."""
        total = self.trainer.strategy.reduce(torch.stack(self._validation).sum(0), reduce_op="sum")
        loss, right, count = total.tolist()
        return loss / count, right / count

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curve with the weights."""
        checkpoint["curve"] = self.curve

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the curve where it was left."""
        self.curve = list(checkpoint["curve"])

    def _share(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """This device's part of a batch: each draws the same batches, so that their number changes no result.

        Unless a network has batch norms, or a loss over the batch as a mixture of experts has: those see a part each.
        """
        return (batch[0][self._own], batch[1][self._own]) if self._own.step else batch

    def _sums(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = self._share(batch)
        if not len(labels):
            return torch.zeros(3, device=images.device)
        logits = self.network(images).float()
        right = (logits.argmax(1) == labels).sum()
        count = torch.tensor(float(len(labels)), device=logits.device)
        return torch.stack([cross_entropy(logits, labels, reduction="sum"), right.float(), count])
