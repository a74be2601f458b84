"""Fronts of several studies side by side: whether they can be compared, and by how much one is better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from explore.ablation.design import design_of
from explore.evaluation import COMPLETE
from explore.reporting.progress import progress
from explore.reporting.tables import front_rows
from explore.search.front import Losses, hypervolume
from explore.search.rivals import results, tested
from explore.search.study import Study
from explore.search.trial import Trial, finished, front, objectives, times_as_fast

_WORTH_SAYING = 1.005  # a factor of speeds, below which nobody would see it in a figure
_RESAMPLES, _SEED = 1000, 0
FEWEST = 8  # complete trials of a study before their halves say anything
# Of the protocol, without which figures of speed mean different things; the version of torch is said, but not refused.
_PROTOCOL = ("device", "driver", "precision", "dispatch", "threads")


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A study as it is compared: its trials as they are shown, and what was spent on them by all workers.

    `tests` maps trial numbers to test accuracy; `epochs` and `seconds` count those that were stopped or failed as well.
    """

    name: str
    trials: Sequence[Trial]
    tests: Mapping[int, float]
    definition: Mapping[str, Any]
    epochs: int
    seconds: float

    @property
    def complete(self) -> list[Trial]:
        """Those that were trained to the end."""
        return [trial for trial in self.trials if trial.status == COMPLETE]


@dataclass(frozen=True, kw_only=True)
class Worth:
    """The hypervolume of a front, and how much larger it is than that of the first study, within a 95 % interval.

    The interval is None for the first study itself, and where too few trials are complete.
    """

    study: str
    hypervolume: float
    difference: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A member of one of the fronts, and the best validation accuracy of each study at its speed or a higher one."""

    study: str
    trial: Trial
    reached: Mapping[str, float | None]


def searched(study: Study) -> Searched:
    """Read a study; raises ValueError for an ablation, whose trials are seeds of arms and no search of a front."""
    if design_of(study):
        raise ValueError(
            f"studies to compare must be searches, got {study.name}, which is an ablation; "
            "its own report compares its arms"
        )
    trials = results(study)
    spent = progress(trials, study.stretches())
    return Searched(
        name=study.name,
        trials=trials,
        tests=tested(study),
        definition=study.definition,
        epochs=int(spent["epochs"].max()) if len(spent) else 0,
        seconds=float(spent["seconds"].max()) if len(spent) else 0.0,
    )


def refuse_incomparable(studies: Sequence[Searched]) -> None:
    """Raise ValueError for studies whose accuracies or speeds mean different things, and say which and why."""
    first = studies[0]
    for study in studies:
        if not study.complete:
            raise ValueError(f"study {study.name} must have a complete trial, got none yet; go on with the search")
    for study in studies[1:]:
        if (theirs := study.definition.get("images")) != (ours := first.definition.get("images")):
            raise ValueError(
                f"accuracy cannot be compared between studies of different images, got {_images(first)} ({ours}) for "
                f"{first.name} and {_images(study)} ({theirs}) for {study.name}; compare those of the same images"
            )
        if (measured := _measured(study)) != (before := _measured(first)):
            raise ValueError(
                f"throughput cannot be compared between studies that were measured in different ways, got "
                f"{_written(before)} for {first.name} and {_written(measured)} for {study.name}; search again on the "
                "same device with the same cost. options"
            )


def on_one_scale(studies: Sequence[Searched]) -> tuple[list[Searched], list[str]]:
    """The studies with all speeds as if the reference network had been calibrated once, and what that changes.

    Each figure is a ratio to this network times its speed, which a later study may know better: the fastest counts.
    Another version of torch runs it at another speed indeed, and then nothing is changed.
    """
    found = {study.name: _reference_ms(study) for study in studies}
    if None in found.values() or len(set(found.values())) == 1 or len(versions(studies)) > 1:
        return list(studies), []
    least = min(one for one in found.values() if one)
    factors = {name: (one or least) / least for name, one in found.items()}
    words = [f"{name} by {factor:.3g}" for name, factor in factors.items() if factor >= _WORTH_SAYING]
    scaled = [replace(one, trials=[times_as_fast(trial, factors[one.name]) for trial in one.trials]) for one in studies]
    return scaled, words


def _reference_ms(study: Searched) -> float | None:
    """Milliseconds that a pass of the reference network took for all its figures; None where they differ."""
    found = {_timed(trial).reference_ms for trial in study.complete}
    return found.pop() if len(found) == 1 else None


def versions(studies: Sequence[Searched]) -> list[str]:
    """The versions of torch that measured speed; with more than one a part of a difference may be theirs."""
    return sorted({timed.torch_version for study in studies for timed in map(_timed, study.complete)})


def reference(studies: Sequence[Searched]) -> tuple[float, float]:
    """The corner up to which all hypervolumes count: an error rate of 1, and the lowest speed of a complete trial."""
    return 1.0, max(float(objectives(study.complete)[:, 1].max()) for study in studies)


def worth(studies: Sequence[Searched]) -> list[Worth]:
    """The hypervolume of each front with one reference point, and its difference from that of the first study."""
    corner = reference(studies)
    points = [objectives(study.complete) for study in studies]
    volumes = [hypervolume(each, corner) for each in points]
    found = []
    for study, own, volume in zip(studies, points, volumes, strict=True):
        known = study is not studies[0] and min(len(own), len(points[0])) >= FEWEST
        found.append(
            Worth(
                study=study.name,
                hypervolume=volume,
                difference=volume - volumes[0],
                interval=difference_interval(own, points[0], lambda some: hypervolume(some, corner)) if known else None,
            )
        )
    return found


def difference_interval(one: Losses, other: Losses, value: Callable[[Losses], float]) -> tuple[float, float]:
    """The 95 % interval of `value(one) - value(other)` for other searches like these; both are `points × 2`.

    Many times half of the points of each are drawn without replacement; how the difference of the halves varies about
    its mean is how that of the whole varies (Politis & Romano, 1994, "Large sample confidence regions based on
    subsamples under minimal assumptions"; half the points make the variances equal). A front is made of the best
    points alone, of which the usual bootstrap says too little: docs/log.md has how often each is right.
    """
    generator = np.random.default_rng(_SEED)

    def half(points: Losses) -> float:
        return value(points[generator.permutation(len(points))[: len(points) // 2]])

    differences = np.array([half(one) - half(other) for _ in range(_RESAMPLES)])
    low, high = value(one) - value(other) + np.quantile(differences - differences.mean(), (0.025, 0.975))
    return float(low), float(high)


def steps(studies: Sequence[Searched]) -> list[Step]:
    """The members of all fronts, fastest first, each beside what the studies reach at its speed."""
    members = [(study.name, trial) for study in studies for trial in front(study.trials)]
    members.sort(key=lambda member: -(member[1].throughput or 0.0))
    return [
        Step(
            study=name,
            trial=trial,
            reached={study.name: _reached(study.complete, trial.throughput or 0.0) for study in studies},
        )
        for name, trial in members
    ]


def write_tables(studies: Sequence[Searched], values: Sequence[Worth], folder: Path) -> None:
    """Write `fronts.csv`, the members of all fronts, and `hypervolumes.csv` into an existing folder."""
    parts = [front_rows(study.trials, study.tests).assign(study=study.name) for study in studies]
    rows = pd.concat(parts, ignore_index=True)
    rows[["study", *(name for name in rows.columns if name != "study")]].to_csv(folder / "fronts.csv", index=False)
    pd.DataFrame(summary(studies, values)).to_csv(folder / "hypervolumes.csv", index=False)


def summary(studies: Sequence[Searched], values: Sequence[Worth]) -> list[dict[str, Any]]:
    """A record for each study: what was spent on it, its hypervolume, and the difference from the first."""
    return [
        {
            "study": study.name,
            "finished": len(finished(study.trials)),
            "complete": len(study.complete),
            "epochs": study.epochs,
            "seconds": study.seconds,
            "front": len(front(study.trials)),
            "hypervolume": value.hypervolume,
            "difference": value.difference,
            "low": value.interval[0] if value.interval else None,
            "high": value.interval[1] if value.interval else None,
        }
        for study, value in zip(studies, values, strict=True)
    ]


def _reached(complete: Sequence[Trial], speed: float) -> float | None:
    return max((one.accuracy or 0.0 for one in complete if (one.throughput or 0.0) >= speed), default=None)


def _timed(trial: Trial) -> Any:
    assert trial.evaluation.cost
    return trial.evaluation.cost.throughput


def _measured(study: Searched) -> dict[str, list[Any]]:
    """How speed was measured; of an automatic batch size each trial has its own, and that is one way."""
    ways = {key: {getattr(_timed(trial), key) for trial in study.complete} for key in _PROTOCOL}
    asked = study.definition.get("cost", {}).get("batch_size")
    ways["batch size"] = {asked} if asked == "auto" else {_timed(trial).batch_size for trial in study.complete}
    return {key: sorted(values, key=str) for key, values in ways.items()}


def _written(measured: Mapping[str, Sequence[Any]]) -> str:
    known = {key: [value for value in values if value is not None] for key, values in measured.items()}
    return ", ".join(f"{key} {' and '.join(map(str, values))}" for key, values in known.items() if values)


def _images(study: Searched) -> str:
    data = study.definition.get("data", {})
    return str(data.get("path") or data.get("name") or data.get("source") or "images")
