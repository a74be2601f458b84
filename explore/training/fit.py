"""Training of any network by a recipe, from rung to rung, with Lightning's Trainer."""

import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from explore.training.average import Average
from explore.training.checkpoint import epochs_of, newest, put
from explore.training.compiling import Compiling
from explore.training.handing import Handing, Loader, Turn
from explore.training.module import Classifier
from explore.training.one_tensor import OneTensor
from explore.training.options import Training
from explore.training.together import Abreast, Apart, Classifiers, check_stackable, quiet_vmap

ReportEpoch = Callable[[Mapping[str, float]], None]
ReportEpochOf = Callable[[int, Mapping[str, float]], None]
_RUNG_SECONDS = 1.0  # of training for each checkpoint, which takes a hundredth of that


def fit(
    network: nn.Module,
    train: Loader,
    validation: Loader,
    recipe: Training,
    folder: Path,
    report: ReportEpoch,
    *,
    compiled: str = "off",
    turn: Turn = nullcontext,
    until: int | None = None,
    parts: int = 1,
    tell: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train and return the learning curve, a record per epoch; `recipe.precision` must be resolved.

    Stops after epoch `until`, for now: a later call goes on from there, to the last epoch of the recipe by default.

    Goes on from the last checkpoint in `folder` that is whole, and reports the epochs before it first; `tell` is told
    of one that is not. The weights end in `network`. `compiled` is on, off or auto (see `Compiling`). A batch is worked
    on in `parts` one after the other, to take less memory (see `Classifier`). Every batch, of training and of
    validation, is worked on inside `turn()`: what waits there waits between two steps. On a GPU a step is launched in
    its turn, and may end a little later.

    Raises Diverged when the loss is no longer a number.
    """
    module = Classifier(network, recipe, recipe.epochs * len(train), Compiling(network, compiled), parts)
    rungs = _Rungs(train, recipe, folder, report)
    callbacks: list[Callback] = [rungs]
    if recipe.ema:
        callbacks.append(Average(recipe))
    with _quiet_lightning(), _interruptible():
        start = newest(folder, tell)
        # A process that was killed may have come further than anybody heard of.
        last = max(until or recipe.epochs, epochs_of(start) if start else 0)
        trainer = _trainer(replace(recipe, epochs=last), callbacks, folder)
        if recipe.alone:  # other strategies read checkpoints by themselves
            trainer.strategy.checkpoint_io = OneTensor()
        loaders = Handing(train, turn, whole=recipe.alone), Handing(validation, turn, whole=True)
        try:
            trainer.fit(module, *loaders, ckpt_path=str(start) if start else None, weights_only=True)
        finally:
            module.release()
        rungs.report_new(trainer, module)  # where the checkpoint was the last one, no epoch has begun
    return module.curve


def fit_together(
    networks: Sequence[nn.Module],
    train: Sequence[Loader],
    validation: Loader,
    recipe: Training,
    folders: Sequence[Path],
    report: ReportEpochOf,
    *,
    turn: Turn = nullcontext,
) -> list[list[dict[str, float]]]:
    """Train networks of one shape at once, each with its own order of the images, and return their curves.

    All by one recipe, on one device. What is left in each folder is what `fit` leaves, and goes on from. A network
    whose loss is no longer a number keeps its last checkpoint and is left out; Diverged is raised for the last.
    `report` is told the place of the network as well.

    Raises ValueError for networks that cannot be trained so (see `check_stackable`); those with random numbers in
    training are refused by a RuntimeError.
    """
    check_stackable(networks[0])
    module = Classifiers(networks, recipe, recipe.epochs * len(train[0]))
    rungs = _RungsOfEach(Abreast(train), recipe, folders, report)
    callbacks: list[Callback] = [rungs, *([Average(recipe)] if recipe.ema else [])]
    with _quiet_lightning(), quiet_vmap(), _interruptible():
        trainer = _trainer(recipe, callbacks, folders[0])
        trainer.strategy.checkpoint_io = Apart(module, folders)
        try:
            trainer.fit(module, Handing(rungs.train, turn, whole=True), Handing(validation, turn, whole=True))
        finally:
            module.release()
        rungs.report_new(trainer, module)
    return module.curves


class _Rungs(Callback):
    """Sets the epoch of the data, writes a checkpoint at each rung, and reports each epoch.

    Without rungs of the recipe's, an epoch ends at one if a second has passed since the last, and no epoch is reported
    before its checkpoint is there: what is known is not trained again. Several processes have no clock in common, and
    have one in each epoch.
    """

    def __init__(self, train: Loader, recipe: Training, folder: Path, report: ReportEpoch) -> None:
        self.train = train
        self.recipe = recipe
        self.folder = folder
        self.report = report
        self.reported = 0
        self.kept = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report_new(trainer, pl_module)  # of the checkpoint

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train.set_epoch(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch == trainer.max_epochs or self._is_rung(trainer, epoch):
            self._save(trainer, keep=epoch < self.recipe.epochs)
            self.kept = time.monotonic()
        elif self.recipe.rung is None:
            return
        self.report_new(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception):  # of the candidate's, which ends with what is known; others are orders
            self.report_new(trainer, pl_module)

    def _is_rung(self, trainer: Trainer, epoch: int) -> bool:
        if self.recipe.rung is None and trainer.world_size == 1:
            return time.monotonic() - self.kept >= _RUNG_SECONDS
        return epoch % (self.recipe.rung or 1) == 0

    def _save(self, trainer: Trainer, *, keep: bool) -> None:
        partial = self.folder / "last.partial"
        try:
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                put(partial, self.folder, keep=keep)
        except BaseException:
            partial.unlink(missing_ok=True)  # a disk that is full has better use for the room
            raise

    def report_new(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epochs of the curve that were not reported yet."""
        assert isinstance(pl_module, Classifier)
        new, self.reported = pl_module.curve[self.reported :], len(pl_module.curve)
        if trainer.is_global_zero:
            for record in new:
                self.report(record)


class _RungsOfEach(_Rungs):
    """As `_Rungs`, for several networks at once, each with its folder."""

    def __init__(self, train: Loader, recipe: Training, folders: Sequence[Path], report: ReportEpochOf) -> None:
        super().__init__(train, recipe, folders[0], lambda record: None)
        self.folders = folders
        self.report_of = report
        self.reported_of = [0] * len(folders)

    def _save(self, trainer: Trainer, *, keep: bool) -> None:
        partials = [folder / "last.partial" for folder in self.folders]
        try:
            trainer.save_checkpoint(partials[0])  # which writes all of them
            for partial, folder in zip(partials, self.folders, strict=True):
                if partial.exists():
                    put(partial, folder, keep=keep)
        except BaseException:
            for partial in partials:
                partial.unlink(missing_ok=True)
            raise

    def report_new(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As `_Rungs`."""
        assert isinstance(pl_module, Classifiers)
        for place, curve in enumerate(pl_module.curves):
            new, self.reported_of[place] = curve[self.reported_of[place] :], len(curve)
            for record in new:
                self.report_of(place, record)


def _trainer(recipe: Training, callbacks: list[Callback], folder: Path) -> Trainer:
    """A Trainer that does only what is needed: no bars, no loggers, no sanity run, no files of its own."""
    # Deterministic operators would fill what they allocate first, with a kernel for each, in this whole process;
    # nothing here reads what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return Trainer(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        strategy=recipe.strategy,
        num_nodes=recipe.num_nodes,
        precision=recipe.precision,  # type: ignore[arg-type]
        max_epochs=recipe.epochs,
        deterministic="warn" if torch.cuda.is_available() else False,
        # Lightning would look for others, and import mpi4py for that where it is installed, which takes half a second.
        plugins=LightningEnvironment() if recipe.alone else None,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt: Lightning ends the process for it, and leaves the signal ignored."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        raise KeyboardInterrupt from end
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence advice that does not apply: no loader workers are missing for resident data, and float32 is meant."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
