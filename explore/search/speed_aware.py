"""The search that knows speed: it models accuracy alone, and trains what promises most for its cost, rung by rung.

Speed is measured before a candidate is trained, and predicted from those measured where it was not; accuracy is a
Gaussian process over configurations and epochs, see `predicted`. Of all that could be done next, to go on with a
candidate that waits at a rung or to begin another one, it does what promises the most hypervolume at the last epoch for
what it costs to get there. So a candidate is stopped when another one promises more, for as long as it does. Who is not
faster than one that was trained to the end and makes no error is not trained any more. Where a speed is asked for that
nothing in the space seems to reach, the search ends.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from explore.counted import counted
from explore.search.columns import Columns, Known, columns_of, losses_of
from explore.search.encoding import Encoding
from explore.search.front import best_layers, non_dominated
from explore.search.history import mixed
from explore.search.improvement import expected_gain
from explore.search.options import Search
from explore.search.predicted import MOST_OBSERVATIONS, Accuracy, Fits, Speeds, Trend, configurations
from explore.search.prior import unbiased
from explore.search.proposals import Check
from explore.search.schedule import Step
from explore.search.space import Space, Values
from explore.search.stopping import next_rung
from explore.search.trial import Proposal, Trial, key_of

Array = NDArray[np.float64]
Pool = Callable[[np.random.Generator, Sequence[Values]], list[Values]]
_DRAWN = 400  # configurations at random
_NEIGHBOURS, _MOST_NEIGHBOURS = 10, 400  # of each member of the front, and of all together
_CHANGED = 2  # dimensions of such a neighbour, on average
_MOST_WAITING = 400  # of those that wait so many are considered
_MEASURED_FIRST = 2  # times the start-up are measured before any is trained, so that speed is known from the beginning
_MEASURED = 4  # so many are measured at most before one of them is trained, however slow they turn out to be
_FEWEST_MEASURED = 8  # before a speed that is asked for may be said to be out of reach
_LOOKED_THROUGH = 2000  # configurations for one that may be as fast as is asked for
# By so much none of them may reach it: rather look on than end wrongly.
_DEVIATIONS, _MARGIN = 3.0, float(np.log(1.3))
_PATIENCE = 0.5  # 1 counts seconds of training and so begins at the fast end of a front, 0 counts epochs


@dataclass(frozen=True)
class _Choice:
    """What could be done next: to go on with `trial`, or to begin another one.

    `gain` is a share of the hypervolume of the front, `expected` the accuracy at the end.
    """

    values: Values
    trial: Trial | None
    gain: float
    expected: float


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
        fewest: trained candidates before the search may end by itself; None never.
        pool: configurations to choose from, given the best so far.
        trend: what is thought beforehand of the logit of the accuracy of configurations, each after its epochs.
        earlier: measured trials of another study, as `warm_start.teaching` gives them; they teach and count nowhere.
        elsewhere: the same, of those whose speed tells nothing of this device.
    """

    space: Space
    rungs: Sequence[int]
    classes: int
    smallest: float
    seed: int = Search.seed
    startup: int = Search.startup
    check: Check = lambda overrides: None
    least_throughput: float | None = None
    tolerance: float = Search.tolerance
    fewest: int | None = None
    pool: Pool | None = None
    trend: Trend = unbiased
    earlier: Sequence[Trial] = ()
    elsewhere: Sequence[Trial] = ()
    refusal: str = field(default="", init=False)
    ended: str = field(default="", init=False)
    _impossible: set[str] = field(default_factory=set, init=False)
    _fits: Fits = field(default_factory=Fits, init=False)
    _known: Known = field(default_factory=Known, init=False)

    def next(self, trials: Sequence[Trial], *, room: bool) -> Step | None:
        """As `Scheduler`."""
        self.ended = ""  # what others found out may have given it something to do again
        everyone = [*self.earlier, *trials]
        known = self._known.columns(everyone)
        mine = np.arange(len(everyone)) >= len(self.earlier)
        hopeless = known["speed"] <= self._fastest_perfect(known, mine)
        # Who was only measured would be one more.
        waiting = _places(mine & known["waits"] & ~hopeless & (room | (known["epochs"] > 0)))
        learned = known["teaches"]
        # As long as nothing is learned the choice stays the same: else who was measured would lose to a new draw.
        generator = np.random.default_rng(mixed(self.seed, int(known["epochs"][learned].sum())))
        pool = partial(self._pool, everyone, known, generator)
        fast = partial(self._fast_first, everyone, known)
        begun = learned | (mine & known["running"])
        tried = {*self._known.keys[len(self.earlier) :], *self._impossible}
        if room and self._is_out_of_reach(everyone, known, mine, tried):
            return None
        if not learned.any() or begun.sum() < self.startup:
            measured = [place for place in waiting if not known["epochs"][place]]
            few = room and len(trials) < _MEASURED_FIRST * self.startup
            if few and (proposal := self._first_possible(fast(pool()), tried)):
                return Step(proposal, 0)
            if measured:
                return self.resume(everyone[_farthest_in_speed(measured, known, mine)])
        if not learned.any():  # others are at work on all that were measured: better one more than to wait
            proposal = self._first_possible(fast(pool()), tried) if room else None
            return Step(proposal, 0) if proposal else None
        latest = known["row"][learned].max()
        new = (known["row"] > latest) & (known["epochs"] == 0)
        considered = _considered(waiting, new, known, generator)
        choices = self._most_promising(
            everyone, known, considered, pool() if room else [], waiting_first=new[waiting].sum() >= _MEASURED
        )
        return self._first_worth_it(choices, int((mine & begun).sum()), tried)

    def resume(self, trial: Trial) -> Step:
        """As `Scheduler`."""
        return Step(trial.proposal, next_rung(self.rungs, trial.epochs), trial)

    def _most_promising(
        self, everyone: Sequence[Trial], known: Columns, waiting: list[int], fresh: list[Values], *, waiting_first: bool
    ) -> Iterator[_Choice]:
        """Those that wait and those that could be begun, what promises most for its cost first."""
        encoding, last = Encoding(self.space), self.rungs[-1]
        measured = np.isfinite(known["speed"])
        speeds = Speeds(encoding, [everyone[place] for place in _places(measured)], self._fits)
        taught = self._taught(everyone, known, speeds)
        model = Accuracy(encoding, taught, last, (1 / self.classes, self.smallest), self._fits, self.trend)
        mine = np.arange(len(everyone)) >= len(self.earlier)
        done = _may_be_front(known, mine & measured)
        begun = configurations([everyone[place] for place in _places(mine & known["running"] & ~measured)])
        reached = np.concatenate([known["speed"][done], speeds(begun)])
        values = [*configurations([everyone[place] for place in done]), *begun]
        front = expit(model.mean_at_end(values, reached)), reached
        values = [*configurations([everyone[place] for place in waiting]), *fresh]
        speed = np.concatenate([known["speed"][waiting], speeds(fresh)])
        asked = self.least_throughput
        slowest = np.log(asked) if asked else float(min(speed.min(initial=np.inf), known["speed"][measured].min()))
        mean, deviation = model.at_end(values, speed)
        gain = expected_gain(mean, deviation, speed, front, worst=(1 / self.classes, slowest), smallest=self.smallest)
        gain[speed <= self._fastest_perfect(known, mine)] = 0
        trained = np.concatenate([known["epochs"][waiting], np.zeros(len(fresh))])
        score = gain / ((last - trained) * np.exp(-_PATIENCE * speed))
        # Where nothing promises anything, as below a speed that is asked for, the fastest comes first.
        later = (np.arange(len(values)) >= len(waiting)) & waiting_first
        trials = [*(everyone[place] for place in waiting), *[None] * len(fresh)]
        return (
            _Choice(values[index], trials[index], float(gain[index]), float(expit(mean[index])))
            for index in np.lexsort((-speed, -score, later)).tolist()
        )

    def _fastest_perfect(self, known: Columns, mine: NDArray[np.bool_]) -> float:
        """The logarithm of the speed up to which no candidate can reach the front, even if it makes no error."""
        perfect = mine & known["complete"] & (known["accuracy"] > 1 - self.smallest)
        return float(known["speed"][perfect].max(initial=-np.inf))

    def _taught(self, everyone: Sequence[Trial], known: Columns, speeds: Speeds) -> tuple[list[Trial], Columns]:
        learned = [everyone[place] for place in _places(known["teaches"])], known[known["teaches"]]
        if not self.elsewhere:
            return learned
        here = speeds.instead(self.elsewhere)
        columns = columns_of(here)
        here = list(compress(here, columns["teaches"]))
        return [*here, *learned[0]], np.concatenate([columns[columns["teaches"]], learned[1]])

    def _first_worth_it(self, choices: Iterable[_Choice], count: int, tried: Collection[str]) -> Step | None:
        early = self.fewest is None or count < self.fewest
        anything_new = False
        for choice in choices:
            if not choice.trial and key_of(choice.values) in tried:
                continue
            anything_new |= not choice.trial
            untrained = not choice.trial or not choice.trial.epochs
            hopeful = early and untrained and (choice.gain > 0 or not choice.trial)
            if choice.gain < self.tolerance and not hopeful:
                continue
            if choice.trial:
                return replace(self.resume(choice.trial), expected=choice.expected)
            if proposal := self._possible(choice.values):
                return Step(proposal, 0)
        if anything_new:
            worth = f"{self.tolerance:.1%} to the hypervolume of the front"
            self.ended = f"It ended after {counted(count, 'candidate')}: none was expected to add {worth}."
        return None

    def _fast_first(self, everyone: Sequence[Trial], known: Columns, pool: list[Values]) -> list[Values]:
        """As they are, but behind those that seem to be as fast as is asked for the others, the fastest first."""
        measured = _places(np.isfinite(known["speed"]))
        if not self.least_throughput or len(measured) < 2:
            return pool
        speed = Speeds(Encoding(self.space), [everyone[place] for place in measured], self._fits)(pool)
        order = np.argsort(-np.minimum(speed, np.log(self.least_throughput)), kind="stable")
        return [pool[index] for index in order.tolist()]

    def _is_out_of_reach(
        self, everyone: Sequence[Trial], known: Columns, mine: NDArray[np.bool_], tried: Collection[str]
    ) -> bool:
        """Whether nothing in the space seems to be as fast as is asked for, by what was measured; says so in `ended`.

        Only of a search that may end by itself, and only as long as nobody was that fast.
        """
        measured = np.isfinite(known["speed"])
        count, asked = int((mine & measured).sum()), self.least_throughput
        if not asked or self.fewest is None or count < max(self.startup, _FEWEST_MEASURED):
            return False
        fastest = float(known["speed"][measured].max())
        if fastest + _MARGIN >= np.log(asked):
            return False
        generator = np.random.default_rng(mixed(self.seed, count))
        nearby = configurations([everyone[place] for place in np.argsort(-np.nan_to_num(known["speed"]))[:_NEIGHBOURS]])
        drawn = [*self._drawn(generator, nearby), *self.space.draw(generator, [{}] * _LOOKED_THROUGH)]
        if not (new := [values for values in drawn if key_of(values) not in tried]):
            return False  # which is said of a space that is exhausted
        speeds = Speeds(Encoding(self.space), [everyone[place] for place in _places(measured)], self._fits)
        if speeds.fastest(new, _DEVIATIONS) + _MARGIN >= np.log(asked):
            return False
        self.ended = (
            f"It ended after {counted(count, 'candidate')}: no configuration of the space seems to reach "
            f"limits.throughput={asked:,.0f}; the fastest measured has {np.exp(fastest):,.0f} images/s."
        )
        return True

    def _pool(self, everyone: Sequence[Trial], known: Columns, generator: np.random.Generator) -> list[Values]:
        """What could be begun, all different; some of it may have been tried."""
        trained = ((known["epochs"] > 0) & np.isfinite(known["speed"])).nonzero()[0]
        front = trained[non_dominated(losses_of(known[trained]))]
        best = configurations([everyone[place] for place in front.tolist()])
        drawn = self.pool(generator, best) if self.pool else self._drawn(generator, best)
        return list({tuple(values.items()): values for values in drawn}.values())

    def _drawn(self, generator: np.random.Generator, best: Sequence[Values]) -> list[Values]:
        """Configurations at random, and the best so far with some dimensions drawn anew."""
        keep: list[Values] = [{} for _ in range(_DRAWN)]
        share = _CHANGED / len(self.space.dimensions)
        each = min(_NEIGHBOURS, max(1, _MOST_NEIGHBOURS // max(len(best), 1)))
        for values in best:
            kept = generator.random((each, len(values))) >= share
            keep += [dict(compress(values.items(), row)) for row in kept.tolist()]
        return self.space.draw(generator, keep)

    def _first_possible(self, pool: Sequence[Values], tried: Collection[str]) -> Proposal | None:
        new = (values for values in pool if key_of(values) not in tried)
        return next((proposal for values in new if (proposal := self._possible(values))), None)

    def _possible(self, values: Values) -> Proposal | None:
        proposal = self.space.proposal(values)
        try:
            self.check(proposal.overrides)
        except ValueError as error:
            self.refusal = str(error)
            self._impossible.add(proposal.key)
            return None
        return proposal


def _places(mask: NDArray[np.bool_]) -> list[int]:
    return mask.nonzero()[0].tolist()


def _considered(
    waiting: list[int], new: NDArray[np.bool_], known: Columns, generator: np.random.Generator
) -> list[int]:
    """Of many that wait those that are `new`, for they promised most, the best so far, and others by chance: whoever
    learns slowly is among these sooner or later."""
    if len(waiting) <= _MOST_WAITING:
        return waiting
    places = np.array(waiting)
    best = places[best_layers(losses_of(known[places]), _MOST_WAITING // 2)]
    chosen = list(dict.fromkeys([*places[new[places]].tolist(), *best.tolist()]))
    others = generator.permutation(np.setdiff1d(places, chosen, assume_unique=True))
    return [*chosen, *others.tolist()][: max(_MOST_WAITING, len(chosen))]


def _may_be_front(known: Columns, mask: NDArray[np.bool_]) -> list[int]:
    """Those that are being trained, and those that are complete; of many the best of these."""
    complete = (mask & known["complete"]).nonzero()[0]
    if len(complete) > MOST_OBSERVATIONS:
        complete = complete[best_layers(losses_of(known[complete]), MOST_OBSERVATIONS)]
    return [*complete.tolist(), *_places(mask & known["running"])]


def _farthest_in_speed(measured: Sequence[int], known: Columns, mine: NDArray[np.bool_]) -> int:
    """Who differs most in speed from all that are trained or being trained: the first ones span the whole range."""
    begun = (known["epochs"] > 0) | known["running"]
    taken, speed = known["speed"][mine & begun & np.isfinite(known["speed"])], known["speed"][measured]
    if not len(taken):
        return measured[int(speed.argmax())]
    return measured[int(np.abs(speed[:, None] - taken[None]).min(axis=1).argmax())]
