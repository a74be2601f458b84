"""Several networks of one shape trained at once as one batched network: a single operator works on all of them.

What comes out is what training each alone would, within the rounding of batched products: each has its own weights,
order of the images and augmentation, and its own norm of the gradient; AdamW and the moving average work number by
number. A network cannot take part whose result is more than weights and images: one that draws random numbers in
training, or keeps running statistics.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from explore.training.compiling import Compiling
from explore.training.handing import Batch, Loader
from explore.training.module import Classifier, Diverged
from explore.training.one_tensor import OneTensor
from explore.training.optimizer import make_optimizer
from explore.training.options import Training

_OWN = ("state_dict", "current_model_state")  # of a checkpoint: what each network has its own of, name by name


def check_stackable(network: nn.Module) -> None:
    """Raise ValueError for a network that keeps statistics; random numbers in training are refused by `torch.vmap`."""
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    if kept := sorted(network.state_dict().keys() - parameters):
        raise ValueError(f"networks are trained together where weights are all they learn, got {kept[0]}")


@contextmanager
def quiet_vmap() -> Iterator[None]:
    """Says nothing of operators that `torch.vmap` takes one by one: whether that is slow is measured."""
    torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._functorch._set_vmap_fallback_warning_enabled(True)  # type: ignore[attr-defined]


def stacked(networks: Sequence[nn.Module]) -> nn.Module:
    """A copy of the first network whose parameters are those of all: networks × the shape of one."""
    result = copy.deepcopy(networks[0])
    own = [dict(network.named_parameters()) for network in networks]
    new = {
        id(parameter): nn.Parameter(torch.stack([one[name].detach() for one in own]))
        for name, parameter in result.named_parameters()
    }
    for module in result.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, new[id(parameter)])
    return result


def losses(network: nn.Module, batch: Batch, label_smoothing: float) -> Tensor:
    """The training loss of each of the networks that were `stacked`, each with a batch of its own."""

    def loss(parameters: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, parameters, (images,))
        return cross_entropy(logits, targets, label_smoothing=label_smoothing)

    found: Tensor = vmap(loss)(dict(network.named_parameters()), *batch)
    return found


def clip_each(parameters: Sequence[nn.Parameter], most: float) -> None:
    """As `torch.nn.utils.clip_grad_norm_`, each of the networks that were `stacked` by the norm of its own gradient."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(one.flatten(1), dim=1) for one in gradients])
    factors = (most / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for one in gradients:
        one.mul_(factors.view(-1, *[1] * (one.ndim - 1)))


class Abreast:
    """The batches of several loaders of one length, stacked: loaders × batch × ..."""

    def __init__(self, loaders: Sequence[Loader]) -> None:
        self.loaders = loaders

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[Batch]:
        for batches in zip(*self.loaders, strict=True):
            images, targets = zip(*batches, strict=True)
            yield torch.stack(images), torch.stack(targets)

    def set_epoch(self, epoch: int) -> None:
        """As `Loader`."""
        for loader in self.loaders:
            loader.set_epoch(epoch)


class Classifiers(Classifier):
    """As `Classifier`, for several networks at once; batches are those of `Abreast`, validation is the same for all.

    `curves` holds the curve of each, which ends where its loss was no longer a number; the others go on. `seconds` of
    an epoch are its share.
    """

    def __init__(self, networks: Sequence[nn.Module], recipe: Training, steps: int) -> None:
        network = stacked(networks)
        super().__init__(network, recipe, steps, Compiling(network, "off"))
        self.curves: list[list[dict[str, float]]] = [[] for _ in networks]
        self.sound = [True] * len(networks)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW for all at once."""
        return make_optimizer(self.network, self.recipe, stacked=True)

    def on_validation_epoch_end(self) -> None:
        """Write the epoch into each curve; raises Diverged when no loss is a number."""
        train = torch.stack(self._training).float().mean(0).tolist()
        sums = torch.stack(self._validation).sum(0).tolist()
        seconds = (time.perf_counter() - self._began) / len(train)
        for place, (train_loss, loss, right) in enumerate(zip(train, *sums, strict=True)):
            self.sound[place] &= math.isfinite(train_loss) and math.isfinite(loss)
            if self.sound[place]:
                self.curves[place].append(
                    {
                        "epoch": self.current_epoch + 1,
                        "train_loss": train_loss,
                        "val_loss": loss / self._validated,
                        "val_accuracy": right / self._validated,
                        "lr": self._rate(),
                        "seconds": seconds,
                    }
                )
        if not any(self.sound):
            raise self._diverged()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curves, for `Apart`."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["curve"] = self.curves

    def _backward(self, batch: Batch, parameters: list[nn.Parameter]) -> Tensor:
        with self.trainer.precision_plugin.forward_context():
            found = losses(self.network, batch, self.recipe.label_smoothing)
        self.manual_backward(found.sum())
        return found.detach()

    def _clip(self, optimizer: LightningOptimizer, parameters: list[nn.Parameter]) -> None:
        if self.recipe.clip_norm:
            clip_each(parameters, self.recipe.clip_norm)

    def _check(self, loss: Tensor) -> None:
        if not torch.isfinite(loss).any():
            raise self._diverged()

    def _diverged(self) -> Diverged:
        return Diverged(f"no loss is a number in epoch {self.current_epoch + 1}")

    def _add(self, batch: Batch) -> None:
        images, labels = batch
        if not len(labels):
            return

        def logits(parameters: dict[str, Tensor]) -> Tensor:
            found: Tensor = functional_call(self.network, parameters, (images,))
            return found

        found = vmap(logits)(dict(self.network.named_parameters())).float()
        right = (found.argmax(2) == labels).sum(1)
        each = vmap(lambda one: cross_entropy(one, labels, reduction="sum"))(found)
        self._validation.append(torch.stack([each, right.float()]))
        self._validated += len(labels)


class Apart(OneTensor):
    """Writes the checkpoint of `Classifiers` as one for each network, into its folder, as if it were trained alone.

    Those that diverged keep the checkpoint that they have.
    """

    def __init__(self, module: Classifiers, folders: Sequence[Path]) -> None:
        self.module = module
        self.folders = folders

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the checkpoints under the name of `path`."""
        for place, folder in enumerate(self.folders):
            if self.module.sound[place]:
                super().save_checkpoint(_part(checkpoint, place), folder / Path(path).name)


def _part(checkpoint: dict[str, Any], place: int) -> dict[str, Any]:
    """The checkpoint of one network in that of all. What is not its own is the same for all."""

    def own(named: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor[place].clone() for name, tensor in named.items()}

    def moments(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: one if name == "step" else one[place].clone() for name, one in state.items()}

    (optimizer,) = checkpoint["optimizer_states"]
    state = {index: moments(one) for index, one in optimizer["state"].items()}
    weights = {name: own(checkpoint[name]) for name in _OWN if name in checkpoint}
    curve = checkpoint["curve"][place]
    return {**checkpoint, **weights, "optimizer_states": [{**optimizer, "state": state}], "curve": curve}
