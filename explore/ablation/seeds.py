"""How often an ablation may look at its seeds, and how sure it has to be each time, so that looking costs nothing.

Whoever adds seeds until a test at 5 % says yes is told a difference that is not there far more often than in 5 % of
cases. Here all looks together do so in 5 %: after each, `error · (seeds / most)³` of it is spent. This is the power
family of Kim and DeMets (1987), "Design and analysis of group sequential tests based on the type I error spending rate
function", in the way of Lan and DeMets (1983), "Discrete sequential boundaries for clinical trials".
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import ceil, sqrt

import numpy as np
from scipy.special import stdtr, stdtrit

_GROWTH, _LAST = 1.5, 1.25
_POWER = 3
_PATHS = 400_000
_SURE = 3  # standard errors of the simulation


def looks(first: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds after which to look: grow by half from `first`, and end at `most`."""
    found = [first]
    # One that is nearly at the end would cost a share of the error and save next to nothing.
    while (seeds := ceil(_GROWTH * found[-1])) * _LAST < most:
        found.append(seeds)
    return (*found, most) if most > first else (first,)


@lru_cache
def levels(looks: tuple[int, ...], error: float) -> tuple[float, ...]:
    """Levels of the two-sided t-test of pairs at each look; some look is a false alarm with probability `error`.

    Without a difference the t statistics of a sample that grows do not depend on its mean and variance, so that their
    joint distribution is simulated once, always with the same random numbers. The first and an only look are exact. The
    last leaves a little of the error unspent: what the simulation may be wrong by, so that it is never more.
    """
    spent = [error * (seeds / looks[-1]) ** _POWER for seeds in looks]
    found = [spent[0]]
    if len(looks) == 1:
        return tuple(found)
    spent[-1] = max(spent[-2], error - _SURE * sqrt(error * (1 - error) / _PATHS))
    paths = _statistics(looks)
    quiet = paths[0] < -stdtrit(looks[0] - 1, spent[0] / 2)
    for seeds, path, (before, now) in zip(looks[1:], paths[1:], pairwise(spent), strict=True):
        critical = np.quantile(path[quiet], 1 - (now - before) / (1 - before))
        quiet &= path < critical
        found.append(float(2 * stdtr(seeds - 1, -critical)))
    return tuple(found)


def level(seeds: int, looks: Sequence[int], error: float) -> float:
    """The level after a number of seeds: that of the last look reached, before the first one that of the first.

    A report between two looks is thus more careful than the next look, and decides nothing.
    """
    reached = sum(look <= seeds for look in looks)
    return levels(tuple(looks), error)[max(reached, 1) - 1]


def _statistics(looks: Sequence[int]) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """|t| at each look, a value per path; of the seeds between two looks sum and squares are drawn at once."""
    random = np.random.default_rng(0)
    total, squares, found = np.zeros(_PATHS), np.zeros(_PATHS), []
    for before, seeds in pairwise((0, *looks)):
        new = seeds - before
        added = random.normal(scale=new**0.5, size=_PATHS)
        total += added
        squares += added**2 / new
        if new > 1:
            squares += random.chisquare(new - 1, _PATHS)
        variance = (squares - total**2 / seeds) / (seeds - 1)
        found.append(np.abs(total) / np.sqrt(seeds * variance))
    return found
