"""Candidate → Evaluation: the one place where network, data, training and cost meet.

What trains is imported where it is used: Lightning takes longer to import than torch, and most processes never train.
"""

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from explore.architecture.catalog import Mixing
from explore.architecture.network import Network, check
from explore.architecture.pretrained import Loaded, check_pretrained, load_pretrained
from explore.architecture.spec import Architecture, Model, architecture
from explore.cost.allocator import keep_freed_memory
from explore.cost.device import resolve_device, resolve_precision, resolve_protocol
from explore.cost.flops import count_macs
from explore.cost.measure import count_params, measure_cost, timed_cost
from explore.cost.options import PRECISIONS, Measuring, check_name
from explore.cost.record import Cost
from explore.cost.store import find, identity, keep
from explore.cost.turns import Turns
from explore.data.dataset import Dataset, Split, load
from explore.data.loader import Batches
from explore.data.options import Augmentation, Data
from explore.evaluation import COMPLETE, DIVERGED, MEMORY, REFUSED, STOPPED, Epoch, Evaluation, Report
from explore.training.handing import Turn
from explore.training.memory import give_back_memory, out_of_memory
from explore.training.options import Training
from explore.training.trained import accuracy, restore

# Of a batch, where the whole takes more memory than there is: one attempt, so it has to be a good one.
_PARTS = 8
_SIZES: dict[tuple[str, bool], Cost] = {}  # of architectures that were counted: many candidates share one
COSTS = "costs"  # the folder of measured costs, in that of a study or of a single run


@dataclass(kw_only=True)
class Limits:
    """Schema of the config group `limits`: candidates beyond them are refused before training; null = no limit."""

    params: int | None = None  # at most
    macs: int | None = None  # at most, multiply-adds per image
    throughput: float | None = None  # at least, images per second

    def check(self) -> None:
        """Raise ValueError for a limit that nothing could keep to."""
        for name in ("params", "macs", "throughput"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ValueError(f"limits.{name} must be above 0, or null for none, got {limit}")

    def excess(self, cost: Cost) -> dict[str, float]:
        """How far a cost is beyond each limit that is set and known, as a fraction of it; zero or less is within."""
        found = {}
        for name in ("params", "macs"):
            if limit := getattr(self, name):
                found[name] = getattr(cost, name) / limit - 1
        if self.throughput and cost.throughput:
            found["throughput"] = self.throughput / cost.throughput.images_per_second - 1
        return found

    def beyond(self, cost: Cost) -> dict[str, float]:
        """Those of `excess` that a cost does not keep to."""
        return {name: by for name, by in self.excess(cost).items() if by > 0}


class TooLargeError(ValueError):
    """What is beyond limits of size.

    `sizes` has how large it is, by the names of those limits, and `by` by which factor it is beyond the farthest.
    """

    def __init__(self, sizes: Mapping[str, int], limits: Limits) -> None:
        words = "; ".join(f"{name} {size:,} is above {getattr(limits, name):,}" for name, size in sizes.items())
        super().__init__(f"{words}; loosen {' and '.join(f'limits.{name}' for name in sizes)}, or widen the space")
        self.sizes, self.limits = sizes, limits
        self.by = max(size / getattr(limits, name) for name, size in sizes.items())


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point of the search space: an architecture on given data, and the recipe to train it."""

    model: Model
    token_mixing: Mixing
    channel_mixing: Mixing
    data: Data
    pretrained: str | None  # file with the weights to begin with
    training: Training
    cost: Measuring
    limits: Limits
    timed: bool  # whether speed is measured

    def architecture(self, dataset: Dataset) -> Architecture:
        """The architecture for images and classes of a data set; raises ValueError for one that breaks a rule."""
        return architecture(
            self.model,
            self.token_mixing,
            self.channel_mixing,
            image_size=dataset.image_size,
            channels=dataset.channels,
            classes=len(dataset.classes),
        )

    def check_machine(self) -> None:
        """Raise ValueError where this machine cannot measure or train as it is asked to."""
        resolve_protocol(self.cost)
        training_device(self.training)

    def check_size(self, dataset: Dataset) -> None:
        """Raise ValueError for what is beyond the limits of size; with them it takes some tens of milliseconds."""
        if self.limits.params is None and self.limits.macs is None:
            return
        cost = _size(self.architecture(dataset), macs=self.limits.macs is not None)
        if beyond := self.limits.beyond(cost):
            raise TooLargeError({name: getattr(cost, name) for name in beyond}, self.limits)

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError for anything that would stop this candidate later, on any machine; costs milliseconds."""
        self.training.check()
        self.limits.check()
        if not self.timed:
            _ = self.cost.images  # raises for a batch size that only timing finds
        check_name("training.precision", self.training.precision, PRECISIONS)
        if not self.begins_with(dataset):
            check(self.architecture(dataset))

    def begins_with(self, dataset: Dataset) -> Loaded | None:
        """What becomes of the checkpoint that it begins with; raises ValueError for one that does not fit."""
        return check_pretrained(self.architecture(dataset), Path(self.pretrained)) if self.pretrained else None


def _size(planned: Architecture, *, macs: bool) -> Cost:
    """Parameters of a deployed network, and multiply-adds if they are asked for; nothing else of its cost."""
    key = str(planned), macs
    if key not in _SIZES:
        with torch.device("meta"):
            network = Network(planned).deployed()
        counted = count_macs(network, network.image_shape).total if macs else 0
        _SIZES[key] = Cost(params=count_params(network), macs=counted, memory_bytes=0, throughput=None)
    return _SIZES[key]


def build(candidate: Candidate, dataset: Dataset) -> Network:
    """The network, its weights drawn by the training seed, or read where the candidate begins with a checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(candidate.training.seed)
        network = Network(candidate.architecture(dataset))
    if candidate.pretrained:
        load_pretrained(network, Path(candidate.pretrained))
    return network


def evaluate(
    candidate: Candidate, folder: Path, report: Report, costs: Path | None = None, until: int | None = None
) -> Evaluation:
    """Count, measure, compare with the limits, train; keeps the checkpoint in `folder` and goes on from it.

    The cost is that of the deployed form. It is kept in the folder `costs`, which candidates may share, or in `folder`.

    Ends as complete, stopped after epoch `until` where that is not the last (0 trains nothing), diverged, or refused:
    beyond a limit, or without the memory it needs, even with its batches in parts. Other exceptions are the caller's.
    Of the processes of a run on several devices the first alone measures.
    """
    from explore.training.module import Diverged

    clock = _Clock()
    folder.mkdir(parents=True, exist_ok=True)
    _set_up_process()
    torch.set_num_threads(candidate.training.threads or torch.get_num_threads())
    cost: Cost | None = None
    curve: list[Epoch] = []
    notes: list[str] = []
    last = candidate.training.epochs if until is None else until

    def report_epoch(record: Mapping[str, float]) -> None:
        epoch = Epoch.read(record)
        if not curve or epoch.epoch > curve[-1].epoch:  # one that went on in parts begins with what is known
            curve.append(epoch)
            report(epoch)

    def ended(status: str, reason: str = "", beyond: str = "") -> Evaluation:
        excess = candidate.limits.excess(cost) if cost else {}
        excess |= {beyond: 1.0} if beyond else {}  # nobody knows how far
        reason = "; ".join(filter(None, (reason, *notes)))
        return Evaluation(
            status=status, reason=reason, cost=cost, curve=tuple(curve), seconds=clock.seconds, constraints=excess
        )

    try:
        # Taken before the device is touched: who has it open is known to take turns.
        with turns(candidate.training) as turn:
            with clock.part("build"):
                dataset = load(candidate.data)
                network = build(candidate, dataset)
            if not local_rank():
                with clock.part("cost"):
                    cost = _cost(candidate, network.deployed(), dataset, costs or folder / COSTS, turn)
                    report(cost)
                if beyond := candidate.limits.beyond(cost):
                    return ended(REFUSED, _beyond(candidate.limits, cost, beyond))
            if last:
                with clock.part("train"):
                    _train(candidate, network, dataset, folder, report_epoch, turn, last, notes.append)
    except Diverged as error:
        return ended(DIVERGED, str(error))
    except Exception as error:
        if not out_of_memory(error):
            raise
        return ended(REFUSED, f"out of memory: {str(error).splitlines()[0] if str(error) else 'no room left'}", MEMORY)
    # One that was killed may have come further than it was asked for now.
    return ended(COMPLETE if candidate.training.epochs in (last, len(curve)) else STOPPED)


def _train(
    candidate: Candidate,
    network: Network,
    dataset: Dataset,
    folder: Path,
    report: Callable[[Mapping[str, float]], None],
    turn: Turn,
    until: int,
    tell: Callable[[str], None],
) -> None:
    """Train, and once more with batches in parts where memory runs out; several processes cannot agree on that."""
    from explore.training.fit import fit

    recipe, compiled = resolved(candidate.training), candidate.model.compile
    batches = training_batches(candidate, dataset)
    train = partial(fit, recipe=recipe, folder=folder, report=report, compiled=compiled, turn=turn, until=until)
    try:
        train(network, *batches, tell=tell)
        return
    except Exception as error:
        if not out_of_memory(error) or recipe.devices * recipe.num_nodes > 1:
            raise
        traceback.print_exc()
    del network
    give_back_memory()
    tell(f"out of memory with whole batches, went on with each in {_PARTS} parts")
    train(build(candidate, dataset), *batches, parts=_PARTS, tell=tell)


def test_accuracy(candidate: Candidate, folder: Path) -> float:
    """Accuracy of a trained candidate on the test images, as a fraction, on one device; for the final front only.

    Raises ValueError where its checkpoint is gone or damaged.
    """
    dataset = load(candidate.data)
    recipe = replace(resolved(candidate.training), devices=1, num_nodes=1, strategy="auto")
    batches = _batches(candidate, dataset, dataset.test)
    network = build(replace(candidate, pretrained=None), dataset)  # its trained weights are read instead
    with turns(recipe) as turn:
        return accuracy(network, batches, recipe, folder, turn=turn)


def trained(candidate: Candidate, dataset: Dataset, folder: Path) -> tuple[Network, tuple[Epoch, ...]]:
    """The network with the weights that its training left in `folder`, in evaluation mode, and its curve up to them.

    Raises ValueError where its checkpoint is gone or damaged.
    """
    network = build(replace(candidate, pretrained=None), dataset)
    curve = restore(network, folder)
    return network.eval(), tuple(map(Epoch.read, curve))


def _cost(candidate: Candidate, deployed: nn.Module, dataset: Dataset, costs: Path, turn: Turn) -> Cost:
    """The cost, as it was measured before, or the cheapest parts first, so that what exceeds a limit is never timed.

    Counting computes, on cores where others may measure, so it takes a turn; timing takes one of its own after that.
    """
    shape, device = dataset.image_shape, resolve_device(candidate.cost.device)
    protocol = resolve_protocol(candidate.cost)
    described = {"architecture": asdict(candidate.architecture(dataset).in_evaluation), "protocol": asdict(protocol)}
    key = identity(deployed, described, device)
    if known := find(costs, key):
        return known
    with turn():
        cost = measure_cost(deployed, shape, protocol, timed=False)
    if candidate.timed and not candidate.limits.beyond(cost):
        cost = timed_cost(cost, deployed, shape, protocol, costs)
        if cost.throughput and not cost.throughput.strangers:
            keep(costs, key, cost)
    return cost


def training_batches(candidate: Candidate, dataset: Dataset) -> tuple[Batches, Batches]:
    """The images to train with, as augmented and shuffled by the seed, and those to validate, on the device."""
    train = _batches(candidate, dataset, dataset.train, candidate.data.augmentation)
    return train, _batches(candidate, dataset, dataset.validation)


def _batches(candidate: Candidate, dataset: Dataset, split: Split, augmentation: Augmentation | None = None) -> Batches:
    training = augmentation is not None
    return Batches(
        split,
        candidate.training.batch_size,
        device=training_device(candidate.training),
        mean=dataset.mean,
        std=dataset.std,
        classes=len(dataset.classes),
        augmentation=augmentation,
        seed=candidate.training.seed,
        shuffle=training,
        drop_last=training,
    )


def training_device(recipe: Training) -> torch.device:
    """Where a recipe is trained by this process; raises ValueError for a GPU that is not there."""
    if recipe.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("training.accelerator=gpu needs a GPU, and torch finds none here; try auto or cpu")
    if recipe.accelerator == "cpu" or not torch.cuda.is_available():
        return resolve_device("cpu")
    return resolve_device(f"cuda:{local_rank()}")


@contextmanager
def turns(recipe: Training) -> Iterator[Turn]:
    """What every step of a training waits for: that nobody measures on the device.

    A run of several processes does not wait: they wait for one another within a step, some of them with a turn that the
    others would wait for.
    """
    if not recipe.alone:
        yield nullcontext
        return
    with Turns(training_device(recipe)) as device:
        yield device.computing


def local_rank() -> int:
    """The place of this process among those that Lightning started on this machine for one run; 0 is the first."""
    return int(os.environ.get("LOCAL_RANK", 0))


def resolved(recipe: Training) -> Training:
    """The recipe with the precision that this device trains in."""
    return replace(recipe, precision=resolve_precision(recipe.precision, training_device(recipe)))


def _set_up_process() -> None:
    keep_freed_memory()
    # A GPU reads it at its first product, and Lightning, which asks for the same results in each run, sets it later.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _beyond(limits: Limits, cost: Cost, beyond: Mapping[str, float]) -> str:
    def words(name: str) -> str:
        if name == "throughput":
            assert cost.throughput
            return f"throughput {cost.throughput.images_per_second:,.0f} images/s is below {limits.throughput:,.0f}"
        return f"{name} {getattr(cost, name):,} is above {getattr(limits, name):,}"

    return "; ".join(words(name) for name in beyond)


class _Clock:
    """Adds up the seconds of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
