"""The three sides of `benchmarks.training`: a bare loop of torch, Lightning as its tutorial shows it, and this package.

All train the same network by the same recipe (AdamW, warm-up and cosine per step, clipping, label smoothing) on the
same images, without augmentation, which the other sides do not have.
"""

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Sampler, TensorDataset

from benchmarks.network_sides import SMALL, of_timm
from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.cost.allocator import keep_freed_memory
from explore.data.dataset import Dataset, Split, load
from explore.data.loader import Batches
from explore.data.options import Mnist
from explore.training.fit import fit
from explore.training.optimizer import make_optimizer, rate
from explore.training.options import Training

CANDIDATES = {
    "small": Model(patch_size=14, depth=2, width=32),
    "medium": Model(patch_size=4, depth=4, width=64),
}


def network(candidate: str, dataset: Dataset, seed: int) -> Network:
    """A candidate with weights drawn by a seed."""
    torch.manual_seed(seed)
    size, channels, classes = dataset.image_size, dataset.channels, len(dataset.classes)
    mlp = Mixing(name="mlp")
    return Network(architecture(CANDIDATES[candidate], mlp, mlp, image_size=size, channels=channels, classes=classes))


def batches(dataset: Dataset, split: Split, recipe: Training) -> Batches:
    """Batches as a trial has them."""
    training = split is dataset.train
    return Batches(
        split,
        recipe.batch_size,
        device="cuda" if recipe.accelerator == "gpu" else "cpu",
        mean=dataset.mean,
        std=dataset.std,
        classes=len(dataset.classes),
        seed=recipe.seed,
        shuffle=training,
        drop_last=training,
    )


def normalised(dataset: Dataset, split: Split) -> tuple[Tensor, Tensor]:
    """All images and labels of a split, ready for a network."""
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (dataset.mean, dataset.std))
    return (split.images / 255 - mean) / std, split.labels


class Timed:
    """Batches, and the seconds between the beginning and the end of each pass over them."""

    def __init__(self, loader: Batches) -> None:
        self.loader = loader
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """As the batches."""
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        start = time.perf_counter()
        yield from self.loader
        self.seconds.append(time.perf_counter() - start)


class BareTrial:
    """A trial as one writes it by hand: images in memory, fused AdamW, no hooks; a checkpoint and a line an epoch."""

    def __init__(self, net: nn.Module, dataset: Dataset, recipe: Training, folder: Path) -> None:
        self.network, self.recipe, self.folder = net, recipe, folder
        self.images, self.labels = normalised(dataset, dataset.train)
        self.validation = normalised(dataset, dataset.validation)
        self.optimizer = make_optimizer(net, recipe)
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.steps = len(self.images) // recipe.batch_size
        self.taken = 0
        self.train_seconds: list[float] = []
        self.seconds: list[float] = []

    def epoch(self) -> None:
        """Train an epoch, validate, save and log, and note the seconds of training and of all."""
        start = time.perf_counter()
        train_loss = self._train()
        self.train_seconds.append(time.perf_counter() - start)
        loss, accuracy = self._validate()
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.taken}
        torch.save(state, self.folder / "partial")
        os.replace(self.folder / "partial", self.folder / "last")
        log(self.folder, {"train_loss": train_loss, "val_loss": loss, "val_accuracy": accuracy})
        self.seconds.append(time.perf_counter() - start)

    def _train(self) -> float:
        recipe, size = self.recipe, self.recipe.batch_size
        self.network.train()
        parameters = list(self.network.parameters())
        order = torch.randperm(len(self.images))
        total = torch.zeros(())
        for start in range(0, self.steps * size, size):
            rows = order[start : start + size]
            lr = recipe.lr * rate(self.taken, recipe.epochs * self.steps, recipe)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
                loss = self.loss(self.network(self.images[rows]), self.labels[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            self.optimizer.step()
            total += loss.detach()
            self.taken += 1
        return total.item() / self.steps

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        self.network.eval()
        total, right = torch.zeros(()), torch.zeros(())
        for images, labels in zip(
            *(torch.split(part, self.recipe.batch_size) for part in self.validation), strict=True
        ):
            logits = self.network(images)
            total += cross_entropy(logits, labels, reduction="sum")
            right += (logits.argmax(1) == labels).sum()
        count = len(self.validation[1])
        return total.item() / count, right.item() / count


def log(folder: Path, record: Mapping[str, float]) -> None:
    """Append a line to the log of a trial."""
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(dict(record)) + "\n")


def ours(candidate: str, dataset: Dataset, recipe: Training, epoch: Callable[[], None]) -> tuple[Timed, float]:
    """Run a trial of this package and call `epoch` after each of its epochs; its passes, and its seconds without that.

    The last accuracy is left in the log of the trial, as every epoch is.
    """
    elsewhere = 0.0
    train = Timed(batches(dataset, dataset.train, recipe))
    net = network(candidate, dataset, recipe.seed)
    with tempfile.TemporaryDirectory() as folder:

        def report(record: Mapping[str, float]) -> None:
            nonlocal elsewhere
            log(Path(folder), record)
            start = time.perf_counter()
            epoch()
            elsewhere += time.perf_counter() - start

        start = time.perf_counter()
        fit(net, train, batches(dataset, dataset.validation, recipe), recipe, Path(folder), report)
        return train, time.perf_counter() - start - elsewhere


def our_trial(candidate: str, dataset: Dataset, recipe: Training) -> tuple[float, float]:
    """Seconds and validation accuracy of a whole trial."""
    net = network(candidate, dataset, recipe.seed)
    train, validation = (batches(dataset, split, recipe) for split in (dataset.train, dataset.validation))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        curve = fit(net, train, validation, recipe, Path(folder), lambda record: log(Path(folder), record))
        return time.perf_counter() - start, curve[-1]["val_accuracy"]


class SameOrder(Sampler[int]):
    """The order of images that a trial of a seed has, epoch by epoch: it decides points of accuracy."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        self.epoch += 1
        return iter(order.tolist())


class Tutorial(lightning.LightningModule):
    """A LightningModule as in "Lightning in 15 minutes", with the recipe of the other sides."""

    def __init__(self, net: nn.Module, recipe: Training, steps: int) -> None:
        super().__init__()
        self.net, self.recipe, self.steps = net, recipe, steps
        self.accuracy = 0.0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch."""
        images, labels = batch
        loss = cross_entropy(self.net(images), labels, label_smoothing=self.recipe.label_smoothing)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy of a batch."""
        images, labels = batch
        logits = self.net(images)
        self.log("val_loss", cross_entropy(logits, labels))
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean())

    def on_validation_epoch_end(self) -> None:
        """Keep the last accuracy."""
        self.accuracy = float(self.trainer.callback_metrics["val_accuracy"])

    def configure_optimizers(self) -> Any:
        """AdamW as it is by default, with the schedule of the recipe."""
        decay = [{key: group[key] for key in ("params", "weight_decay")} for group in self._groups()]
        optimizer = torch.optim.AdamW(decay, lr=self.recipe.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, self.steps, self.recipe))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[dict[str, object]]:
        return list(make_optimizer(self.net, self.recipe).param_groups)


def trials(side: str) -> Callable[[tuple[str, Training]], tuple[float, float]]:
    """What trains a candidate by a recipe and returns seconds and accuracy, in a process that has nothing else to do.

    `side` is `ours`, or whose network the tutorial trains: `package` or `timm`. Memory is as this side has it: the
    process of a trial keeps what is freed, and Lightning leaves that to glibc.
    """
    torch.set_num_threads(1)
    dataset = load(Mnist())
    if side == "ours":
        keep_freed_memory()
        return lambda asked: our_trial(asked[0], dataset, asked[1])
    make = {"package": network, "timm": network_of_timm}[side]
    return lambda asked: tutorial_trial(make(asked[0], dataset, asked[1].seed), dataset, asked[1])


def network_of_timm(candidate: str, dataset: Dataset, seed: int) -> nn.Module:
    """A candidate as timm has it, with the same weights."""
    model, own = CANDIDATES[candidate], network(candidate, dataset, seed)
    shape = replace(SMALL, patch_size=model.patch_size, depth=model.depth, width=model.width)  # images are the same
    return of_timm(shape, own).train()


def tutorial_trial(net: nn.Module, dataset: Dataset, recipe: Training) -> tuple[float, float]:
    """Seconds and validation accuracy of Lightning with its defaults: progress bar, logger, checkpoints, DataLoader."""
    train, validation = (TensorDataset(*normalised(dataset, split)) for split in (dataset.train, dataset.validation))
    loaders = (
        DataLoader(train, recipe.batch_size, sampler=SameOrder(len(train), recipe.seed), drop_last=True),
        DataLoader(validation, recipe.batch_size),
    )
    module = Tutorial(net, recipe, recipe.epochs * len(loaders[0]))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
        warnings.simplefilter("ignore")
        with redirect_stdout(nowhere):
            start = time.perf_counter()
            trainer = lightning.Trainer(
                max_epochs=recipe.epochs,
                default_root_dir=folder,
                accelerator="cpu",
                gradient_clip_val=recipe.clip_norm,
            )
            trainer.fit(module, *loaders)
        return time.perf_counter() - start, module.accuracy
