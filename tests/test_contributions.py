"""What a mixing is worth: the hypervolume lost without it, as the front's own hypervolume says, with honest ends."""

import numpy as np
import pytest
from filled_studies import add, new_study
from hypothesis import given
from hypothesis import strategies as st

from explore.reporting.contributions import LEAST_TRIALS, Contribution, contributions, contributions_section, volumes
from explore.reporting.progress import front_hypervolume
from explore.search.study import Study
from explore.search.trial import Trial

POINTS = st.lists(st.tuples(st.floats(0.01, 1), st.floats(1, 1e6)), min_size=2, max_size=12)


def study_of(points: list[tuple[float, float, str]]) -> list[Trial]:
    study: Study = new_study()
    for accuracy, speed, mixing in points:
        add(study, accuracy, speed, values={"token_mixing": mixing, "channel_mixing": "mlp"})
    return study.trials()


def by_level(found: list[Contribution]) -> dict[str, Contribution]:
    return {one.level: one for one in found}


@given(points=POINTS)
def test_the_volume_of_all_trials_is_that_of_the_front(points: list[tuple[float, float]]) -> None:
    ordered = sorted(points, key=lambda point: -point[1])
    accuracy, speed = np.array([a for a, _ in ordered]), np.log([s for _, s in ordered])
    found = volumes(accuracy, speed, np.ones((1, len(points)), dtype=bool))[0]
    assert found == pytest.approx(front_hypervolume(study_of([(a, s, "mlp") for a, s in points])), abs=1e-9)


def test_who_makes_the_front_alone_is_worth_more_than_who_follows() -> None:
    generator = np.random.default_rng(0)
    speeds = np.geomspace(1e3, 1e5, 30)
    fast = [(0.90 + 0.02 * generator.random(), speed, "pooling") for speed in speeds]
    slow = [(0.95 + 0.02 * generator.random(), 0.2 * speed, "attention") for speed in speeds]
    behind = [(0.60, 0.9 * speed, "mlp") for speed in speeds]
    found = by_level(contributions(study_of([*fast, *slow, *behind])))
    assert (found["mlp"].lost, found["mlp"].low) == (0, 0)
    assert found["mlp"].high < 0.05 < found["pooling"].low
    assert found["mlp"].fastest is None
    assert 0 < found["pooling"].low <= found["pooling"].lost <= found["pooling"].high
    assert found["pooling"].fastest == pytest.approx(1e5)
    assert 200 <= (found["attention"].slowest or 0) < (found["attention"].fastest or 0) <= 2e4
    assert found["attention"].trials == 30


def test_a_page_says_it() -> None:
    points = [(0.9, 1000.0 + index, "mlp" if index % 2 else "s2") for index in range(LEAST_TRIALS)]
    section = contributions_section(study_of(points))
    assert section
    assert section.table
    assert list(section.table.columns[0].texts) == ["token mixing mlp", "token mixing s2"]
    assert contributions_section([]) is None


def test_a_page_says_why_it_says_nothing_yet() -> None:
    few = contributions_section(study_of([(0.9, 1000.0, "mlp"), (0.8, 2000.0, "s2")]))
    assert few
    assert few.table is None
    assert few.words == f"That needs {LEAST_TRIALS} complete trials with different mixings; there are 2."
    assert contributions_section(study_of([(0.9, 1000.0, "mlp"), (0.8, 2000.0, "mlp")])) is None


def test_few_trials_and_single_levels_say_nothing() -> None:
    points = [(0.9, 1000.0 + index, "mlp" if index % 2 else "s2") for index in range(LEAST_TRIALS)]
    assert contributions(study_of(points[1:])) == []
    assert {one.factor for one in contributions(study_of(points))} == {"token_mixing"}
