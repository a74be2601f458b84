"""What trainings with other seeds say of the members of a front: how sure accuracies are, and who cannot be told apart.

The training of the search is not among those that count here: it was picked because it went well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from explore.evaluation import Retraining
from explore.search.student import half_width
from explore.search.study import Study
from explore.search.trial import Trial

_LEVEL = 0.05
NOTE = "retrained"  # of a study: trial numbers → retrainings


@dataclass(frozen=True)
class Estimate:
    """A mean, and the half-width of its 95 % interval by Student's t."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Of two values or more."""
        return cls(fmean(values), float(half_width(stdev(values), len(values), _LEVEL)))


def over_seeds(trial: Trial) -> Estimate | None:
    """Validation accuracy over seeds; None for a trial without two further trainings."""
    return _estimate([one.accuracy for one in trial.retrained])


def over_seeds_in_test(trial: Trial) -> Estimate | None:
    """Test accuracy over seeds; None for a trial without two further trainings that were tested."""
    return _estimate([one.test_accuracy for one in trial.retrained if one.test_accuracy is not None])


def _estimate(values: Sequence[float]) -> Estimate | None:
    return Estimate.of(values) if len(values) > 1 else None


def alike(first: Trial, second: Trial) -> bool:
    """Whether two that were trained again cannot be told apart by validation accuracy.

    That is so when the 95 % interval of the mean difference between trainings with equal seeds has 0 in it, and where
    fewer than two seeds are the same. Seeds are paired because both then saw the same batches in the same order; what
    other validation images would say is not in it.
    """
    theirs = {one.seed: one.accuracy for one in second.retrained}
    differences = [one.accuracy - theirs[one.seed] for one in first.retrained if one.seed in theirs]
    if len(differences) < 2:
        return True
    gap = Estimate.of(differences)
    return abs(gap.mean) <= gap.half


def as_accurate_as(trials: Sequence[Trial]) -> dict[int, tuple[int, ...]]:
    """The numbers of those that each trial that was trained again cannot be told apart from."""
    again = [trial for trial in trials if trial.retrained]
    return {
        one.number: tuple(other.number for other in again if other is not one and alike(one, other)) for one in again
    }


def retrainings(study: Study) -> dict[int, tuple[Retraining, ...]]:
    """What is known of the members that were trained again, by their numbers, in the order of the seeds."""
    found: Mapping[str, Sequence[Mapping[str, Any]]] = study.notes.get(NOTE, {})
    return {int(number): tuple(Retraining(**one) for one in each) for number, each in found.items()}
