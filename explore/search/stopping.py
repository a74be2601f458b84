"""Early stopping along the front: candidates wait at rungs, and the best of each speed go on.

Asynchronous successive halving (Li et al., 2020, "A system for massively parallel hyperparameter tuning") with ranks in
place of a loss. A candidate is compared with those of similar speed only, because its speed does not change while it
trains: among all candidates a slow one would have to beat the fast ones at what they are best at. Nothing is decided
for good: who waits goes on as soon as it is among the best.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explore.search.columns import Known, losses_of
from explore.search.front import Losses, non_dominated
from explore.search.trial import Trial

# A candidate is compared with so many times eta neighbours in speed.
_NEIGHBOURS = 3
_LEAST = 1e-3  # accuracy that everybody is credited with, so that none adds nothing


def next_rung(rungs: Sequence[int], epochs: int) -> int:
    """Where a candidate with so many epochs waits next; the end, for one that was interrupted behind its last epoch."""
    return next((rung for rung in rungs if rung > epochs), rungs[-1])


class Ladder:
    """The rungs of a study. What a trial brings is looked at once, and a candidate is ranked again only when one of its
    neighbours is another: so a decision takes a hundredth of a second among ten thousand trials."""

    def __init__(self, rungs: Sequence[int], eta: int) -> None:
        self._rungs, self._eta = tuple(rungs[:-1]), eta
        self._known = Known()
        self._trials: list[Trial] = []
        self._accuracy = np.zeros((0, len(self._rungs)))
        self._standings = [Standing(eta) for _ in self._rungs]

    def promotable(self, trials: Sequence[Trial]) -> list[Trial]:
        """The stopped trials that may go on, from the highest rung down, at each the best first."""
        known, found = self._known.columns(trials), list[Trial]()
        self._read(trials)
        for place, rung in reversed([*enumerate(self._rungs)]):
            here = np.flatnonzero((known["epochs"] >= rung) & np.isfinite(known["speed"]))
            waits = known["waits"][here] & (known["epochs"][here] == rung)
            points = np.column_stack([1 - self._accuracy[here, place], -known["speed"][here]])
            ranks = self._standings[place].ranks(points)
            go_on = np.flatnonzero(waits & (ranks < 1 / self._eta)).tolist()
            best = sorted((float(ranks[one]), trials[here[one]].number, here[one]) for one in go_on)
            found += [trials[one] for *_, one in best]
        return found

    def unbeaten(self, trials: Sequence[Trial]) -> Trial | None:
        """Who goes on where nobody else will come: from the highest rung down, whom nobody as far or farther beats in
        accuracy so far and in speed at once; of several the slowest, whom the others could beat once they are farther.

        None while anybody is running, who may turn out to be better.
        """
        known = self._known.columns(trials)
        alive = (known["waits"] | known["complete"]) & np.isfinite(known["speed"])
        for rung in () if known["running"].any() else reversed(self._rungs):
            here = np.flatnonzero(alive & (known["epochs"] >= rung))
            best = here[(known["epochs"][here] == rung) & non_dominated(losses_of(known[here]))]
            if len(best):
                return trials[int(best[known["speed"][best].argmin()])]
        return None

    def _read(self, trials: Sequence[Trial]) -> None:
        """The accuracies at all rungs, of trials that are others than before."""
        same = zip(self._trials, trials, strict=False)
        changed = [place for place, (before, now) in enumerate(same) if before is not now]
        changed += range(len(self._trials), len(trials))
        self._accuracy = np.resize(self._accuracy, (len(trials), len(self._rungs)))
        for place in changed:
            curve = trials[place].evaluation.curve
            self._accuracy[place] = [curve[rung - 1].val_accuracy if len(curve) >= rung else 0 for rung in self._rungs]
        self._trials = list(trials)


class Standing:
    """The ranks of the candidates that came to a rung, each among its neighbours in speed: 0 is the best, 1 the worst;
    who is among the best 1 / `eta` has less than that.

    Neighbours are ranked by non-domination, those of one front by what they alone add to its hypervolume.
    """

    def __init__(self, eta: int) -> None:
        self._eta = eta
        # As it was last: the points in the order of speed, and the rank of each.
        self._points, self._ranks = np.zeros((0, 2)), np.zeros(0)

    def ranks(self, points: Losses) -> NDArray[np.float64]:
        """One for each point of `losses`."""
        count, width = len(points), min(len(points), _NEIGHBOURS * self._eta + 1)
        if count < self._eta:
            return np.ones(count)
        order = np.argsort(points[:, 1], kind="stable")
        ordered, ranks = points[order], np.ones(count)
        first, last = self._unchanged(ordered, width)
        ranks[:first], ranks[count - last :] = self._ranks[:first], self._ranks[len(self._ranks) - last :]
        for place in range(first, count - last):
            start = min(max(0, place - width // 2), count - width)
            ranks[place] = places(ordered[start : start + width])[place - start] / width
        self._points, self._ranks = ordered, ranks
        found = np.empty(count)
        found[order] = ranks
        return found

    def _unchanged(self, ordered: Losses, width: int) -> tuple[int, int]:
        """How many at the fast and at the slow end have the neighbours that they had before."""
        if width != min(len(self._points), _NEIGHBOURS * self._eta + 1):
            return 0, 0
        most = min(len(ordered), len(self._points))
        differs = (ordered[:most] != self._points[:most]).any(1)
        from_behind = (ordered[len(ordered) - most :] != self._points[len(self._points) - most :]).any(1)[::-1]
        head, tail = (int(one.argmax()) if one.any() else most for one in (differs, from_behind))
        first = head - width + width // 2 + 1 if head >= width else 0
        last = tail - width // 2 if tail >= width else 0
        return first, min(last, len(ordered) - first)


def places(points: Losses) -> list[int]:
    """The place of each point of `losses`, 0 is the best: front by front, there by what would be lost without it."""
    values = points.tolist()
    # Nothing right, and half the speed of the slowest: of a front of neighbours the most accurate add most.
    corner = 1.0 + _LEAST, max((second for _, second in values), default=0.0) + math.log(2)
    best = [one for front in _fronts(values) for one in _by_share(front, values, corner)]
    found = [0] * len(values)
    for place, one in enumerate(best):
        found[one] = place
    return found


def _fronts(values: list[list[float]]) -> list[list[int]]:
    """The front, the front without it, and so on, each in the order of the first loss; equal points are in the same."""
    fronts, lowest = list[list[int]](), list[float]()  # and the second loss of the last member of each
    front, before = 0, list[float]()
    for one in sorted(range(len(values)), key=lambda one: values[one]):
        if values[one] != before:
            before = values[one]
            front = bisect_right(lowest, before[1])
        if front == len(fronts):
            fronts.append([])
            lowest.append(before[1])
        fronts[front].append(one)
        lowest[front] = before[1]
    return fronts


def _by_share(front: Sequence[int], values: Sequence[Sequence[float]], corner: tuple[float, float]) -> list[int]:
    """The members of a front, those first without whom most of its hypervolume would be lost."""
    firsts = [*(values[one][0] for one in front), corner[0]]
    seconds = [corner[1], *(values[one][1] for one in front)]
    added = {
        one: (firsts[place + 1] - firsts[place]) * (seconds[place] - seconds[place + 1])
        for place, one in enumerate(front)
    }
    return sorted(front, key=lambda one: (-added[one], one))
