"""The configurations of a recorded table as points of its search space, and the one nearest to what a sampler wants."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.search_judge import Table
from benchmarks.search_table import space_of
from explore.search.space import Values, to_overrides
from explore.search.trial import Trial


class Rows:
    """The configurations of a table in the coordinates of its space.

    The distance is that of Gower (1971), "A general coefficient of similarity and some of its properties", summed over
    the dimensions: 0 or 1 between names; between numbers their difference over the range, on a log scale where the
    space has one and by rank among choices; 1 for a dimension that only one of both has, 0 for one that neither has.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.space = space_of(table.data)
        self._rows = {overrides: row for row, overrides in enumerate(table.overrides)}
        self._values = [_read(self.space.dimensions, overrides) for overrides in table.overrides]
        self._points = np.array([self._point(values) for values in self._values])
        self._names = np.array([_is_of_names(distribution) for distribution in self.space.dimensions.values()])

    def values_of(self, row: int) -> Values:
        """The configuration of a row, as the space samples it."""
        return dict(self._values[row])

    def row_of(self, trial: Trial) -> int:
        """The row of a trial."""
        return self._rows[tuple(trial.proposal.overrides)]

    def nearest(self, values: Mapping[str, Any], free: AbstractSet[int]) -> int:
        """Return the free row nearest to a sampled configuration, the first of equals; raises ValueError if none is."""
        if not free:
            raise ValueError("free must have a row, got none: every configuration of the table was tried")
        rows = np.array(sorted(free))
        points, wanted = self._points[rows], self._point(values)
        distances = np.abs(points - wanted)
        # Names are 0 or 1 apart however far their places are; so are a number and none.
        all_or_none = self._names | ((points < 0) != (wanted < 0))
        distances[all_or_none] = np.sign(distances[all_or_none])
        return int(rows[np.argmin(distances.sum(axis=1))])

    def _point(self, values: Mapping[str, Any]) -> NDArray[np.float64]:
        """A number for each dimension: the place of a name among the choices, a number scaled to 0 to 1, or -1."""
        dimensions = self.space.dimensions.items()
        return np.array(
            [_place(distribution, values[key]) if key in values else -1.0 for key, distribution in dimensions]
        )


def _is_of_names(distribution: BaseDistribution) -> bool:
    if not isinstance(distribution, CategoricalDistribution):
        return False
    return any(isinstance(choice, bool | str) for choice in distribution.choices)


def _place(distribution: BaseDistribution, value: Any) -> float:
    match distribution:
        case CategoricalDistribution(choices=choices) if _is_of_names(distribution):
            return choices.index(value)
        case CategoricalDistribution(choices=choices):
            numbers: list[Any] = list(choices)
            return sorted(numbers).index(value) / max(1, len(numbers) - 1)
        case IntDistribution(low=low, high=high, log=log) | FloatDistribution(low=low, high=high, log=log):
            scale = np.log if log else float
            return float((scale(value) - scale(low)) / (scale(high) - scale(low))) if high > low else 0.0
    raise TypeError(f"no place for a value of {distribution}")


def _read(dimensions: Mapping[str, BaseDistribution], overrides: Sequence[str]) -> Values:
    """Read overrides back as the values that they were written from."""
    values: Values = {}
    for override in overrides:
        key, _, text = override.partition("=")
        values[key] = _value(key, dimensions[key], text)
    return values


def _value(key: str, distribution: BaseDistribution, text: str) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        spelled = {to_overrides({key: choice})[0]: choice for choice in distribution.choices}
        return spelled[f"{key}={text}"]
    return int(text) if isinstance(distribution, IntDistribution) else float(text)
