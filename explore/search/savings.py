"""What early stopping saved, and how well the end of a training was foreseen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from explore.counted import counted
from explore.evaluation import COMPLETE, STOPPED
from explore.search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Savings:
    """What a search with rungs spent, and what the same candidates would have cost trained to the end.

    Args:
        epochs: trained.
        epochs_saved: those not trained, of candidates that were stopped in their training; None while nobody is
            complete, who tells how many those are.
        seconds_saved: the same in seconds, each candidate at its own seconds an epoch.
        stopped: how many candidates wait after each number of epochs; 0 were measured only.
        given_up: how many of them cannot go on, because their checkpoints were removed for `stopping.disk`.
        foreseen: median distance between the accuracy that was expected when a candidate went on to its end and the one
            it had there, as a fraction; None without such a prediction.
        predictions: how many there were.
    """

    epochs: int
    epochs_saved: int | None
    seconds_saved: float | None
    stopped: Mapping[int, int]
    given_up: int
    foreseen: float | None
    predictions: int


def savings(trials: Sequence[Trial]) -> Savings | None:
    """What was saved in a study; None where nobody was stopped."""
    stopped = [trial for trial in trials if trial.status == STOPPED]
    if not stopped:
        return None
    whole = max((trial.evaluation.epochs for trial in trials if trial.status == COMPLETE), default=None)
    # Who was only measured has saved nothing.
    left = [(trial, whole - trial.evaluation.epochs) for trial in stopped if whole and trial.evaluation.epochs]
    off = [
        abs(trial.expected - trial.accuracy)
        for trial in trials
        if trial.status == COMPLETE and trial.expected is not None and trial.accuracy is not None
    ]
    return Savings(
        epochs=sum(trial.evaluation.epochs for trial in trials),
        epochs_saved=sum(epochs for _, epochs in left) if whole else None,
        seconds_saved=sum(epochs * _seconds_an_epoch(trial) for trial, epochs in left) if whole else None,
        stopped=dict(sorted(Counter(trial.evaluation.epochs for trial in stopped).items())),
        given_up=sum(trial.given_up for trial in stopped),
        foreseen=float(np.median(off)) if off else None,
        predictions=len(off),
    )


def in_words(saved: Savings) -> str:
    """One sentence or two for people."""
    where = ", ".join(
        f"{count} after {counted(epochs, 'epoch')}" if epochs else f"{count} before training"
        for epochs, count in saved.stopped.items()
    )
    words = f"{saved.epochs:,} epoch{'s were' if saved.epochs != 1 else ' was'} trained"
    if saved.epochs_saved is not None and saved.seconds_saved is not None:
        total = saved.epochs + saved.epochs_saved
        words = f"{saved.epochs:,} of {total:,} epochs were trained, {saved.epochs_saved / total:.0%} saved"
        words += f" (about {duration(saved.seconds_saved)})"
    words += f"; stopped: {where}."
    if saved.given_up:
        whose = "their checkpoints" if saved.given_up > 1 else "its checkpoint"
        words += f" {saved.given_up} of them gave up {whose} for stopping.disk and cannot go on."
    if saved.foreseen is not None:
        many = f" at the median of {saved.predictions} candidates when their last stretch began."
        words += f" The final accuracy was foreseen within {100 * saved.foreseen:.1f} points"
        words += many if saved.predictions > 1 else ", for one candidate when its last stretch began."
    return words


def duration(seconds: float) -> str:
    """Write seconds in the unit that people would use: `40 s`, `12 min`, `3.2 h`."""
    unit, factor = time_unit(seconds)
    return f"{seconds / factor:.{1 if unit == 'h' else 0}f} {unit}"


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit that people would use for so many seconds, and how many of them it has."""
    return ("s", 1.0) if seconds < 90 else ("min", 60.0) if seconds < 5400 else ("h", 3600.0)


def _seconds_an_epoch(trial: Trial) -> float:
    return float(np.median([epoch.seconds for epoch in trial.evaluation.curve]))
