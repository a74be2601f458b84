"""Configurations as rows of numbers from 0 to 1, as models read them."""

from collections.abc import Callable, Mapping, Sequence
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
        self._columns = {key: _columns(distribution) for key, distribution in space.dimensions.items()}
        self.width = sum(len(columns) for columns in self._columns.values())

    def __call__(self, configurations: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Configurations × columns."""
        found = [np.zeros((len(configurations), 0))]
        for key, columns in self._columns.items():
            values = [one.get(key) for one in configurations]
            found += [column(values) for column in columns]
        return np.column_stack(found)


# Of the values of a dimension, None where a configuration does not have it.
Column = Callable[[Sequence[Any]], NDArray[np.float64]]


def _columns(distribution: BaseDistribution) -> list[Column]:
    if isinstance(distribution, CategoricalDistribution):
        choices: list[Any] = list(distribution.choices)
        if any(isinstance(choice, bool | str) for choice in choices):
            return [_equals(choice) for choice in (choices if len(choices) > 2 else choices[1:])]
        low, high = min(choices), max(choices)
        return [_scaled(low, high, low > 0 and high / low >= _FACTORS)] if high > low else []
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = distribution.low, distribution.high
    return [_scaled(low, high, distribution.log)] if high > low else []


def _equals(choice: Any) -> Column:
    return lambda values: np.array([_ABSENT if value is None else float(value == choice) for value in values])


def _scaled(low: float, high: float, logarithmic: bool) -> Column:
    def column(values: Sequence[Any]) -> NDArray[np.float64]:
        numbers = np.array([np.nan if value is None else value for value in values], float)
        share = np.log(numbers / low) / np.log(high / low) if logarithmic else (numbers - low) / (high - low)
        return np.where(np.isnan(numbers), _ABSENT, share)

    return column
