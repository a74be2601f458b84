"""Early stopping along the front: candidates wait at rungs, and the best of each speed go on.

Asynchronous successive halving (Li et al., 2020, "A system for massively parallel hyperparameter tuning") with ranks in
place of a loss. A candidate is compared with those of similar speed only, because its speed does not change while it
trains: among all candidates a slow one would have to beat the fast ones at what they are best at. Nothing is decided
for good: who waits goes on as soon as it is among the best.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from explore.search.columns import Known
from explore.search.front import Losses
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
        self._standings: list[dict[bytes, list[int]]] = [{} for _ in self._rungs]

    def promotable(self, trials: Sequence[Trial]) -> list[Trial]:
        """The stopped trials that may go on, from the highest rung down, at each the best first."""
        known, found = self._known.columns(trials), list[Trial]()
        self._read(trials)
        for place, rung in reversed([*enumerate(self._rungs)]):
            here = np.flatnonzero((known["epochs"] >= rung) & np.isfinite(known["speed"]))
            waits = known["waits"][here] & (known["epochs"][here] == rung)
            points = np.column_stack([1 - self._accuracy[here, place], -known["speed"][here]])
            ranks = self._ranked(points, waits, place)
            go_on = np.flatnonzero(waits & (ranks < 1 / self._eta)).tolist()
            best = sorted((float(ranks[one]), trials[here[one]].number, here[one]) for one in go_on)
            found += [trials[one] for *_, one in best]
        return found

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

    def _ranked(self, points: Losses, asked: NDArray[np.bool_], place: int) -> NDArray[np.float64]:
        ranks, self._standings[place] = ranked(points, self._eta, asked, self._standings[place])
        return ranks


def ranked(
    points: Losses, eta: int, asked: NDArray[np.bool_], known: Mapping[bytes, list[int]]
) -> tuple[NDArray[np.float64], dict[bytes, list[int]]]:
    """The ranks of those candidates of a rung that are asked for, among their neighbours in speed: 0 is the best, 1 the
    worst; who is among the best 1 / `eta` has less than that.

    Neighbours are ranked by non-domination, those of one front by what they alone add to its hypervolume. `points` are
    `losses`; `known` are the places of neighbours as an earlier call has returned them beside the ranks.
    """
    ranks, standings = np.ones(len(points)), dict[bytes, list[int]]()
    if len(points) < eta:
        return ranks, standings
    order = np.argsort(points[:, 1], kind="stable")
    ordered, width = points[order], min(len(points), _NEIGHBOURS * eta + 1)
    for place in np.flatnonzero(asked[order]).tolist():
        start = min(max(0, place - width // 2), len(points) - width)
        near = ordered[start : start + width]
        key = near.tobytes()
        if key not in standings:
            standings[key] = known.get(key) or places(near)
        ranks[order[place]] = standings[key][place - start] / width
    return ranks, standings


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
