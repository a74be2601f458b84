"""What is predicted of candidates from those that were measured and trained: speed, and accuracy at the end.

Both are Gaussian processes, see `surrogate`. However long a search is, each is shown a few hundred observations.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from explore.search.columns import Columns, columns_of, ended_badly, losses_of
from explore.search.encoding import Encoding
from explore.search.front import best_layers
from explore.search.space import Values
from explore.search.surrogate import STEPS, Surrogate, clipped_logit
from explore.search.trial import Trial, as_fast_as

Array = NDArray[np.float64]
Trend = Callable[[Sequence[Values], Array], Array]
MOST_OBSERVATIONS = 240
_EPOCHS_SEEN = 2.0  # epochs of a curve that are shown to the model are so many times apart
_MORE_STEPS = 4  # of the optimizer of hyperparameters, from an earlier fit
_GROWTH = 1.02  # so much more has to be known for hyperparameters to be looked for again: they hardly move in between


class Fits:
    """Makes models, and keeps their hyperparameters for those that follow."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Array, int]] = {}

    def model(self, name: str, known: int, features: Array, times: Array, targets: Array, trend: Array) -> Surrogate:
        """The next model called `name`; `known` says how much is known by now. The rest is as for `Surrogate`."""
        logs, before = self._found.get(name, (None, 0))
        steps = STEPS if logs is None else _MORE_STEPS if known >= _GROWTH * before else 0
        model = Surrogate(features, times, targets, trend, start=logs, steps=steps)
        if steps:
            self._found[name] = model.logs, known
        return model


class Speeds:
    """Predicts the logarithm of images/s of configurations from the trials that were `measured`."""

    def __init__(self, encoding: Encoding, measured: Sequence[Trial], fits: Fits) -> None:
        self._encoding = encoding
        shown = measured[-MOST_OBSERVATIONS:]
        features, nothing = encoding(configurations(shown)), np.zeros(len(shown))
        speed = columns_of(shown)["speed"]
        self._model = fits.model("speed", len(measured), features, nothing, speed, nothing)

    def __call__(self, values: Sequence[Values]) -> Array:
        """One for each configuration."""
        if not values:
            return np.zeros(0)
        return self._model.mean(self._encoding(values), np.zeros(1), np.zeros(len(values)))

    def fastest(self, values: Sequence[Values], deviations: float) -> float:
        """What the fastest of some configurations may have: so many standard deviations above what is predicted."""
        mean, deviation = self._model.predict(self._encoding(values), np.zeros(1), np.zeros(len(values)))
        return float((mean + deviations * deviation).max())

    def instead(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials with the speed that they would have had here."""
        speeds = np.exp(self(configurations(trials))).tolist()
        return [as_fast_as(trial, speed) for trial, speed in zip(trials, speeds, strict=True)]


class Accuracy:
    """Predicts the logit of the accuracy of configurations after the `last` epoch.

    It is taught by trials and their `columns`. `worst` are the accuracy of chance and the error that counts as none.
    """

    def __init__(
        self,
        encoding: Encoding,
        taught: tuple[Sequence[Trial], Columns],
        last: int,
        worst: tuple[float, float],
        fits: Fits,
        trend: Trend,
    ) -> None:
        chance, smallest = worst
        trials, columns = taught
        self._encoding, self._trend, self._last = encoding, trend, last
        self._slowest = float(columns["speed"].min())
        self._range = float(max(np.ptp(columns["speed"]), 1e-3))
        places, epochs = np.array(_observations(trials, columns, last)).T
        shown = [trials[place] for place in places]
        values = configurations(shown)
        features = self._features(values, columns["speed"][places])
        accuracy = [_accuracy(trial, epoch, chance) for trial, epoch in zip(shown, epochs.tolist(), strict=True)]
        targets, before = clipped_logit(accuracy, smallest), trend(values, epochs)
        known = int(np.maximum(columns["epochs"], 1).sum())
        self._model = fits.model("accuracy", known, features, self._times(epochs), targets, before)

    def at_end(self, values: Sequence[Values], speed: Array) -> tuple[Array, Array]:
        """Mean and standard deviation; `speed` are logarithms of images/s."""
        if not len(values):
            return np.zeros(0), np.zeros(0)
        return self._model.predict(*self._asked(values, speed))

    def mean_at_end(self, values: Sequence[Values], speed: Array) -> Array:
        """The mean alone, which is found in half the time."""
        return self._model.mean(*self._asked(values, speed)) if len(values) else np.zeros(0)

    def _asked(self, values: Sequence[Values], speed: Array) -> tuple[Array, Array, Array]:
        trend = self._trend(values, np.full(len(values), float(self._last)))
        return self._features(values, speed), np.ones(1), trend

    def _features(self, values: Sequence[Values], speed: Array) -> Array:
        """Speed says much about size, and so about accuracy."""
        return np.column_stack([self._encoding(values), (speed - self._slowest) / self._range])

    def _times(self, epochs: Array) -> Array:
        times: Array = np.log1p(epochs) / np.log1p(self._last)
        return times


def configurations(trials: Sequence[Trial]) -> list[Values]:
    """What was chosen for each."""
    return [dict(trial.proposal.values) for trial in trials]


def _accuracy(trial: Trial, epoch: int, chance: float) -> float:
    return chance if ended_badly(trial) else trial.evaluation.curve[epoch - 1].val_accuracy


def _observations(trials: Sequence[Trial], columns: Columns, last: int) -> list[tuple[int, int]]:
    """The places and the epochs that the model is shown, as many as it can take.

    Of a long search these are the last epochs of the front and of those behind it, and of some others.
    """
    if len(trials) <= MOST_OBSERVATIONS:
        all_of_them = [(place, epoch) for place, trial in enumerate(trials) for epoch in _shown(trial, last)]
        if len(all_of_them) <= MOST_OBSERVATIONS:
            return all_of_them
    best = best_layers(losses_of(columns), MOST_OBSERVATIONS // 2)
    left = np.delete(np.arange(len(trials)), best)
    spread = np.linspace(0, len(left) - 1, min(len(left), MOST_OBSERVATIONS // 4)).round().astype(int)
    shown = {place: _shown(trials[place], last) for place in sorted([*best, *left[spread].tolist()])}
    ends = [(place, epochs[-1]) for place, epochs in shown.items()]
    others = [(place, epoch) for place, epochs in shown.items() for epoch in epochs[:-1]]
    return ends + others[: MOST_OBSERVATIONS - len(ends)]


def _shown(trial: Trial, last: int) -> list[int]:
    """Some epochs of a curve, and the last: neighbours tell the same. Of one that ended badly, how it would go on."""
    if ended_badly(trial):
        return [last]
    trained, epoch = trial.epochs, 1.0
    found = {trained}
    while epoch < trained:
        found.add(round(epoch))
        epoch *= _EPOCHS_SEEN
    return sorted(found)
