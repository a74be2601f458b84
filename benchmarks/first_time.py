"""The parts of a trial in the process that it has for itself, where everything is done for the first time.

A process that is forked from the warm server copies each page of memory that it touches, and torch looks up anew what
it does with each operator and shape. So nothing of this may be repeated in one process.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import nn

from explore.candidate import Candidate, build
from explore.cost.allocator import keep_freed_memory
from explore.cost.measure import measure_cost
from explore.data.dataset import Dataset, Split, load
from explore.data.loader import Batches
from explore.evaluation import COMPLETE, Evaluation, Report
from explore.training.fit import fit


def parts(candidate: Candidate, folder: Path, report: Report) -> Evaluation:
    """Load images, build, count, and train for one step on one image; the seconds of each."""
    seconds: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    keep_freed_memory()
    with part("load images"):
        dataset = load(candidate.data)
    with part("build"):
        network = build(candidate, dataset)
    with part("count"):
        shape = dataset.image_shape
        measure_cost(network, shape, candidate.cost, timed=False)
    with part("start of fit"):
        train(network, candidate, dataset, folder, epochs=1, rung=1)
    return Evaluation(status=COMPLETE, seconds=seconds)


def train(network: nn.Module, candidate: Candidate, dataset: Dataset, folder: Path, *, epochs: int, rung: int) -> None:
    """A fit whose epochs are one step on one image: what is left is the trainer's own."""
    recipe = replace(candidate.training, epochs=epochs, rung=rung, batch_size=1)
    one = Split(dataset.train.images[:1], dataset.train.labels[:1])

    def batches() -> Batches:
        return Batches(one, 1, device="cpu", mean=dataset.mean, std=dataset.std, classes=len(dataset.classes))

    fit(network, batches(), batches(), recipe, folder, lambda record: None)
