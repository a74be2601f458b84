"""The front is what comparing every pair finds, and the hypervolume is the number of unit squares that it dominates;
neither depends on the order of the points, on repeats or on points that do not matter."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explore.search.front import GrowingFront, best_layers, hypervolume, losses, non_dominated

SIDE = 7
Point = tuple[int, int]
grids = st.lists(st.tuples(st.integers(0, SIDE), st.integers(0, SIDE)), max_size=12)


def dominated(point: Point, other: Point) -> bool:
    return other[0] <= point[0] and other[1] <= point[1] and other != point


@given(grids)
def test_the_front_is_what_nobody_dominates(points: list[Point]) -> None:
    expected = [not any(dominated(point, other) for other in points) for point in points]
    assert non_dominated(points).tolist() == expected


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20), st.randoms())
def test_order_and_repeats_do_not_change_the_front(points: list[tuple[float, float]], random) -> None:
    front = {point for point, best in zip(points, non_dominated(points), strict=True) if best}
    shuffled = points + random.choices(points, k=3)
    random.shuffle(shuffled)
    assert {point for point, best in zip(shuffled, non_dominated(shuffled), strict=True) if best} == front
    assert all(best == (point in front) for point, best in zip(shuffled, non_dominated(shuffled), strict=True))


@given(grids, st.integers(0, 12))
def test_nobody_is_left_out_who_is_better_than_one_of_the_best_layers(points: list[Point], most: int) -> None:
    chosen = best_layers(points, most)
    assert len(chosen) == len(set(chosen)) == min(most, len(points))
    left = set(range(len(points))).difference(chosen)
    assert not any(dominated(points[one], points[other]) for one in chosen for other in left)


@given(grids)
def test_hypervolume_counts_the_dominated_squares(points: list[Point]) -> None:
    corners = itertools.product(range(SIDE), repeat=2)
    expected = sum(any(x <= left and y <= low for x, y in points) for left, low in corners)
    assert hypervolume(points, (SIDE, SIDE)) == expected


@given(grids, st.tuples(st.integers(0, SIDE), st.integers(0, SIDE)))
def test_a_front_that_grows_has_the_hypervolume_of_one_made_at_once(points: list[Point], corner: Point) -> None:
    growing = GrowingFront(corner)
    for count, point in enumerate(points, start=1):
        growing.add(*point)
        assert growing.hypervolume == hypervolume(points[:count], corner)


@given(grids, st.randoms())
def test_hypervolume_ignores_order_repeats_and_dominated_points(points: list[Point], random) -> None:
    area = hypervolume(points, (SIDE, SIDE))
    worse = [(x + random.randint(0, 3), y + random.randint(0, 3)) for x, y in points]
    more = [*points, *points, *worse]
    random.shuffle(more)
    assert hypervolume(more, (SIDE, SIDE)) == area


@given(grids, st.tuples(st.integers(-2, SIDE), st.integers(-2, SIDE)))
def test_hypervolume_never_shrinks_and_grows_with_every_new_member(points: list[Point], new: Point) -> None:
    before, after = hypervolume(points, (SIDE, SIDE)), hypervolume([*points, new], (SIDE, SIDE))
    beaten = any(other == new or dominated(new, other) for other in points)
    inside = new[0] < SIDE and new[1] < SIDE
    assert after > before if inside and not beaten else after == before


def test_no_points_have_no_front_and_no_area() -> None:
    assert non_dominated([]).tolist() == []
    assert hypervolume([], (1, 1)) == 0
    assert losses([], []).shape == (0, 2)


def test_losses_are_the_error_and_the_logarithm_of_speed() -> None:
    values = losses([0.9, 0.5], [100, 1000])
    assert values[:, 0] == pytest.approx([0.1, 0.5])
    assert values[0, 1] - values[1, 1] == pytest.approx(np.log(10))
    assert non_dominated(values).all()


def test_more_accuracy_at_the_same_speed_dominates() -> None:
    assert non_dominated(losses([0.9, 0.8, 0.9], [10, 10, 20])).tolist() == [False, False, True]
