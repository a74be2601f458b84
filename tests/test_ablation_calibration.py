"""The calibration replays ablations as they are run: they end when they are settled, and a false alarm is counted as
one."""

import numpy as np
import pytest

from benchmarks.ablation_calibration import (
    DESIGNS,
    LOOKS,
    coverage,
    crossed,
    false_alarms,
    judged,
    power,
    real,
    run,
    simulated,
)

SAME = np.full(240, 0.9)
RUNS = np.random.default_rng(0).normal(0.9, 0.015, 240)


def test_an_ablation_ends_as_soon_as_it_is_settled() -> None:
    equal = run(crossed(DESIGNS["5 × 2"], np.full((20, 10), 0.9)), LOOKS)
    assert [one.seeds for one in equal.looks] == [5]
    assert (equal.last.level, equal.plain.level) == (0.05 / 64, 0.05)
    noisy = run(crossed(DESIGNS["5 × 2"], np.random.default_rng(0).normal(0.9, 0.02, (20, 10))), LOOKS)
    assert [one.seeds for one in noisy.looks] == list(LOOKS)


def test_real_ablations_share_no_run() -> None:
    numbers = np.arange(240.0)
    found = real(numbers)
    assert len(found) == 20
    assert {one.last.levels[0].mean for one in found} == {1.0}, "the arms took turns"
    assert {one.looks[0].looks for one in found} == {(5, 6)}


def test_an_alarm_without_a_difference_is_a_false_one() -> None:
    quiet = {row["name"]: row for row in false_alarms("quiet", simulated(SAME, DESIGNS["5 × 2"], 3))}
    assert len(quiet) == 6, "five kinds of alarm, and one line for any look"
    assert {row["value"] for row in quiet.values()} == {0.0}
    told = false_alarms("told", simulated(RUNS, DESIGNS["2 arms"], 5, difference=0.2))
    assert {(row["value"], row["holds"]) for row in told if row["bar"]} == {(100.0, False)}


def test_a_true_difference_is_told_early_and_covered() -> None:
    found = simulated(RUNS, DESIGNS["2 arms"], 20, difference=0.05)
    told, seeds = power("better", found)
    assert told["value"] == 100
    assert 5 <= seeds["value"] < 12
    [level, reported, *_] = coverage("better", found, 0.05)
    assert 97 < level["value"] < 100
    assert reported["value"] >= 95
    assert coverage("wrong", found, -0.05)[1]["value"] == 0


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        ({}, (None, None)),
        ({"at_most": 5}, ("at most 5", False)),
        ({"at_least": 5}, ("at least 5", True)),
        ({"between": (93, 97)}, ("93 to 97", False)),
    ],
)
def test_bars_are_judged(bar: dict[str, object], expected: tuple[object, object]) -> None:
    found = judged(97.1, **bar)  # type: ignore[arg-type]
    assert (found["bar"], found["holds"]) == expected
