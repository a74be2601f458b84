"""How good a search was, judged by a recorded table: the area that what it trained to the end dominates.

A configuration counts once it is trained to the last epoch, with its test accuracy there, the mean over the recorded
seeds; a search itself sees the validation accuracy of the first seed only. Speed is on a log scale. Accuracy is on two
scales: as it is, and as the negative logarithm of the error. The reference point is chance accuracy at the slowest
speed of the table, on both scales and for all methods.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.search_table import FOLDER, SEEDS
from explore.search.front import GrowingFront, hypervolume

Array = NDArray[np.float64]
CLASSES = 10
SCALES = ("plain", "log error")
SHARES = (0.90, 0.95, 0.99)  # of the table's own hypervolume


@dataclass(frozen=True)
class Table:
    """A recorded table, by configuration number.

    Args:
        data: its name.
        overrides: each configuration.
        throughput: images/s.
        cost_seconds: for building and measuring.
        epoch_seconds: of one epoch of training.
        validation: configurations × epochs, accuracy of the first seed; nan behind the end of a run that diverged.
        test: accuracy after the last epoch, mean over seeds; nan for a run that diverged.
        smallest_error: half an image of the test split, the error of those that made none.
    """

    data: str
    overrides: Sequence[tuple[str, ...]]
    throughput: Array
    cost_seconds: Array
    epoch_seconds: Array
    validation: Array
    test: Array
    smallest_error: float

    @property
    def epochs(self) -> int:
        """The last epoch."""
        return int(self.validation.shape[1])

    @cached_property
    def reference(self) -> dict[str, tuple[float, float]]:
        """The reference point of each scale, as losses."""
        slowest = float(-np.log(self.throughput.min()))
        return {scale: (float(-self.scaled(np.array([1 / CLASSES]), scale)[0]), slowest) for scale in SCALES}

    def scaled(self, accuracy: Array, scale: str) -> Array:
        """Accuracy on a scale, higher is better."""
        return accuracy if scale == "plain" else -np.log10(np.maximum(1 - accuracy, self.smallest_error))

    def whole(self, scale: str) -> float:
        """The hypervolume of the whole table."""
        points = np.column_stack([-self.scaled(self.test, scale), -np.log(self.throughput)])
        return hypervolume(points[np.isfinite(points).all(axis=1)], self.reference[scale])

    def progress(self, finished: Sequence[int], scale: str) -> Array:
        """The share of the table's hypervolume after each of the configurations that were trained to the end."""
        front, whole = GrowingFront(self.reference[scale]), self.whole(scale)
        shares = []
        for number in finished:
            front.add(-float(self.scaled(self.test[number : number + 1], scale)[0]), -np.log(self.throughput[number]))
            shares.append(front.hypervolume / whole)
        return np.array(shares)


@dataclass(frozen=True)
class Finish:
    """A configuration was trained to the end: what had been spent by then, by all workers together and on the clock."""

    configuration: int
    epochs: int
    seconds: float


def reached(table: Table, finishes: Sequence[Finish], scale: str, share: float) -> Finish | None:
    """When a search came to a share of the table's hypervolume; None if it never did."""
    progress = table.progress([one.configuration for one in finishes], scale)
    return next((one for one, now in zip(finishes, progress, strict=True) if now >= share), None)


def load_table(data: str) -> Table:
    """Read a recorded table."""
    configurations = pd.read_parquet(FOLDER / f"{data}.configurations.parquet")
    curves = pd.read_parquet(FOLDER / f"{data}.curves.parquet")
    origin = json.loads((FOLDER / f"{data}.json").read_text())
    first = curves[curves.seed == SEEDS[0]]
    validation = first.pivot(index="configuration", columns="epoch", values="val_accuracy")
    numbers = configurations.configuration
    return Table(
        data=data,
        overrides=[tuple(json.loads(one)) for one in configurations.overrides],
        throughput=configurations.throughput.to_numpy(float),
        cost_seconds=configurations.cost_seconds.to_numpy(float),
        epoch_seconds=first.groupby("configuration").seconds.median().reindex(numbers).to_numpy(float),
        validation=validation.reindex(numbers).to_numpy(float),
        test=curves.groupby("configuration").test_accuracy.mean().reindex(numbers).to_numpy(float),
        smallest_error=0.5 / origin["test_images"],
    )
