"""Error bars over seeds: intervals are Student's, comparisons are paired, and table, picture and page say the same."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from filled_studies import fabricated, searched
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from explore.evaluation import Retraining
from explore.reporting import page, style
from explore.reporting.pictures import front_figure
from explore.reporting.printed import write_front
from explore.reporting.report import write_report
from explore.reporting.tables import front_rows, trial_rows
from explore.search.rivals import results
from explore.search.seeds import NOTE, Estimate, alike, as_accurate_as, over_seeds, over_seeds_in_test
from explore.search.study import Study
from explore.search.trial import Trial

ACCURACY = st.floats(0, 1).map(lambda value: round(value, 3))


def retrained(accuracies: Mapping[int, float], tests: Mapping[int, float] | None = None) -> tuple[Retraining, ...]:
    return tuple(
        Retraining(
            seed=seed,
            accuracy=accuracy,
            test_accuracy=(tests or {}).get(seed),
            epochs=3,
            seconds=2.0,
            command=f"python -m explore.train training.seed={seed}",
        )
        for seed, accuracy in accuracies.items()
    )


def trained(number: int, *accuracies: float, first: int = 1) -> Trial:
    [trial] = fabricated([(0.9, 100.0)])
    return replace(trial, number=number, retrained=retrained(dict(enumerate(accuracies, first))))


def study_with_seeds() -> Study:
    """Of five trials, all on the front, of which the three slowest were trained again."""
    study = searched(5)
    found = {
        "2": retrained({1: 0.87, 2: 0.88, 3: 0.89}, {1: 0.85, 2: 0.86}),
        "3": retrained({1: 0.88, 2: 0.87, 3: 0.90}),
        "4": retrained({1: 0.93, 2: 0.94, 3: 0.95}),
    }
    study.note(NOTE, {number: [asdict(one) for one in each] for number, each in found.items()})
    return study


@given(st.lists(ACCURACY, min_size=2, max_size=12))
def test_intervals_are_those_of_student(values: list[float]) -> None:
    estimate = Estimate.of(values)
    reference = stats.ttest_1samp(values, 0.0).confidence_interval(0.95) if len(set(values)) > 1 else None
    low, high = reference or (values[0], values[0])
    assert (estimate.mean - estimate.half, estimate.mean + estimate.half) == pytest.approx((low, high), abs=1e-9)


@given(st.lists(st.tuples(ACCURACY, ACCURACY), min_size=2, max_size=8))
def test_a_comparison_is_a_paired_one_and_the_same_from_both_sides(pairs: list[tuple[float, float]]) -> None:
    first, second = (trained(number, *values) for number, values in enumerate(zip(*pairs, strict=True)))
    assert alike(first, second) == alike(second, first)
    gaps = [round(one - other, 6) for one, other in pairs]
    if len(set(gaps)) > 1:
        p = stats.ttest_rel(*zip(*pairs, strict=True)).pvalue
        assert alike(first, second) == (p >= 0.05) or p == pytest.approx(0.05)
    assert alike(first, first)


def test_equal_steps_tell_apart_what_intervals_alone_would_not() -> None:
    low, high = trained(0, 0.70, 0.80, 0.90), trained(1, 0.71, 0.811, 0.909)
    means = [over_seeds(one) for one in (low, high)]
    assert all(means)
    assert abs(means[0].mean - means[1].mean) < means[0].half  # type: ignore[union-attr]
    assert not alike(low, high)
    assert as_accurate_as([low, high, trained(2, 0.70, 0.80, 0.91)]) == {0: (2,), 1: (2,), 2: (0, 1)}


def test_without_two_seeds_in_common_nobody_is_told_apart() -> None:
    assert alike(trained(0, 0.1, 0.1, 0.1), trained(1, 0.9, 0.9, 0.9, first=3))
    assert over_seeds(trained(0, 0.5)) is None
    assert over_seeds(fabricated([(0.5, 1.0)])[0]) is None
    assert as_accurate_as(fabricated([(0.5, 1.0)])) == {}


def test_tables_have_means_intervals_and_who_is_alike() -> None:
    trials = results(study_with_seeds())
    rows = front_rows(trials, {}).set_index("trial")
    assert list(rows["seeds"].dropna()) == [3, 3, 3]
    mean, tested = over_seeds(trials[2]), over_seeds_in_test(trials[2])
    assert mean
    assert tested
    assert rows.loc[2, "val_accuracy_mean"] == pytest.approx(0.88)
    assert rows.loc[2, "val_accuracy_ci95"] == mean.half == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert rows.loc[2, "test_accuracy_mean"] == pytest.approx(0.855)
    assert rows.loc[2, "as_accurate_as"] == "3"
    assert rows["val_accuracy_mean"].notna().sum() == 3
    assert rows["test_accuracy_mean"].notna().sum() == 1
    assert "seeds" not in trial_rows(searched(3).trials(), {}), "no empty columns where nothing was trained again"


def test_pictures_have_an_error_bar_for_each_that_was_trained_again(tmp_path: Path) -> None:
    trials = results(study_with_seeds())
    figure = front_figure(trials, {}, [])
    assert figure is not None
    [bars] = [trace for trace in figure.data if trace.error_y.array is not None]
    assert list(bars.customdata) == [2, 3, 4]
    assert list(bars.y) == pytest.approx([88.0, 100 * 2.65 / 3, 94.0])
    assert "#2 with 3 other seeds: 88.0 ± 2.5 %" in bars.text
    low, high = style.accuracy_range(trials, [])
    assert low < 88 - 2.5
    assert high > 94 + 2.4
    write_front(trials, {}, tmp_path, "some")
    assert "<!-- mean of seeds, 95 % -->" in (tmp_path / "front.svg").read_text()


def test_the_page_counts_the_trainings_and_names_who_cannot_be_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_write_pictures", lambda *arguments: None)
    content = write_report(study_with_seeds(), tmp_path).read_text()
    assert "9 trainings of 27 epochs and 18 s in all, which count nowhere else" in content
    [text] = re.findall(r'data-rows="front">(.*?)</script>', content)
    columns = {column["name"]: column["texts"] for column in json.loads(text)["columns"]}
    assert columns["as accurate as"] == ["–", "–", "3", "2", "–"]
    order = list(columns)
    assert order.index("as accurate as") < order.index("latency"), "where it is seen without scrolling"
    assert columns["mean val."][2] == "88.0 %"
