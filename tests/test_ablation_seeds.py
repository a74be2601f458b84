"""Looking at the seeds again and again costs nothing: all looks together are a false alarm as often as was allowed, and
a level is that of the last look that was reached."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from explore.ablation.seeds import level, levels, looks


@pytest.mark.parametrize(
    ("first", "most", "expected"),
    [
        (5, 20, (5, 8, 12, 20)),
        (5, 5, (5,)),
        (5, 6, (5, 6)),
        (2, 3, (2, 3)),
        (2, 4, (2, 3, 4)),
        (10, 40, (10, 15, 23, 40)),
    ],
)
def test_looks_grow_by_half_and_end_at_the_last_seed(first: int, most: int, expected: tuple[int, ...]) -> None:
    assert looks(first, most) == expected


@given(first=st.integers(2, 50), more=st.integers(0, 500))
def test_looks_are_few_and_far_apart(first: int, more: int) -> None:
    found = looks(first, first + more)
    assert (found[0], found[-1]) == (first, first + more)
    growth = np.array(found[1:]) / np.array(found[:-1])
    assert (growth[:-1] >= 1.5).all()
    assert (growth > 1).all()
    assert (growth <= 2).all()


@given(seeds=st.integers(2, 50), error=st.floats(0.001, 0.3))
def test_one_look_has_all_of_the_error(seeds: int, error: float) -> None:
    assert levels((seeds,), error) == (error,)


@settings(max_examples=5, deadline=None)
@given(first=st.integers(2, 8), more=st.integers(1, 40), error=st.sampled_from([0.01, 0.05, 0.1]))
def test_levels_grow_and_stay_below_the_error(first: int, more: int, error: float) -> None:
    found = levels(looks(first, first + more), error)
    assert found[0] == pytest.approx(error * (first / (first + more)) ** 3)
    assert (np.diff(found) > 0).all()
    assert found[-1] < error
    assert sum(found) > 0.95 * error, "less than that is not left unspent"


@pytest.mark.parametrize(("planned", "error"), [((5, 8, 12, 20), 0.05), ((2, 3, 5, 8), 0.1), ((5, 6), 0.05)])
def test_all_looks_together_are_a_false_alarm_as_often_as_allowed(planned: tuple[int, ...], error: float) -> None:
    paths = 20_000
    differences = np.random.default_rng(7).normal(size=(paths, planned[-1]))
    alarm, naive = np.zeros(paths, bool), np.zeros(paths, bool)
    for seeds, allowed in zip(planned, levels(planned, error), strict=True):
        p = stats.ttest_1samp(differences[:, :seeds], 0, axis=1).pvalue
        alarm |= p <= allowed
        naive |= p <= error
    spread = (error * (1 - error) / paths) ** 0.5
    assert alarm.mean() == pytest.approx(error, abs=3.5 * spread)
    assert naive.mean() > error + 3.5 * spread, "otherwise there was nothing to mend"


def test_the_first_look_is_exact_and_the_same_every_time() -> None:
    first = levels((5, 8, 12, 20), 0.05)
    levels.cache_clear()
    assert levels((5, 8, 12, 20), 0.05) == first
    assert first[0] == 0.05 / 64


def test_a_share_that_is_too_small_to_be_simulated_is_not_spent() -> None:
    first, last = levels((49, 50), 0.0001)
    assert 0 < last < first < 0.0001


def test_between_two_looks_the_level_is_that_of_the_last_one() -> None:
    planned = (5, 8, 12, 20)
    found = levels(planned, 0.05)
    expected = {2: 0, 5: 0, 7: 0, 8: 1, 11: 1, 12: 2, 19: 2, 20: 3, 25: 3}
    assert {seeds: found.index(level(seeds, planned, 0.05)) for seeds in expected} == expected
