"""The search that knows speed: it models accuracy alone, and trains what promises most for its cost, rung by rung.

Speed is measured before a candidate is trained, and predicted from those measured where it was not. Accuracy is a
Gaussian process over configurations and epochs, see `surrogate`. Of all that could be done next, to go on with a
candidate that waits at a rung or to begin another one, it does what promises the most hypervolume at the last epoch for
what it costs to get there. So a candidate is stopped when another one promises more, for as long as it does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from explore.evaluation import COMPLETE, DIVERGED, MEMORY, RUNNING, STOPPED
from explore.search.encoding import Encoding
from explore.search.front import non_dominated
from explore.search.history import mixed
from explore.search.improvement import expected_gain
from explore.search.prior import unbiased
from explore.search.proposals import Check
from explore.search.schedule import Step
from explore.search.space import Space, Values, to_overrides
from explore.search.stopping import next_rung
from explore.search.study import Proposal, Trial, as_fast_as, candidates, key_of
from explore.search.surrogate import Surrogate, clipped_logit

Array = NDArray[np.float64]
Pool = Callable[[np.random.Generator, Sequence[Values]], list[Values]]
Trend = Callable[[Sequence[Values], Array], Array]
_DRAWN, _NEIGHBOURS = 400, 10  # configurations at random, and of each member of the front
_CHANGED = 2  # dimensions of such a neighbour, on average
_MOST_OBSERVATIONS = 240
_MEASURED_FIRST = 2  # times the start-up are measured before any is trained, so that speed is known from the beginning
_MEASURED = 4  # so many are measured at most before one of them is trained, however slow they turn out to be
_PATIENCE = 0.5  # 1 counts seconds of training and so begins at the fast end of a front, 0 counts epochs
_EPOCHS_SEEN = 2.0  # epochs of a curve that are shown to the model are so many times apart


@dataclass
class SpeedAware:
    """A scheduler, see there.

    Args:
        space: of the configurations.
        rungs: the epochs at which candidates wait, the last is the end.
        classes: of the images; chance is one in so many.
        smallest: the error that counts as none: half an image of the validation split.
        seed: of what is drawn at random.
        startup: candidates drawn at random before there is a model.
        check: raises ValueError for overrides that break a rule.
        least_throughput: images/s from which on a candidate is worth something.
        tolerance: expected gain, as a share of the hypervolume, below which nothing is worth its training.
        fewest: candidates before the search may end by itself; None never.
        pool: configurations to choose from, given the best so far.
        trend: what is thought beforehand of the logit of the accuracy of configurations, each after its epochs.
        earlier: measured trials of another study, as `warm_start.teaching` gives them; they teach and count nowhere.
        elsewhere: the same, of those whose speed tells nothing of this device.
    """

    space: Space
    rungs: Sequence[int]
    classes: int
    smallest: float
    seed: int = 0
    startup: int = 8
    check: Check = lambda overrides: None
    least_throughput: float | None = None
    tolerance: float = 1e-3
    fewest: int | None = None
    pool: Pool | None = None
    trend: Trend = unbiased
    earlier: Sequence[Trial] = ()
    elsewhere: Sequence[Trial] = ()
    refusal: str = field(default="", init=False)
    ended: str = field(default="", init=False)
    _impossible: set[str] = field(default_factory=set, init=False)
    _fits: dict[str, Array] = field(default_factory=dict, init=False)  # hyperparameters of the last models

    def next(self, trials: Sequence[Trial], *, room: bool) -> Step | None:
        """As `Scheduler`."""
        self.ended = ""  # what others found out may have given it something to do again
        waiting = [trial for trial in trials if trial.status == STOPPED and not trial.given_up]
        if not room:  # who was only measured would be one more
            waiting = [trial for trial in waiting if trial.evaluation.epochs]
        # As long as nothing is learned the choice stays the same: else who was measured would lose to a new draw.
        learned = [trial for trial in (*self.earlier, *trials) if _teaches(trial)]
        generator = np.random.default_rng(mixed(self.seed, sum(trial.evaluation.epochs for trial in learned)))
        if not learned or len(learned) + sum(trial.status == RUNNING for trial in trials) < self.startup:
            measured = [trial for trial in waiting if not trial.evaluation.epochs]
            few = room and len(trials) < _MEASURED_FIRST * self.startup
            if few and (proposal := self._first_possible(self._pool(trials, generator))):
                return Step(proposal, 0)
            if measured:
                return self.resume(_farthest_in_speed(measured, trials))
        if not learned:  # others are at work on all that were measured: better one more than to wait
            proposal = self._first_possible(self._pool(trials, generator)) if room else None
            return Step(proposal, 0) if proposal else None
        latest = max(trial.row for trial in learned)
        just_measured = sum(trial.row > latest and not trial.evaluation.epochs for trial in waiting)
        fresh = self._pool(trials, generator) if room else []
        return self._most_promising(trials, waiting, fresh, tired=just_measured >= _MEASURED)

    def resume(self, trial: Trial) -> Step:
        """As `Scheduler`."""
        return Step(trial.proposal, next_rung(self.rungs, trial.evaluation.epochs), trial)

    def _most_promising(
        self, trials: Sequence[Trial], waiting: Sequence[Trial], fresh: list[Values], *, tired: bool
    ) -> Step | None:
        """The best of both; those that wait come first where somebody is `tired` of measuring."""
        encoding, last = Encoding(self.space), self.rungs[-1]
        known = [trial for trial in (*self.earlier, *trials) if trial.throughput]
        speeds = _Speeds(encoding, known, self._fits)
        taught = [*speeds.instead(self.elsewhere), *known]
        worst = 1 / self.classes, self.smallest
        model = _Accuracy(encoding, taught, last, worst, self._fits, self.trend)
        done = [trial for trial in trials if trial.throughput and trial.status in (COMPLETE, RUNNING)]
        begun = _values([trial for trial in trials if trial.status == RUNNING and not trial.throughput])
        reached = np.concatenate([_log_speed(done), speeds(begun)])
        front = expit(model.at_end([*_values(done), *begun], reached)[0]), reached
        values = [*_values(waiting), *fresh]
        speed = np.concatenate([_log_speed(waiting), speeds(fresh)])
        asked = self.least_throughput
        slowest = np.log(asked) if asked else float(min(speed.min(initial=np.inf), _log_speed(known).min()))
        mean, deviation = model.at_end(values, speed)
        gain = expected_gain(mean, deviation, speed, front, worst=(1 / self.classes, slowest), smallest=self.smallest)
        trained = np.array([trial.evaluation.epochs for trial in waiting] + [0] * len(fresh))
        score = gain / ((last - trained) * np.exp(-_PATIENCE * speed))
        early = self.fewest is None or len(candidates(trials)) < self.fewest
        # Where nothing promises anything, as below a speed that is asked for, the fastest comes first.
        order = np.lexsort((-speed, -score)).tolist()
        if tired:
            order.sort(key=lambda index: index >= len(waiting))
        for index in order:
            hopeful = early and trained[index] == 0 and (gain[index] > 0 or index >= len(waiting))
            if gain[index] < self.tolerance and not hopeful:
                continue
            if index < len(waiting):
                return replace(self.resume(waiting[index]), expected=float(expit(mean[index])))
            if proposal := self._possible(fresh[index - len(waiting)]):
                return Step(proposal, 0)
        if fresh:
            worth = f"{self.tolerance:.1%} to the hypervolume of the front"
            self.ended = f"It ended after {len(candidates(trials))} candidates: none was expected to add {worth}."
        return None

    def _pool(self, trials: Sequence[Trial], generator: np.random.Generator) -> list[Values]:
        """What could be begun and was not."""
        everyone = (*self.earlier, *trials)
        learned = [trial for trial in everyone if trial.evaluation.epochs and trial.throughput]
        best = [dict(trial.proposal.values) for trial in _front(learned)]
        drawn = self.pool(generator, best) if self.pool else self._drawn(generator, best)
        tried = {trial.proposal.key for trial in trials} | self._impossible
        fresh = {key_of(values): values for values in drawn}
        return [values for key, values in fresh.items() if key not in tried]

    def _drawn(self, generator: np.random.Generator, best: Sequence[Values]) -> list[Values]:
        """Configurations at random, and the best so far with some dimensions drawn anew."""
        found = [self.space.draw(generator) for _ in range(_DRAWN)]
        share = _CHANGED / len(self.space.dimensions)
        for values in best:
            for _ in range(_NEIGHBOURS):
                keep = {key: value for key, value in values.items() if generator.random() >= share}
                found.append(self.space.draw(generator, keep))
        return found

    def _first_possible(self, pool: Sequence[Values]) -> Proposal | None:
        return next((proposal for values in pool if (proposal := self._possible(values))), None)

    def _possible(self, values: Values) -> Proposal | None:
        proposal = self._proposal(values)
        try:
            self.check(proposal.overrides)
        except ValueError as error:
            self.refusal = str(error)
            self._impossible.add(proposal.key)
            return None
        return proposal

    def _proposal(self, values: Values) -> Proposal:
        return Proposal(
            values=values,
            distributions=self.space.distributions(values),
            overrides=to_overrides(values),
            sampler_state={},
        )


class _Speeds:
    """Predicts the logarithm of images/s of configurations from those that were measured."""

    def __init__(self, encoding: Encoding, measured: Sequence[Trial], fits: dict[str, Array]) -> None:
        self._encoding = encoding
        shown = measured[-_MOST_OBSERVATIONS:]
        features, nothing = encoding(_values(shown)), np.zeros(len(shown))
        self._model = Surrogate(features, nothing, _log_speed(shown), nothing, start=fits.get("speed"))
        fits["speed"] = self._model.logs

    def __call__(self, configurations: Sequence[Values]) -> Array:
        if not configurations:
            return np.zeros(0)
        nothing = np.zeros(len(configurations))
        return self._model.predict(self._encoding(configurations), nothing, nothing)[0]

    def instead(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials with the speed that they would have had here."""
        speeds = np.exp(self(_values(trials))).tolist()
        return [as_fast_as(trial, speed) for trial, speed in zip(trials, speeds, strict=True)]


class _Accuracy:
    """Predicts the logit of the accuracy of configurations after the last epoch."""

    def __init__(
        self,
        encoding: Encoding,
        trials: Sequence[Trial],
        last: int,
        worst: tuple[float, float],
        fits: dict[str, Array],
        trend: Trend,
    ) -> None:
        chance, smallest = worst
        self._encoding, self._trend = encoding, trend
        learned = [trial for trial in trials if _teaches(trial)]
        speed = _log_speed(learned)
        self._slowest, self._range = float(speed.min()), float(max(np.ptp(speed), 1e-3))
        rows = [(place, epoch) for place, trial in enumerate(learned) for epoch in _shown(trial, last)]
        rows = rows if len(rows) <= _MOST_OBSERVATIONS else _fewer(rows, learned)
        places, epochs = np.array(rows).T
        self._last = last
        values = _values(learned)
        features = self._features(values, speed)
        accuracy = [_accuracy(learned[place], epoch, chance) for place, epoch in rows]
        targets, before = clipped_logit(accuracy, smallest), trend([values[place] for place in places], epochs)
        self._model = Surrogate(features[places], self._times(epochs), targets, before, start=fits.get("accuracy"))
        fits["accuracy"] = self._model.logs

    def at_end(self, configurations: Sequence[Values], speed: Array) -> tuple[Array, Array]:
        """Mean and standard deviation."""
        if not len(configurations):
            return np.zeros(0), np.zeros(0)
        count = len(configurations)
        trend = self._trend(configurations, np.full(count, float(self._last)))
        return self._model.predict(self._features(configurations, speed), np.ones(count), trend)

    def _features(self, configurations: Sequence[Values], speed: Array) -> Array:
        """Speed says much about size, and so about accuracy."""
        return np.column_stack([self._encoding(configurations), (speed - self._slowest) / self._range])

    def _times(self, epochs: Array) -> Array:
        times: Array = np.log1p(epochs) / np.log1p(self._last)
        return times


def _teaches(trial: Trial) -> bool:
    return bool(trial.evaluation.epochs) or (_ended_badly(trial) and trial.throughput is not None)


def _ended_badly(trial: Trial) -> bool:
    """Whether no training would give it an accuracy."""
    return trial.status == DIVERGED or MEMORY in trial.evaluation.constraints


def _shown(trial: Trial, last: int) -> list[int]:
    """Some epochs of a curve, and the last: neighbours tell the same. Of one that ended badly, how it would go on."""
    if _ended_badly(trial):
        return [last]
    trained, epoch = trial.evaluation.epochs, 1.0
    found = {trained}
    while epoch < trained:
        found.add(round(epoch))
        epoch *= _EPOCHS_SEEN
    return sorted(found)


def _accuracy(trial: Trial, epoch: int, chance: float) -> float:
    return chance if _ended_badly(trial) else trial.evaluation.curve[epoch - 1].val_accuracy


def _fewer(rows: list[tuple[int, int]], trials: Sequence[Trial]) -> list[tuple[int, int]]:
    """Of a long search, the last epoch of the front and of those behind it, as many as a model can take."""
    left: list[int] = list(range(len(trials)))
    order: list[int] = []
    while left and len(order) < _MOST_OBSERVATIONS // 2:
        members = {trial.number for trial in _front([trials[place] for place in left])}
        order += [place for place in left if trials[place].number in members]
        left = [place for place in left if trials[place].number not in members]
    spread = np.linspace(0, len(left) - 1, min(len(left), _MOST_OBSERVATIONS // 4)).round().astype(int)
    chosen = {*order[: _MOST_OBSERVATIONS // 2], *(left[index] for index in spread.tolist())}
    last = dict(rows)  # of each place the last row
    ends = [(place, last[place]) for place in sorted(chosen)]
    others = [row for row in rows if row[0] in chosen and row[1] != last[row[0]]]
    return ends + others[: _MOST_OBSERVATIONS - len(ends)]


def _front(trials: Sequence[Trial]) -> list[Trial]:
    """Those whose accuracy so far nobody beats at the same speed."""
    points = np.array([[-(trial.accuracy or 0.0), -(trial.throughput or 0.0)] for trial in trials])
    return [trial for trial, best in zip(trials, non_dominated(points), strict=True) if best]


def _farthest_in_speed(measured: Sequence[Trial], trials: Sequence[Trial]) -> Trial:
    """Who differs most in speed from all that are trained or being trained: the first ones span the whole range."""
    taken = [trial for trial in trials if trial.throughput and (trial.evaluation.epochs or trial.status == RUNNING)]
    if not taken:
        return max(measured, key=lambda trial: trial.throughput or 0.0)
    gaps = np.abs(_log_speed(measured)[:, None] - _log_speed(taken)[None]).min(axis=1)
    return measured[int(gaps.argmax())]


def _values(trials: Sequence[Trial]) -> list[Values]:
    return [dict(trial.proposal.values) for trial in trials]


def _log_speed(trials: Sequence[Trial]) -> Array:
    speeds: Array = np.log(np.array([trial.throughput or 1.0 for trial in trials], float))
    return speeds
