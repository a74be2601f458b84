"""What a series of timed blocks says: the median, how well it is known, and whether it differs from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import bdtrik

BOUNDED = 6  # values are the fewest with a 95 % interval of their median, which is then their whole range
_FEWEST = 8  # values before which nothing has settled


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images per second: median over the blocks, ends of its 95 % interval, and whether that is as narrow as asked."""

    images_per_second: float
    low: float
    high: float
    settled: bool

    @classmethod
    def of(cls, seconds: Sequence[float], batch_size: int, interval: float) -> Self:
        """The speed of passes of `batch_size` images that took so many seconds, one value for each block."""
        low, median, high = median_interval([batch_size / one for one in seconds])
        return cls(images_per_second=median, low=low, high=high, settled=settled(seconds, interval))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median between the ends of its 95 % interval, from the order of the values alone (Conover, 1999, §3.2).

    Of fewer than six values there is no such interval; then it reaches from the lowest to the highest.
    """
    ordered = np.sort(np.asarray(values, float))
    count = len(ordered)
    rank = max(0, int(bdtrik(0.025, count, 0.5))) if count >= BOUNDED else 0
    return float(ordered[rank]), float(np.median(ordered)), float(ordered[count - 1 - rank])


def settled(values: Sequence[float], interval: float) -> bool:
    """Whether the 95 % interval of the median is within that fraction of it, to each side."""
    if len(values) < _FEWEST:
        return False
    low, median, high = median_interval(values)
    return max(high - median, median - low) <= interval * median


def alike(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two series that belong together turn by turn cannot be told apart.

    That is so when the 95 % interval of the median of their ratios has 1 in it, and always of fewer than six turns,
    which have no such interval.
    """
    if len(first) < BOUNDED:
        return True
    low, _, high = median_interval([one / other for one, other in zip(first, second, strict=True)])
    return low <= 1 <= high
