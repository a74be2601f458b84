"""Medians have the interval that order statistics give them, series are told apart only where they differ, and blocks
are taken in turn with the reference.

python -m pytest tests/test_timing.py
"""

import itertools
from collections.abc import Callable
from math import comb, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explore.cost.speed import Speed, alike, median_interval, settled
from explore.cost.timing import Blocks, by_clock, ratios_in_turn, seconds_in_turn

speeds = st.floats(0.1, 10)


def binomial(least: int, count: int) -> float:
    """The chance of fewer than `least` heads in `count` throws of a coin."""
    return sum(comb(count, heads) for heads in range(least)) / 2**count


@given(st.lists(speeds, min_size=1, max_size=60))
def test_the_interval_is_the_narrowest_that_covers_the_median_in_95_of_100_cases(values: list[float]) -> None:
    low, median, high = median_interval(values)
    ordered = sorted(values)
    ranks = [rank for rank in range(len(values) // 2) if binomial(rank + 1, len(values)) <= 0.025]
    rank = max(ranks, default=0)
    assert (low, high) == (ordered[rank], ordered[-1 - rank])
    assert median == pytest.approx(np.median(values))
    assert low <= median <= high


def test_intervals_cover_the_true_median_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    series = generator.lognormal(0.0, 0.3, size=(1000, 25))
    ends = [median_interval(one.tolist()) for one in series]
    assert 0.93 < np.mean([low <= 1 <= high for low, _, high in ends]) < 0.98


@given(st.lists(speeds, min_size=1, max_size=40), st.floats(0.5, 2))
def test_speed_is_that_of_the_median_block(seconds: list[float], factor: float) -> None:
    speed = Speed.of(seconds, 10, 0.02)
    slower = Speed.of([factor * one for one in seconds], 10, 0.02)
    assert speed.images_per_second == pytest.approx(float(np.median([10 / one for one in seconds])))
    assert slower.images_per_second * factor == pytest.approx(speed.images_per_second)


def test_few_blocks_never_settle_and_equal_ones_do() -> None:
    assert not settled([1.0] * 7, 0.02)
    assert settled([1.0] * 8, 0.02)
    assert not settled([1.0, 1.05] * 20, 0.02)
    assert settled([1.0, 1.05] * 20, 0.06)


def test_series_are_told_apart_by_their_turns() -> None:
    generator = np.random.default_rng(0)
    machine = generator.lognormal(0.0, 0.5, 40)  # slows both down alike
    noise = generator.lognormal(0.0, 0.02, (2, 40))
    first, second = (machine * noise).tolist()
    assert alike(first, second)
    assert not alike(first, [1.03 * one for one in second])
    assert not alike([1.03 * one for one in first], second)


@pytest.mark.parametrize("turns", range(1, 6))
def test_too_few_turns_tell_nothing_apart(turns: int) -> None:
    assert alike([1.0] * turns, [9.0] * turns)
    assert not alike([1.0] * 6, [9.0] * 6)


class Clock:
    """Passes move it by their seconds, and write their names down."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, ""

    def __call__(self) -> float:
        return self.now

    def passing(self, name: str, *seconds: float) -> Callable[[], None]:
        durations = itertools.cycle(seconds)

        def one() -> None:
            self.order += name
            self.now += next(durations)

        return one

    def blocks(self, name: str, *seconds: float, block_seconds: float = 0.02) -> Blocks:
        return Blocks(self.passing(name, *seconds), by_clock(self), block_seconds)


def test_the_slow_first_pass_does_not_decide_how_long_a_block_is() -> None:
    clock = Clock()
    blocks = clock.blocks("a", *[9.0, *[0.004] * 99])
    blocks.warm_up(2, clock, inf)
    assert len(clock.order) == 1 + 1 + 6
    assert blocks.block() == pytest.approx(0.004)
    assert len(clock.order) == 8 + 6
    blocks.block(at_least=0.08)
    assert len(clock.order) == 14 + 21


def test_nor_does_it_without_blocks_to_warm_up() -> None:
    clock = Clock()
    blocks = clock.blocks("a", *[9.0, *[0.004] * 99])
    blocks.warm_up(0, clock, inf)
    assert len(clock.order) == 2
    blocks.block()
    assert len(clock.order) == 2 + 6


def test_a_block_counts_no_pass_that_finds_the_caches_of_others() -> None:
    clock = Clock()
    blocks = clock.blocks("a", 0.03, *[0.004] * 5)
    blocks.seconds = 0.004
    assert [blocks.block() for _ in range(3)] == pytest.approx([0.004] * 3)
    long = clock.blocks("b", 0.1, block_seconds=0.02)
    long.seconds = 0.1
    clock.order = ""
    assert long.block() == pytest.approx(0.1)
    assert clock.order == "b", "to a long pass they make no difference, and it would cost as much again"


@pytest.mark.parametrize(("blocks", "order"), [(9, "aaa"), (0, "aa")])
def test_warming_up_ends_in_time(blocks: int, order: str) -> None:
    clock = Clock()
    clock.blocks("a", 1.0).warm_up(blocks, clock, until=3.0)
    assert clock.order == order
    slow = Clock()
    slow.blocks("a", 9.0).warm_up(blocks, slow, until=3.0)
    assert slow.order == "a"


def test_passes_and_the_reference_are_taken_in_turn() -> None:
    clock = Clock()
    passes = {"a": clock.blocks("a", 0.01), "b": clock.blocks("b", 0.12)}
    reference = clock.blocks("r", 0.02)
    for one in (*passes.values(), reference):
        one.warm_up(1, clock, inf)
    clock.order = ""
    ratios = ratios_in_turn(passes, reference, lambda so_far: len(so_far["a"]) < 2)
    # Beside the long pass a block of the reference is longer too: half as long.
    assert clock.order == "r" + "aaar" + "brrrr" + "aaar" + "brrrr"
    assert ratios == {"a": pytest.approx([0.5, 0.5]), "b": pytest.approx([6, 6])}


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=9))
def test_what_slows_all_alike_cancels(moods: list[float]) -> None:
    """The mood of the machine stays for a whole turn of three blocks."""
    clock = Clock()
    paces = [mood for mood in moods for _ in range(4)]
    reference = clock.blocks("r", *[0.02 * pace for pace in paces[::2]])
    subject = clock.blocks("a", *[0.01 * pace for pace in paces[1::2]], block_seconds=1e-9)
    reference.block_seconds = 1e-9
    for one in (subject, reference):
        one.seconds = 1.0
    turns = len(paces) // 2
    ratios = ratios_in_turn({"a": subject}, reference, lambda so_far: len(so_far["a"]) < turns)["a"]
    assert float(np.median(ratios[::2])) == pytest.approx(0.5)


def test_blocks_without_a_reference_are_taken_in_turn() -> None:
    clock = Clock()
    passes = {"a": clock.blocks("a", 0.01), "b": clock.blocks("b", 0.02)}
    for one in passes.values():
        one.warm_up(1, clock, inf)
    clock.order = ""
    assert seconds_in_turn(passes, 2) == {"a": pytest.approx([0.01, 0.01]), "b": pytest.approx([0.02, 0.02])}
    assert clock.order == "aaab" * 2
