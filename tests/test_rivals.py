"""Rivals are the front and those that a small error of speed may have kept from it, and a comparison decides.

python -m pytest tests/test_rivals.py
"""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from filled_studies import TEMPLATE, add, fabricated, new_study, searched
from hypothesis import given
from hypothesis import strategies as st

from explore.cost.speed import Speed
from explore.evaluation import FAILED, Evaluation
from explore.search.rivals import Compared, decided, results, rivals, with_speeds
from explore.search.trial import front

points = st.lists(st.tuples(st.integers(0, 50).map(lambda part: part / 50), st.floats(1, 1e6)), max_size=25)


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


def compared(speed: float, *alike: int, settled: bool = True) -> Compared:
    return Compared(
        speed=Speed(images_per_second=speed, low=0.99 * speed, high=1.01 * speed, settled=settled), alike=alike
    )


def test_a_comparison_may_bring_a_neighbour_to_the_front() -> None:
    trials = fabricated([(0.9, 1000.0), (0.9, 980.0), (0.95, 500.0), (0.5, 600.0)])
    assert numbers(front(trials)) == [0, 2]
    assert numbers(rivals(trials)) == [0, 2, 1]
    final = with_speeds(trials, {0: compared(990.0, 1), 1: compared(1005.0, 0), 2: compared(500.0)})
    assert numbers(front(final)) == [1, 2]
    assert [one.throughput for one in final] == [990.0, 1005.0, 500.0, 600.0]
    assert [one.alike for one in final] == [(1,), (0,), (), ()]
    assert [one.throughput for one in trials] == [1000.0, 980.0, 500.0, 600.0]


def test_what_is_shown_as_settled_is_the_figure_of_the_comparison() -> None:
    study = new_study()
    for place, settled in enumerate((False, True, False)):
        add(study, 0.9 + place / 100, 1000.0 - place, settled=settled)
    final = with_speeds(study.trials(), {0: compared(990.0), 1: compared(980.0, settled=False)})
    assert [one.settled for one in final] == [True, False, False]
    steady, restless = [1.0] * 8, [1.0, 1.5] * 4
    found = decided({0: steady, 1: restless}, {0: 1, 1: 1}, 0.02)
    assert [one.settled for one in with_speeds(study.trials(), found)] == [True, False, False]


def test_comparisons_survive_json() -> None:
    assert Compared.read(json.loads(json.dumps(asdict(compared(5.0, 1, 2))))) == compared(5.0, 1, 2)


def test_a_comparison_decides_between_series_of_turns() -> None:
    generator = np.random.default_rng(0)
    machine, noise = generator.lognormal(0.0, 0.3, 30), generator.lognormal(0.0, 0.01, (3, 30))
    # The third takes passes of twice as many images.
    seconds = {4: machine * noise[0], 5: machine * noise[1], 6: 2 * 1.1 * machine * noise[2]}
    found = decided({number: one.tolist() for number, one in seconds.items()}, {4: 10, 5: 10, 6: 20}, 0.02)
    assert [one.alike for one in found.values()] == [(5,), (4,), ()]
    speeds = [one.speed.images_per_second for one in found.values()]
    assert speeds[0] / speeds[2] == pytest.approx(1.1, rel=0.02)
    assert speeds[0] == pytest.approx(10 / np.median(seconds[4]), rel=1e-3)


def test_a_study_shows_the_speeds_of_its_last_comparison() -> None:
    study = searched(4)
    assert results(study) == study.trials()
    study.note("speeds", {"1": asdict(compared(7.0, 2))})
    assert [one.throughput == 7.0 for one in results(study)] == [False, True, False, False]
    assert results(study)[1].alike == (2,)
