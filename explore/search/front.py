"""Pareto fronts of two objectives: pure functions of arrays, lower is better.

Accuracy and throughput are turned into losses once, in `losses`; nothing else in the project knows the direction.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Losses = NDArray[np.float64]


def losses(accuracy: Sequence[float], throughput: Sequence[float]) -> Losses:
    """Turn both objectives into losses: `points × 2`, the error rate and minus the logarithm of images/s.

    Throughput counts on a log scale, because people think of speed in factors.
    """
    values = np.column_stack([1 - np.asarray(accuracy, float), -np.log(np.asarray(throughput, float))])
    return values.reshape(-1, 2)


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Mark the points of the front: those that no other point beats in one loss without losing in the other.

    `points` is `points × 2`, lower is better. Equal points are all on the front or all off it.
    """
    values = _as_points(points)
    order = _in_order(values)
    mask = np.zeros(len(values), dtype=bool)
    mask[order] = _first_layer(values[order])
    return mask


def best_layers(points: ArrayLike, most: int) -> list[int]:
    """The places of at most so many points: those of the front, of the front without it, and so on."""
    values = _as_points(points)
    left = _in_order(values)
    found: list[int] = []
    while len(left) and len(found) < most:
        on_front = _first_layer(values[left])
        found += left[on_front].tolist()
        left = left[~on_front]
    return found[:most]


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the area that the front dominates, up to `reference` (two losses that are worse than those of interest).

    Points that do not beat the reference in both losses count nothing. Zitzler & Thiele (1999),
    "Multiobjective evolutionary algorithms: a comparative case study and the strength Pareto approach".
    """
    values, corner = _as_points(points), np.asarray(reference, float)
    values = values[(values < corner).all(axis=1)]
    front = np.unique(values[non_dominated(values)], axis=0)
    widths = corner[0] - front[:, 0]
    heights = np.append(corner[1], front[:-1, 1])[: len(front)] - front[:, 1]
    return float(np.sum(widths * heights))


class GrowingFront:
    """A front that takes its points one by one, and the area that it dominates up to `reference`.

    A point costs the logarithm of the number of members, and what it displaces. Points that do not beat the reference
    in both losses count nothing.
    """

    def __init__(self, reference: tuple[float, float]) -> None:
        self.reference = reference
        self.hypervolume = 0.0
        # The members: the first loss grows, the second falls.
        self._first: list[float] = []
        self._second: list[float] = []

    def add(self, first: float, second: float) -> None:
        """Take a point into account."""
        right, top = self.reference
        start = bisect_left(self._first, first)
        if start:
            top = min(top, self._second[start - 1])
        same = start < len(self._first) and self._first[start] == first
        if first >= right or second >= top or (same and self._second[start] <= second):
            return
        stop = start
        while stop < len(self._first) and self._second[stop] >= second:
            stop += 1
        edges = [first, *self._first[start:stop], self._first[stop] if stop < len(self._first) else right]
        heights = [top, *self._second[start:stop]]
        self.hypervolume += sum(
            (b - a) * (height - second) for (a, b), height in zip(pairwise(edges), heights, strict=True)
        )
        self._first[start:stop] = [first]
        self._second[start:stop] = [second]


def _in_order(values: Losses) -> NDArray[np.intp]:
    return np.lexsort((values[:, 1], values[:, 0]))


def _first_layer(ordered: Losses) -> NDArray[np.bool_]:
    """Mark the front of points in order."""
    first, second = ordered[:, 0], ordered[:, 1]
    # Each run of equal first losses begins with its lowest second one.
    begins = np.append(True, first[1:] != first[:-1])[: len(first)]
    lowest = second[begins][np.cumsum(begins) - 1]
    best_before = np.append(np.inf, np.minimum.accumulate(second)[:-1])[: len(second)]
    best_before_run = best_before[begins][np.cumsum(begins) - 1]
    mask: NDArray[np.bool_] = (second == lowest) & (lowest < best_before_run)
    return mask


def _as_points(points: ArrayLike) -> Losses:
    values = np.asarray(points, float)
    return values.reshape(0, 2) if values.size == 0 else values
