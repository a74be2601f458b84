"""What a mixing is worth along the whole front: how much hypervolume a space without it would have lost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explore.evaluation import COMPLETE
from explore.reporting import style
from explore.reporting.sections import Column, Section, Table
from explore.search.trial import Trial, front

FACTORS = ("token_mixing", "channel_mixing")
LEAST_TRIALS = 20
_RESAMPLES, _FEWEST = 1000, 200
_NUMBERS = 4_000_000  # in memory at once
_LEVEL = 0.05
_TITLE = "What each mixing is worth along the front"


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """A level of a factor, such as `token_mixing=s2`.

    Args:
        factor: the config key.
        level: its value.
        trials: complete trials that have it.
        lost: part of the front's hypervolume that is lost without them, as a fraction.
        low: lower end of its 95 % interval.
        high: upper end.
        slowest: throughput of the slowest member of the front that has it, in images/s; None where no member has.
        fastest: of the fastest.
    """

    factor: str
    level: Any
    trials: int
    lost: float
    low: float
    high: float
    slowest: float | None
    fastest: float | None


def contributions(trials: Sequence[Trial]) -> list[Contribution]:
    """What each token mixing and each channel mixing of a search is worth; empty below `LEAST_TRIALS` complete trials.

    The interval is that of the percentiles of the loss over resampled trials (Efron, 1979): it says how much another
    search of the same length might have found otherwise, as far as its trials can tell, not how accuracies scatter over
    seeds. A factor with one level only is left out.
    """
    complete = [trial for trial in trials if trial.status == COMPLETE]
    if len(complete) < LEAST_TRIALS:
        return []
    return [one for factor in FACTORS for one in _of_factor(factor, complete)]


def contributions_section(trials: Sequence[Trial]) -> Section | None:
    """What `contributions` found, as a part of a page; why that is nothing; None where no mixing was searched."""
    if not (found := contributions(trials)):
        if not any(len({trial.proposal.values.get(factor) for trial in trials}) > 1 for factor in FACTORS):
            return None
        complete = sum(trial.status == COMPLETE for trial in trials)
        there = f"there {'are' if complete != 1 else 'is'} {complete}"
        words = f"That needs {LEAST_TRIALS} complete trials with different mixings; {there}."
        return Section(key="mixings", title=_TITLE, words=words)
    columns = [
        Column.of("mixing", [f"{one.factor.replace('_', ' ')} {one.level}" for one in found]),
        Column.of("trials", [one.trials for one in found]),
        Column.of("lost without it", [one.lost for one in found], style.percent),
        Column.of("95 % interval, from", [one.low for one in found], style.percent),
        Column.of("to", [one.high for one in found], style.percent),
        Column.of("on the front from, images/s", [one.slowest for one in found], style.speed),
        Column.of("to", [one.fastest for one in found], style.speed),
    ]
    return Section(
        key="mixings",
        title=_TITLE,
        words="The part of the hypervolume that would be lost without its trials. The interval is of resampled trials: "
        "it says what another search of this length might have found otherwise. A search spends its trials where it "
        "expects most; whether one mixing is better than another at equal cost is asked by an ablation.",
        table=Table(columns=columns),
    )


def _of_factor(factor: str, complete: Sequence[Trial]) -> Iterator[Contribution]:
    ordered = sorted(complete, key=lambda trial: -(trial.throughput or 0.0))
    levels = [trial.proposal.values.get(factor) for trial in ordered]
    if len(set(levels)) < 2:
        return
    accuracy = np.array([trial.accuracy or 0.0 for trial in ordered])
    speed = np.log([trial.throughput or 1.0 for trial in ordered])
    present = _resampled(len(ordered))
    whole = volumes(accuracy, speed, present)
    members = front(complete)
    for level in sorted(set(levels), key=str):
        others = np.array([one != level for one in levels])
        lost = 1 - volumes(accuracy, speed, present & others) / np.maximum(whole, 1e-12)
        low, high = np.quantile(lost[1:], [_LEVEL / 2, 1 - _LEVEL / 2])
        speeds = [one.throughput or 0.0 for one in members if one.proposal.values.get(factor) == level]
        yield Contribution(
            factor=factor,
            level=level,
            trials=int((~others).sum()),
            lost=float(lost[0]),
            low=float(low),
            high=float(high),
            slowest=min(speeds, default=None),
            fastest=max(speeds, default=None),
        )


def volumes(
    accuracy: NDArray[np.float64], speed: NDArray[np.float64], present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The hypervolume of each set of trials, as `front_hypervolume` of all of them has it, with the same reference.

    `accuracy` and `speed`, a logarithm, are those of all trials, the fastest first; `present` is sets × trials.
    """
    best = np.maximum.accumulate(np.where(present, accuracy, 0.0), axis=1)
    return best[:, :-1] @ -np.diff(speed)


def _resampled(count: int) -> NDArray[np.bool_]:
    """All trials, and then which of them are among as many that are drawn with replacement, again and again."""
    resamples = min(_RESAMPLES, max(_FEWEST, _NUMBERS // count))
    drawn = np.random.default_rng(0).integers(count, size=(resamples, count))
    present = np.ones((resamples + 1, count), dtype=bool)
    present[1:] = False
    np.put_along_axis(present[1:], drawn, True, axis=1)
    return present
