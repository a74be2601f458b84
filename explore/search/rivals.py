"""Trials that compete for a place on the front, and what came of comparing their speeds side by side.

Every trial was measured at its own time. Before a result is shown, the members of the front and those that a small
error may have kept from it are measured again together, so that the final order is that of a comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from explore.evaluation import COMPLETE
from explore.search.front import losses
from explore.search.study import Trial, front

# By how much figures of the same network may differ between two measurements: see benchmarks/throughput_noise.py.
_ERROR = 1.10


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The speed of a trial in a comparison, in images/s with its 95 % interval; `alike` are trials of the same speed.

    The same speed means that the comparison cannot tell them apart.
    """

    images_per_second: float
    low: float
    high: float
    settled: bool
    alike: tuple[int, ...]

    @classmethod
    def read(cls, note: Mapping[str, Any]) -> Self:
        """From JSON types."""
        return cls(**{**note, "alike": tuple(note["alike"])})


def rivals(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials that no other beats by more than the error of measuring speed; members of the front first."""
    every, members = [one for one in trials if one.status == COMPLETE], front(trials)
    if not members:
        return []
    best = losses([one.accuracy or 0.0 for one in members], [one.throughput or 0.0 for one in members])
    points = losses([one.accuracy or 0.0 for one in every], [_ERROR * (one.throughput or 0.0) for one in every])
    beaten = np.zeros(len(every), dtype=bool)
    for point in best:
        beaten |= (point <= points).all(axis=1) & (point < points).any(axis=1)
    numbers = {one.number for one in members}
    near = [one for one, out in zip(every, beaten, strict=True) if not out and one.number not in numbers]
    return [*members, *near]


def with_speeds(trials: Sequence[Trial], speeds: Mapping[int, Compared]) -> list[Trial]:
    """The trials, those that were compared with their speed of the comparison."""
    return [_with_speed(trial, speeds[trial.number]) if trial.number in speeds else trial for trial in trials]


def _with_speed(trial: Trial, speed: Compared) -> Trial:
    cost = trial.evaluation.cost
    assert cost
    assert cost.throughput
    throughput = replace(
        cost.throughput,
        images_per_second=speed.images_per_second,
        low=speed.low,
        high=speed.high,
        settled=speed.settled,
    )
    evaluation = replace(trial.evaluation, cost=replace(cost, throughput=throughput))
    return replace(trial, evaluation=evaluation, alike=speed.alike)
