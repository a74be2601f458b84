"""The LightningModule: one network, its loss, its optimizer, and the learning curve so far."""

import math
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from explore.training.captured import Captured
from explore.training.compiling import Compiling
from explore.training.handing import Batch, Handed
from explore.training.optimizer import make_optimizer, rate
from explore.training.options import Training
from explore.training.update import launch_updates

# Looking at the loss makes a GPU wait, so it is looked at now and then.
_STEPS_BETWEEN_LOOKS = 10


class Diverged(ArithmeticError):  # noqa: N818 - a result of the training, not an error
    """The loss became infinite or not a number."""


class Classifier(LightningModule):
    """Trains `network` (images → `batch × classes` logits) by the recipe, for `steps` optimizer steps in all.

    Optimizes by itself ("manually", as Lightning calls it): what Lightning calls a step is a whole epoch here, see
    `Handed`. Sums are kept on the device and read once an epoch. `curve` holds a record per epoch; it travels with the
    checkpoint, so that a run that was resumed has it whole.

    With `parts` above 1 the gradient of a batch is added up over so many parts of it. It is the same but for rounding,
    unless a network looks at its batch as a whole (batch norms, the loss of balance of a mixture of experts) or draws
    random numbers for it (stochastic depth), which it then does part by part.
    """

    def __init__(self, network: nn.Module, recipe: Training, steps: int, compiling: Compiling, parts: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.recipe = recipe
        self.steps = steps
        self.compiling = compiling
        self.parts = parts
        self.curve: list[dict[str, float]] = []
        self._loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self._gradient: Captured | None = None
        self._began = 0.0
        self._own = slice(None)
        self._training: list[Tensor] = []
        self._validation: list[Tensor] = []
        self._validated = 0

    def setup(self, stage: str) -> None:
        """Note which part of every batch is this device's."""
        if self.trainer.world_size > 1:
            self._own = slice(self.trainer.global_rank, None, self.trainer.world_size)

    def configure_optimizers(self) -> Optimizer:
        """AdamW; its rate is set anew every step."""
        return make_optimizer(self.network, self.recipe)

    def on_train_epoch_start(self) -> None:
        """Seed stochastic depth by run and epoch, so that an epoch is the same after a resumption."""
        self._began = time.perf_counter()
        self._training = []
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.current_epoch)

    def training_step(self, handed: Handed, index: int) -> None:
        """Take an optimizer step for each batch; raises Diverged when a loss is no longer a number."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # which counts the steps
        self._gradient = self._gradient or self._finder(optimizer)

        def take(batch: Batch) -> None:
            assert self._gradient
            form = self.compiling.forward
            with self.compiling.timing(self.device):
                self._set_rate()
                loss = self._gradient(batch)
                optimizer.step()
            self._look(loss)
            if self.compiling.forward is not form:
                self._gradient = self._finder(optimizer)

        # Lightning sets the precision for all of this, and it is meant for the network and its loss alone.
        with torch.autocast(self.device.type, enabled=False):
            handed.each(take)

    def _finder(self, optimizer: LightningOptimizer) -> Captured:
        """What finds the clipped gradient of a batch, and returns its loss."""
        parameters = list(self.network.parameters())

        def work(batch: Batch) -> Tensor:
            loss = self._backward(batch, parameters)
            self._clip(optimizer, parameters)
            return loss

        # Between several devices there is more to a gradient than its kernels.
        gradient = Captured(work, self.network, allowed=self.recipe.alone)
        if self.recipe.alone:
            launch_updates(optimizer.optimizer, lambda: gradient.captured)
        return gradient

    def release(self) -> None:
        """Let go of the memory that what was captured keeps, which otherwise waits for the garbage collector."""
        self._gradient = None
        for optimizer in self.trainer.optimizers:
            vars(optimizer).pop("step", None)
        self.network.zero_grad()

    def _backward(self, batch: Batch, parameters: list[nn.Parameter]) -> Tensor:
        """Find the gradient of this device's share of a batch, part by part, and return its loss."""
        images, targets = self._share(batch)
        count, losses = min(self.parts, len(targets)), []
        for part in zip(images.tensor_split(count), targets.tensor_split(count), strict=True):
            with self.trainer.precision_plugin.forward_context():
                loss = self.loss(part)
                if count > 1:  # parts may differ by one image
                    loss = loss * (len(part[1]) * count / len(targets))
            self.manual_backward(loss)
            losses.append(loss.detach())
        if count == 1:
            return losses[0]
        # Not a factor of the loss: a network may add to the gradient by itself, as a mixture of experts does.
        torch._foreach_div_([one.grad for one in parameters if one.grad is not None], count)
        return torch.stack(losses).mean()

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of images and their targets."""
        images, targets = batch
        loss: Tensor = self._loss(self.compiling.forward(images), targets)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin the sums of an epoch."""
        self._validation = []
        self._validated = 0

    def validation_step(self, handed: Handed, index: int) -> None:
        """Add batches to loss, right answers and count."""
        handed.each(self._add)

    def on_validation_epoch_end(self) -> None:
        """Write the epoch into the curve; raises Diverged when a loss is no longer a number."""
        train_loss = torch.stack(self._training).float().mean()
        loss, accuracy = self._means()
        train_loss = self.trainer.strategy.reduce(train_loss, reduce_op="mean")
        if not (torch.isfinite(train_loss) and math.isfinite(loss)):
            raise Diverged(f"loss {train_loss.item()}, validation loss {loss} in epoch {self.current_epoch + 1}")
        self.curve.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": train_loss.item(),
                "val_loss": loss,
                "val_accuracy": accuracy,
                "lr": self._rate(),
                "seconds": time.perf_counter() - self._began,
            }
        )

    def _means(self) -> tuple[float, float]:
        """Mean loss in nats and accuracy as a fraction over the batches seen since the sums began, on all devices."""
        sums = [torch.zeros(2, device=self.device), *self._validation]
        own = torch.cat([torch.stack(sums).sum(0), torch.tensor([float(self._validated)], device=self.device)])
        loss, right, count = self.trainer.strategy.reduce(own, reduce_op="sum").tolist()
        return loss / count, right / count

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curve with the weights, and in how many parts batches were taken."""
        checkpoint["curve"] = self.curve
        checkpoint["parts"] = self.parts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the curve where it was left, and the parts of batches."""
        self.curve = list(checkpoint["curve"])
        self.parts = max(self.parts, checkpoint.get("parts", 1))

    @property
    def step(self) -> int:
        """How many steps were taken, by earlier processes as well."""
        return self.current_epoch * self._steps_per_epoch + len(self._training)

    @property
    def steps_left(self) -> int:
        """How many steps this process has still to take; it may stop before the last epoch of the recipe."""
        assert self.trainer.max_epochs
        return self.trainer.max_epochs * self._steps_per_epoch - self.step

    @property
    def _steps_per_epoch(self) -> int:
        return self.steps // self.recipe.epochs

    def _rate(self) -> float:
        """The learning rate of the next step."""
        return self.recipe.lr * rate(self.step, self.steps, self.recipe)

    def _set_rate(self) -> None:
        lr = self._rate()
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr

    def _clip(self, optimizer: LightningOptimizer, parameters: list[nn.Parameter]) -> None:
        if not self.recipe.clip_norm:
            return
        if self.recipe.strategy == "fsdp":  # each device has a part of the gradient, so the norm is up to Lightning
            self.clip_gradients(optimizer.optimizer, self.recipe.clip_norm, "norm")
        else:
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm)

    def _look(self, loss: Tensor) -> None:
        """Keep the loss of a step; now and then see that it is a number, and always that nobody wants to stop."""
        index = len(self._training)
        self._training.append(loss)
        if index % _STEPS_BETWEEN_LOOKS == 0:
            self._check(loss)
            self.compiling.look(self.steps_left, self.device, self.trainer.strategy.broadcast)
        if self.trainer.received_sigterm:
            raise SIGTERMException

    def _check(self, loss: Tensor) -> None:
        """Raise Diverged where the loss of the last step is not a number."""
        loss = self.trainer.strategy.reduce(loss, reduce_op="mean")  # so that all devices end, or none
        if not torch.isfinite(loss):
            raise Diverged(f"loss {loss.item()} in epoch {self.current_epoch + 1}, step {len(self._training)}")

    def _share(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """This device's part of a batch: each draws the same batches, so that their number changes no result.

        Unless a network has batch norms, or a loss over the batch as a mixture of experts has: those see a part each.
        """
        return (batch[0][self._own], batch[1][self._own]) if self._own.step else batch

    def _add(self, batch: Batch) -> None:
        images, labels = self._share(batch)
        if len(labels):
            logits = self.network(images).float()
            right = (logits.argmax(1) == labels).sum()
            self._validation.append(torch.stack([cross_entropy(logits, labels, reduction="sum"), right.float()]))
            self._validated += len(labels)
