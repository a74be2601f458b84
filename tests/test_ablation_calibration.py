"""The calibration replays ablations as they are run: they end when they are settled, and a false alarm is counted as
one."""

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.ablation_calibration import LOOKS, coverage, false_alarms, judged, of_pool, power, real, simulated
from benchmarks.ablation_replay import DESIGNS, EVER, HELPED, OPTIONS, crossed, replay
from explore.ablation.records import Findings
from explore.ablation.statistics import analyse

NUMBER = 8
SAME = of_pool(np.full(240, 0.9))
RUNS = of_pool(np.round(np.random.default_rng(0).normal(0.9, 0.015, 240), 3))


def one_by_one(table: np.ndarray, design: str) -> Sequence[Findings]:
    """What an ablation finds at each of its looks."""
    found = []
    for seeds in LOOKS:
        known = crossed(DESIGNS[design], table[:seeds])
        found.append(analyse(known, looks=LOOKS, error=OPTIONS.error, margin=OPTIONS.margin))
        if found[-1].settled:
            break
    return found


@pytest.mark.parametrize(
    ("design", "difference"), [("5 × 2", 0.0), ("5 × 2", 0.02), ("2 arms", 0.01), ("2 arms", 0.03)]
)
def test_many_ablations_at_once_find_what_each_finds_alone(design: str, difference: float) -> None:
    factors = DESIGNS[design]
    arms = list(crossed(factors, np.empty((0, 10 if design == "5 × 2" else 2))).arms.values())
    tables = RUNS(np.random.default_rng(1), (NUMBER, LOOKS[-1], len(arms)))
    added = difference * np.array([HELPED in levels.values() for levels in arms])
    rows = replay(tables, factors, LOOKS, difference, bootstrapped=NUMBER).to_dict("records")
    for table, row in zip(tables + added, rows, strict=True):
        looked = one_by_one(table, design)
        last = looked[-1]
        assert row["seeds"] == last.seeds
        assert (row["stated, t"], row["stated, bootstrap"]) == (1 - last.level, 1 - last.bootstrap_level)
        assert row["helped"] == any(one.different for one in last.levels if one.name == HELPED)
        assert row["arms after Holm"] == any(one.different for one in last.arms)
        assert row[EVER + "arms after Holm"] == any(one.different for each in looked for one in each.arms)
        assert row["one difference of levels"] == np.mean([one.p <= last.level for one in last.levels])
        if design == "5 × 2":
            assert row["interaction"] == (last.effects[-1].p <= last.level)
        truths = [difference * (one.name == HELPED) for one in last.levels]
        ends = {"t": ("low", "high"), "bootstrap": ("bootstrap_low", "bootstrap_high")}
        for kind, (low, high) in ends.items():
            hits = [
                getattr(one, low) <= true <= getattr(one, high) for one, true in zip(last.levels, truths, strict=True)
            ]
            assert row[f"reported, {kind}"] == np.mean(hits)


def test_an_ablation_ends_as_soon_as_it_is_settled() -> None:
    assert set(simulated(SAME, DESIGNS["5 × 2"], 3)["seeds"]) == {5}
    assert set(simulated(RUNS, DESIGNS["5 × 2"], 3)["seeds"]) == {20}


def test_real_ablations_share_no_run() -> None:
    seeds, found = real(np.arange(240.0))
    assert (seeds, len(found), set(found["seeds"])) == (6, 20, {5})
    assert set(found["helped"]) == {1.0}, "the arms took turns, so that the second is always better by one"


def test_an_alarm_without_a_difference_is_a_false_one() -> None:
    quiet = {row["name"]: row for row in false_alarms("quiet", simulated(SAME, DESIGNS["5 × 2"], 3))}
    assert len(quiet) == 6, "five kinds of alarm, and one line for any look"
    assert {row["value"] for row in quiet.values()} == {0.0}
    told = false_alarms("told", simulated(RUNS, DESIGNS["2 arms"], 5, difference=0.2))
    assert {(row["value"], row["holds"]) for row in told if row["bar"]} == {(100.0, False)}


def test_a_true_difference_is_told_early_and_covered() -> None:
    found = simulated(RUNS, DESIGNS["2 arms"], 40, difference=0.05)
    told, seeds = power("better", found)
    assert told["value"] == 100
    assert 5 <= seeds["value"] < 12
    level, reported, *_ = coverage("better", found, 0.05)
    assert 97 < level["value"] < 100
    assert reported["value"] >= 95


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
