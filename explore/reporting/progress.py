"""The anytime curve of a study: what its front was worth after all that had been spent on it so far."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explore.evaluation import COMPLETE
from explore.search.front import GrowingFront, Losses, hypervolume
from explore.search.trial import Trial, finished, objectives


def front_hypervolume(trials: Sequence[Trial]) -> float:
    """Return the hypervolume of the front.

    The reference point has an error rate of 1 and the lowest throughput among the complete trials given, so that one
    unit is full accuracy over a factor e of speed. A single complete trial has no hypervolume yet.
    """
    points = objectives([trial for trial in trials if trial.status == COMPLETE])
    return hypervolume(points, _reference(points))


def progress(trials: Sequence[Trial], stretches: Sequence[Trial]) -> pd.DataFrame:
    """Return a row per finished trial, in the order in which they ended: what the front was worth then, at what price.

    `stretches` are those of `Study.stretches`. The columns: `trial`, its number; `epochs` that had been trained by all
    workers and `seconds` of their work, both added up and with those of trials that went on, were stopped or failed;
    `hypervolume` as in `front_hypervolume`, of the complete ones. An epoch counts when it was trained, on the clock of
    its worker; one that was trained again, because its worker died, counts once.
    """
    ended = sorted(finished(trials), key=lambda trial: (_end(trial), trial.number))
    times, epochs, seconds = _spending(stretches)
    until = np.searchsorted(times, [_end(trial) for trial in ended], side="right")
    return pd.DataFrame(
        {
            "trial": [trial.number for trial in ended],
            "epochs": np.append(0, np.cumsum(epochs))[until],
            "seconds": np.append(0.0, np.cumsum(seconds))[until],
            "hypervolume": _hypervolumes(ended),
        }
    )


def _hypervolumes(ended: Sequence[Trial]) -> list[float]:
    points = objectives([trial for trial in ended if trial.status == COMPLETE])
    growing, following = GrowingFront(_reference(points)), iter(points.tolist())
    volumes = []
    for trial in ended:
        if trial.status == COMPLETE:
            growing.add(*next(following))
        volumes.append(growing.hypervolume)
    return volumes


def _spending(stretches: Sequence[Trial]) -> tuple[NDArray[np.float64], NDArray[np.int_], NDArray[np.float64]]:
    """When something had been done, in order: the time, the epochs (one or none) and the seconds that it took.

    An epoch ends as long before its stretch as the epochs behind it took. What was done besides comes before them all.
    """
    done: list[tuple[float, int, float]] = []
    trained: dict[int, int] = {}
    taken: dict[int | None, float] = {}
    for stretch in sorted(stretches, key=lambda one: one.row):
        begin = stretch.started.timestamp() if stretch.started else -np.inf
        already = trained.get(stretch.number, 0)
        # What goes on has the whole curve of what it continues, and its seconds.
        new = [epoch.seconds for epoch in stretch.evaluation.curve if epoch.epoch > already]
        trained[stretch.number] = max(already, stretch.evaluation.epochs)
        taken[stretch.row] = sum(stretch.evaluation.seconds.values())
        besides = max(0.0, taken[stretch.row] - taken.get(stretch.continues, 0.0) - sum(new))
        ahead = _end(stretch)
        for own in reversed(new):
            done.append((max(begin, ahead), 1, own))
            ahead -= own
        done.append((max(begin, ahead), 0, besides))
    times, epochs, seconds = np.array(sorted(done), float).reshape(-1, 3).T
    return times, epochs.astype(int), seconds


def _end(trial: Trial) -> float:
    return trial.ended.timestamp() if trial.ended else np.inf


def _reference(points: Losses) -> tuple[float, float]:
    return 1.0, float(points[:, 1].max()) if len(points) else 0.0
