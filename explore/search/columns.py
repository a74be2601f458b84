"""The trials of a study as columns of numbers, brought up to date instead of read anew for every proposal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explore.evaluation import COMPLETE, DIVERGED, MEMORY, RUNNING, STOPPED
from explore.search.front import Losses
from explore.search.trial import Trial

# A row for each trial: the logarithm of its images/s, not a number where it was not measured; its accuracy so far, 0
# before the first epoch; the epochs it was trained; its row in the storage; whether it waits, is being trained, was
# trained to the end; and whether it teaches something.
_FIELDS = np.dtype(
    [
        ("speed", float),
        ("accuracy", float),
        ("epochs", int),
        ("row", int),
        ("waits", bool),
        ("running", bool),
        ("complete", bool),
        ("teaches", bool),
    ]
)
Columns = NDArray[np.void]


class Known:
    """Columns of the trials that were seen last; those that are the same objects are not looked at again."""

    def __init__(self) -> None:
        self._trials: list[Trial] = []
        self._columns = columns_of([])
        self.keys: list[str] = []  # of their configurations

    def columns(self, trials: Sequence[Trial]) -> Columns:
        """The columns of `trials`, which are those of before, some of them changed, and others behind them."""
        pairs = enumerate(zip(self._trials, trials, strict=False))
        changed = [place for place, (before, now) in pairs if before is not now]
        changed += range(len(self._trials), len(trials))
        self._columns = np.resize(self._columns, len(trials)) if len(trials) else columns_of([])
        del self.keys[len(trials) :]
        if changed:
            self._columns[changed] = columns_of([trials[place] for place in changed])
            self.keys[changed[0] :] = [trial.proposal.key for trial in trials[changed[0] :]]
        self._trials = list(trials)
        return self._columns


def columns_of(trials: Sequence[Trial]) -> Columns:
    """The columns of trials, in their order."""
    return np.array([_row(trial) for trial in trials], _FIELDS)


def _row(trial: Trial) -> tuple[float | bool, ...]:
    measured = trial.throughput is not None
    return (
        np.log(trial.throughput) if trial.throughput else np.nan,
        trial.accuracy or 0.0,
        trial.epochs,
        trial.row,
        trial.status == STOPPED and not trial.given_up,
        trial.status == RUNNING,
        trial.status == COMPLETE,
        measured and (bool(trial.epochs) or ended_badly(trial)),
    )


def ended_badly(trial: Trial) -> bool:
    """Whether no training would give it an accuracy."""
    return trial.status == DIVERGED or MEMORY in trial.evaluation.constraints


def losses_of(columns: Columns) -> Losses:
    """Accuracy so far and speed, as what is to be lower: rows × 2."""
    return -np.column_stack([columns["accuracy"], columns["speed"]])
