"""What earlier searches teach of accuracy before anything is trained.

How depth, widths, patches, mixings and learning rate move accuracy and the speed of learning is alike from one set of
images to another. The prior is a ridge regression of the logit of the accuracy on main effects, squares and products
of pairs of the dimensions of a configuration, times a parabola in the logarithm of the epoch, which says how far
accuracy rises as well; that some sets of images are harder than others, a constant for each, was taken out before.
Recorded learning curves taught it, see `benchmarks/search_prior.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from explore.search.encoding import Table

Array = NDArray[np.float64]
FILE = Path(__file__).with_name("prior.json")
PATCHES = "patches"  # along one side of the image: says more than the size of a patch


@dataclass(frozen=True)
class Prior:
    """Predicts the logit of the accuracy of configurations, up to a constant.

    Args:
        numbers: what the logarithm of a dimension lies between; what lies outside counts as the nearest that was seen.
        names: the choices that were seen of dimensions that have names.
        weights: terms of the configuration × terms of the epoch.
        epochs: the last that was seen.
    """

    numbers: Mapping[str, tuple[float, float]]
    names: Mapping[str, Sequence[str]]
    weights: Array
    epochs: int

    @classmethod
    def load(cls, file: Path = FILE) -> Self:
        """Read one that was fitted."""
        record = json.loads(file.read_text())
        return cls(**{**record, "weights": np.asarray(record["weights"])})

    def __call__(self, configurations: Sequence[Mapping[str, Any]], epochs: Array, image_size: int) -> Array:
        """A number for each configuration and its epoch."""
        if not configurations:
            return np.zeros(0)
        terms, times = self.terms(configurations, image_size), self.times(epochs)
        values: Array = (terms @ self.weights * times).sum(1)
        return values

    def terms(self, configurations: Sequence[Mapping[str, Any]], image_size: int) -> Array:
        """Configurations × terms; a dimension that a configuration does not have counts as the middle of it."""
        columns = self._columns(configurations, image_size)
        one, other = np.triu_indices(columns.shape[1])
        return np.concatenate([np.ones((len(columns), 1)), columns, columns[:, one] * columns[:, other]], axis=1)

    def times(self, epochs: Array) -> Array:
        """Epochs × terms."""
        shares = np.log1p(np.minimum(epochs, self.epochs)) / np.log1p(self.epochs)
        return np.column_stack([np.ones(len(shares)), shares, shares**2])

    def _columns(self, configurations: Sequence[Mapping[str, Any]], image_size: int) -> Array:
        columns = [np.zeros((len(configurations), 0))]
        for key, span in self.numbers.items():
            of = "model.patch_size" if key == PATCHES else key
            sizes = np.array([values.get(of) or np.nan for values in configurations], float)
            columns.append(_shares(image_size / sizes if key == PATCHES else sizes, *span))
        for key, table in self._tables.items():
            columns.append(table([values.get(key) for values in configurations]))
        return np.column_stack(columns)

    @cached_property
    def _tables(self) -> Mapping[str, Table]:
        return {key: _table(seen) for key, seen in self.names.items()}


def unbiased(configurations: Sequence[Mapping[str, Any]], epochs: Array) -> Array:
    """What is thought of configurations when nothing was learned."""
    return np.zeros(len(configurations))


def _table(seen: Sequence[str]) -> Table:
    names = seen if len(seen) > 2 else seen[1:]
    return Table({one: [float(one == name) - 0.5 for name in names] for one in seen}, [0.0] * len(names))


def _shares(values: Array, low: float, high: float) -> Array:
    """The places of numbers between the ends, from -0.5 to 0.5, in the middle where there is none."""
    shares: Array = np.clip((np.log(values) - low) / (high - low), 0, 1) - 0.5
    return np.where(np.isnan(shares), 0.0, shares)
