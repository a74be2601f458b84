"""Early stopping along the front: candidates wait at rungs, and the best of each speed go on.

Asynchronous successive halving (Li et al., 2020, "A system for massively parallel hyperparameter tuning") with ranks in
place of a loss. A candidate is compared with those of similar speed only, because its speed does not change while it
trains: among all candidates a slow one would have to beat the fast ones at what they are best at. Nothing is decided
for good: who waits goes on as soon as it is among the best.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explore.evaluation import STOPPED
from explore.search.front import hypervolume, losses, non_dominated
from explore.search.trial import Trial

# A candidate is compared with so many times eta neighbours in speed.
_NEIGHBOURS = 3
_LEAST = 1e-3  # accuracy that everybody is credited with, so that none adds nothing


def next_rung(rungs: Sequence[int], epochs: int) -> int:
    """Where a candidate with so many epochs waits next; the end, for one that was interrupted behind its last epoch."""
    return next((rung for rung in rungs if rung > epochs), rungs[-1])


def promotable(trials: Sequence[Trial], rungs: Sequence[int], eta: int) -> list[Trial]:
    """The stopped trials that may go on, from the highest rung down, at each the best first."""
    found: list[Trial] = []
    for rung in reversed(rungs[:-1]):
        here = [trial for trial in trials if trial.evaluation.epochs >= rung and trial.throughput]
        accuracy = [trial.evaluation.curve[rung - 1].val_accuracy for trial in here]
        ranks = ranked(accuracy, [trial.throughput or 0.0 for trial in here], eta)
        waiting = [
            (rank, trial.number, trial)
            for trial, rank in zip(here, ranks.tolist(), strict=True)
            if rank < 1 / eta and trial.status == STOPPED and not trial.given_up and trial.evaluation.epochs == rung
        ]
        found += [trial for _, _, trial in sorted(waiting, key=lambda one: one[:2])]
    return found


def ranked(accuracy: Sequence[float], throughput: Sequence[float], eta: int) -> NDArray[np.float64]:
    """The rank of each candidate of a rung among its neighbours in speed: 0 is the best, 1 the worst; who is among the
    best 1 / `eta` has less than that.

    Neighbours are ranked by non-domination, those of one front by what they alone add to its hypervolume.
    """
    points = losses(accuracy, throughput)
    order = np.argsort(points[:, 1], kind="stable")
    width = min(len(points), _NEIGHBOURS * eta + 1)
    ranks = np.ones(len(points))
    if len(points) < eta:
        return ranks
    for place, index in enumerate(order):
        start = min(max(0, place - width // 2), len(points) - width)
        near = order[start : start + width]
        ranks[index] = places(points[near])[place - start] / width
    return ranks


def places(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """The place of each point of `losses`, 0 is the best: front by front, there by what would be lost without it."""
    layer, left, depth = np.zeros(len(points), int), np.arange(len(points)), 0
    while len(left):
        best = non_dominated(points[left])
        layer[left[best]] = depth
        left, depth = left[~best], depth + 1
    added = np.zeros(len(points))
    # Nothing right, and half the speed of the slowest: of a front of neighbours the most accurate add most.
    corner = np.array([1.0 + _LEAST, points[:, 1].max() + np.log(2)])
    for one in range(depth):
        members = np.flatnonzero(layer == one)
        whole = hypervolume(points[members], corner)
        added[members] = [whole - hypervolume(np.delete(points[members], k, 0), corner) for k in range(len(members))]
    return np.lexsort((-added, layer)).argsort()
