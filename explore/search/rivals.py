"""Trials that compete for a place on the front, and what came of comparing their speeds side by side.

Every trial was measured at its own time. Before a result is shown, the members of the front and those that a small
error may have kept from it are measured again together, so that the final order is that of a comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from explore.cost.speed import Speed, alike
from explore.evaluation import COMPLETE
from explore.search.seeds import retrainings
from explore.search.study import Study
from explore.search.trial import Trial, front, objectives, timed_as

# By how much figures of the same network may differ between two measurements: see benchmarks/throughput_noise.py.
_ERROR = 1.10


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The speed of a trial in a comparison, and the trials that it could not be told apart from there."""

    speed: Speed
    alike: tuple[int, ...]

    @classmethod
    def read(cls, note: Mapping[str, Any]) -> Self:
        """From JSON types."""
        return cls(speed=Speed(**note["speed"]), alike=tuple(note["alike"]))


def rivals(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials that no other beats by more than the error of measuring speed; members of the front first."""
    every, members = [one for one in trials if one.status == COMPLETE], front(trials)
    if not members:
        return []
    best, points = objectives(members), objectives(every, speedup=_ERROR)
    beaten = np.zeros(len(every), dtype=bool)
    for point in best:
        beaten |= (point <= points).all(axis=1) & (point < points).any(axis=1)
    numbers = {one.number for one in members}
    near = [one for one, out in zip(every, beaten, strict=True) if not out and one.number not in numbers]
    return [*members, *near]


def batch_size(trial: Trial) -> int:
    """Images in a pass when the speed of a complete trial was measured."""
    cost = trial.evaluation.cost
    assert cost
    assert cost.throughput
    return cost.throughput.batch_size


def measured_on(trial: Trial) -> tuple[str, str | None, str]:
    """What the speed of a complete trial was measured on: device, version of its driver, version of torch."""
    cost = trial.evaluation.cost
    assert cost
    assert cost.throughput
    return cost.throughput.device, cost.throughput.driver, cost.throughput.torch_version


def decided(
    seconds: Mapping[int, Sequence[float]], batch_sizes: Mapping[int, int], interval: float
) -> dict[int, Compared]:
    """What a comparison says of each trial, from the seconds of a pass in each turn, by number."""
    # Of trials with different batch sizes the seconds of an image are compared.
    per_image = {number: [one / batch_sizes[number] for one in each] for number, each in seconds.items()}
    return {
        number: Compared(
            speed=Speed.of(own, 1, interval),
            alike=tuple(other for other, theirs in per_image.items() if other != number and alike(own, theirs)),
        )
        for number, own in per_image.items()
    }


def results(study: Study) -> list[Trial]:
    """The trials of a study as they are shown: with the speeds of the comparison, and trainings with other seeds."""
    again = retrainings(study)
    trials = with_speeds(study.trials(), compared(study))
    return [replace(one, retrained=again[one.number]) if one.number in again else one for one in trials]


def tested(study: Study) -> dict[int, float]:
    """Test accuracy, as a fraction, of the trials for which it was measured, by their numbers."""
    return {int(number): float(value) for number, value in study.notes.get("test_accuracy", {}).items()}


def compared(study: Study) -> dict[int, Compared]:
    """What came of the last comparison, by the numbers of the trials; nothing before the first."""
    return {int(number): Compared.read(note) for number, note in study.notes.get("speeds", {}).items()}


def with_speeds(trials: Sequence[Trial], speeds: Mapping[int, Compared]) -> list[Trial]:
    """The trials, those that were compared with their speed of the comparison."""
    return [_with_speed(trial, speeds[trial.number]) if trial.number in speeds else trial for trial in trials]


def _with_speed(trial: Trial, compared: Compared) -> Trial:
    cost, speed = trial.evaluation.cost, compared.speed
    assert cost
    assert cost.throughput
    throughput = replace(
        cost.throughput,
        images_per_second=speed.images_per_second,
        low=speed.low,
        high=speed.high,
        settled=speed.settled,
    )
    return replace(timed_as(trial, throughput), alike=compared.alike)
