"""Configurations as rows of numbers from 0 to 1, as models read them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from explore.search.space import Space

# Choices of numbers that span so much are meant as factors: widths of 8, 16, 32.
_FACTORS = 3.0
_ABSENT = 0.5


class Encoding:
    """Columns for the dimensions of a space: one for numbers, one for each name of a choice (one for both of two).

    A dimension that a configuration does not have is in the middle: that it is absent follows from another column.
    """

    def __init__(self, space: Space) -> None:
        every = {key: _columns(distribution) for key, distribution in space.dimensions.items()}
        self._columns = {key: columns for key, columns in every.items() if columns}
        self.width = sum(columns.width for columns in self._columns.values())

    def __call__(self, configurations: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Configurations × columns."""
        found = [np.zeros((len(configurations), 0))]
        for key, columns in self._columns.items():
            found.append(columns([one.get(key) for one in configurations]))
        return np.concatenate(found, axis=1)


class Table:
    """Columns that are looked up: `rows` by value, and `other` for any value that has none."""

    def __init__(self, rows: Mapping[Any, Sequence[float]], other: Sequence[float]) -> None:
        self.width = len(other)
        self._places = {value: place for place, value in enumerate(rows)}
        self._table = np.array([*rows.values(), other], float)

    def __call__(self, values: Sequence[Any]) -> NDArray[np.float64]:
        """Values × columns."""
        return self._table[[self._places.get(value, -1) for value in values]]


class _Scaled:
    """One column, from 0 at `low` to 1 at `high`."""

    width = 1

    def __init__(self, low: float, high: float, logarithmic: bool) -> None:
        self._low, self._high, self._logarithmic = low, high, logarithmic

    def __call__(self, values: Sequence[Any]) -> NDArray[np.float64]:
        """Values × 1."""
        low, high = self._low, self._high
        numbers = np.array(values, float)[:, None]  # not a number for None
        share = np.log(numbers / low) / np.log(high / low) if self._logarithmic else (numbers - low) / (high - low)
        return np.where(np.isnan(numbers), _ABSENT, share)


def _columns(distribution: BaseDistribution) -> Table | _Scaled | None:
    if isinstance(distribution, CategoricalDistribution):
        choices: list[Any] = list(distribution.choices)
        if any(isinstance(choice, bool | str) for choice in choices):
            names = choices if len(choices) > 2 else choices[1:]
            rows = {choice: [float(choice == name) for name in names] for choice in choices}
            return Table(rows | {None: [_ABSENT] * len(names)}, [0.0] * len(names))
        low, high = min(choices), max(choices)
        return _Scaled(low, high, low > 0 and high / low >= _FACTORS) if high > low else None
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = distribution.low, distribution.high
    return _Scaled(low, high, distribution.log) if high > low else None
