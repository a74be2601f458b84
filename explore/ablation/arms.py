"""The arms of an ablation: every combination of its factors, each made to cost as much as the first."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from explore.search.space import Values

_STEPS = 256  # into which the value that the first arm has is divided, where it is not whole
LARGEST = 2**20
_FARTHEST = 4.0  # times more or less than what was tried before
_USUAL = 1.5  # the power of the free dimension that costs are thought to grow with at first


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One combination of levels, and the value of the free dimension at which it costs as much as the first.

    `cost` is that of what is matched, `residual` by how much it differs from the first arm's, as a fraction of it.
    All three are None where nothing is matched.
    """

    name: str
    levels: Mapping[str, Any]
    free: int | float | None = None
    cost: float | None = None
    residual: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote."""
        return cls(**record)

    def values(self, by: str) -> Values:
        """What this arm sets, its value of the free dimension `by` included."""
        return {**self.levels, **({} if self.free is None else {by: self.free})}


def arm_name(levels: Mapping[str, Any]) -> str:
    """How people call a combination: `s2 + swiglu`, `attention (heads 2) + mlp`, `patch size 7 + depth 4`."""
    words: dict[str, str] = {}
    for key, value in levels.items():
        group, _, option = key.rpartition(".")
        if group in words:  # an option of the variant that was named before
            words[group] += f" ({option.replace('_', ' ')} {value})"
        else:
            words[key] = f"{option.replace('_', ' ')} {value}" if group else str(value)
    return " + ".join(words.values())


@dataclass(frozen=True)
class Solution:
    """A value of the free dimension, and what that costs."""

    value: int | float
    cost: float


def solve(
    cost_of: Callable[[int | float], float],
    start: int | float,
    target: float,
    tolerance: float,
    *,
    near_enough: float,
    most: int,
) -> Solution:
    """The value at which a cost that grows with it comes nearest to a target.

    Whole numbers are tried where `start` is one, and otherwise multiples of a small part of it, at most so many.
    `cost_of` raises ValueError for a value that breaks a rule. `tolerance` and `near_enough`, at which nothing else is
    tried, are fractions of the target.

    Raises ValueError with the nearest on both sides where none lies within the tolerance.
    """
    step = 1 if isinstance(start, int) else start / _STEPS

    def value(place: int) -> int | float:
        return place if isinstance(start, int) else float(f"{place * step:.5g}")

    known: dict[int, float] = {}
    refused: dict[int, ValueError] = {}
    place: int | None = round(start / step)
    while place is not None and len(known) + len(refused) < most:
        try:
            known[place] = cost_of(value(place))
        except ValueError as error:
            refused[place] = error
        if known and _distance(known, target) <= near_enough:
            break
        halving = len(known) > 5 and len(known) % 2 == 0  # guesses alone may creep along steps of a cost
        guess = _middle(known, target) if halving else _guess(known, target, place)
        place = _untried(guess, known, {*known, *refused}, target)
    if not known:
        raise next(iter(refused.values()))
    if _distance(known, target) > tolerance:
        sides = [place for place in (_below(known, target), _above(known, target)) if place in known]
        near = [f"{value(place):g} ({known[place] / target - 1:+.1%})" for place in sides]
        raise ValueError(f"the nearest {'is' if len(near) == 1 else 'are'} {' and '.join(near)}")
    best = min(known, key=lambda place: abs(known[place] / target - 1))
    return Solution(value(best), known[best])


def _distance(known: Mapping[int, float], target: float) -> float:
    return min(abs(cost / target - 1) for cost in known.values())


def _below(known: Mapping[int, float], target: float) -> int:
    """The largest place that costs no more than the target, or 0."""
    return max((place for place, cost in known.items() if cost <= target), default=0)


def _above(known: Mapping[int, float], target: float) -> int:
    """The smallest place that costs more than the target, or one beyond all."""
    return min((place for place, cost in known.items() if cost > target), default=LARGEST)


def _middle(known: Mapping[int, float], target: float) -> int:
    """Half-way, by ratio, between the nearest places below and above the target; far out where one is missing."""
    low, high = _below(known, target), _above(known, target)
    if high == LARGEST:
        return round(low * _FARTHEST)
    return round(math.sqrt(max(low, 1) * high)) if low else round(high / _FARTHEST)


def _guess(known: Mapping[int, float], target: float, last: int) -> int:
    """Where the target is met if the cost is a power of the place, by the two nearest that are known."""
    if not known:
        return last
    near = sorted(known, key=lambda place: abs(math.log(known[place] / target)))[:2]
    low, high = min(near), max(near)
    slope = _USUAL
    if known[low] < known[high]:
        slope = math.log(known[high] / known[low]) / math.log(high / low)
    factor = math.pow(target / known[near[0]], 1 / slope)
    return max(1, round(near[0] * min(max(factor, 1 / _FARTHEST), _FARTHEST)))


def _untried(guess: int, known: Mapping[int, float], tried: Collection[int], target: float) -> int | None:
    """The place nearest to a guess that was not tried and may yet be better; None where there is none."""
    low, high = _below(known, target), _above(known, target)
    inside = min(max(guess, low + 1), high - 1)
    for distance in range(high - low):
        for place in (inside + distance, inside - distance):
            if low < place < high and place not in tried:
                return place
    return None
