"""Rivals are the front and those that a small error of speed may have kept from it, and a comparison decides.

python -m pytest tests/test_rivals.py
"""

import json
from dataclasses import asdict, replace

from filled_studies import TEMPLATE, fabricated
from hypothesis import given
from hypothesis import strategies as st

from explore.evaluation import FAILED, Evaluation
from explore.search.rivals import Compared, rivals, with_speeds
from explore.search.study import front

points = st.lists(st.tuples(st.floats(0, 1), st.floats(1, 1e6)), max_size=25)


def numbers(trials: object) -> list[int]:
    return [trial.number for trial in trials]  # type: ignore[attr-defined]


@given(points)
def test_rivals_are_the_front_and_those_that_ten_per_cent_more_speed_would_bring_there(
    found: list[tuple[float, float]],
) -> None:
    trials = fabricated(found)
    members = front(trials)
    expected = set()
    for index, trial in enumerate(trials):
        accuracy, speed = trial.accuracy or 0.0, trial.throughput or 0.0
        others = [(one.accuracy or 0.0, one.throughput or 0.0) for one in members if one.number != index]
        raised = 1.1 * speed
        beaten = any(a >= accuracy and s >= raised and (a, s) != (accuracy, raised) for a, s in others)
        if not beaten:
            expected.add(index)
    chosen = rivals(trials)
    assert set(numbers(chosen)) == expected | set(numbers(members))
    assert numbers(chosen[: len(members)]) == numbers(members)
    assert len(chosen) == len(set(numbers(chosen)))


def test_nobody_competes_where_nothing_is_complete() -> None:
    failed = replace(TEMPLATE, evaluation=Evaluation(status=FAILED))
    assert rivals([]) == rivals([failed]) == []


def compared(speed: float, *alike: int) -> Compared:
    return Compared(images_per_second=speed, low=0.99 * speed, high=1.01 * speed, settled=True, alike=alike)


def test_a_comparison_may_bring_a_neighbour_to_the_front() -> None:
    trials = fabricated([(0.9, 1000.0), (0.9, 980.0), (0.95, 500.0), (0.5, 600.0)])
    assert numbers(front(trials)) == [0, 2]
    assert numbers(rivals(trials)) == [0, 2, 1]
    final = with_speeds(trials, {0: compared(990.0, 1), 1: compared(1005.0, 0), 2: compared(500.0)})
    assert numbers(front(final)) == [1, 2]
    assert [one.throughput for one in final] == [990.0, 1005.0, 500.0, 600.0]
    assert [one.alike for one in final] == [(1,), (0,), (), ()]
    assert [one.throughput for one in trials] == [1000.0, 980.0, 500.0, 600.0]


def test_comparisons_survive_json() -> None:
    assert Compared.read(json.loads(json.dumps(asdict(compared(5.0, 1, 2))))) == compared(5.0, 1, 2)
