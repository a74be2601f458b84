"""An ablation is shown as it is: intervals by the book, pictures with every arm, a page that is safe and complete.

The page in a real browser is marked slow: it needs Chromium or Chrome, and is skipped where there is none.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ablations import MIXINGS, invented
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import t, ttest_rel
from test_page_in_browser import DRAWN
from test_reporting import Tags

from benchmarks.browser import BROWSER, browser
from explore.reporting import ablation_page, sections
from explore.reporting.ablation_page import write_ablation
from explore.reporting.ablation_pictures import curves_figure, forest_figure, interaction_figures, plane_figure
from explore.reporting.ablation_printed import (
    curves_picture,
    forest_picture,
    interaction_picture,
    plane_picture,
    write_pictures,
)
from explore.reporting.ablation_style import captions, coverage, crossings, listed, marks, points, probability, verdict
from explore.reporting.ablation_tables import arm_rows
from explore.reporting.intervals import paired, student

ATTACK = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
LEVEL = 0.05


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return invented(failing="s2 + swiglu")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the megabytes of plotly.js and the pictures for papers, which have tests of their own."""
    monkeypatch.setattr(sections, "get_plotlyjs", lambda: "/* plotly.js */")
    monkeypatch.setattr(ablation_page, "write_pictures", lambda *shown: (shown[-1] / "forest.png").touch())


def written(ablation: dict[str, Any], folder: Path, **changes: Any) -> str:
    asked = {
        "name": "mixings",
        "facts": {"Images": "mnist"},
        "commands": ["python -m explore.sweep"],
        **ablation,
        **changes,
    }
    return write_ablation(folder, **asked).read_text(encoding="utf-8")


# Intervals

scores_of_seeds = st.integers(3, 12).flatmap(
    lambda seeds: st.lists(st.lists(st.floats(0.1, 0.9), min_size=seeds, max_size=seeds), min_size=2, max_size=2)
)


@settings(max_examples=30)
@given(scores_of_seeds)
def test_two_columns_have_the_interval_of_their_difference(columns: list[list[float]]) -> None:
    table = pd.DataFrame(dict(enumerate(columns)))
    if (table[0] - table[1]).std() < 1e-6:
        return
    interval = ttest_rel(table[0], table[1]).confidence_interval(1 - LEVEL)
    assert list(paired(table, LEVEL) * 2**0.5) == pytest.approx([(interval.high - interval.low) / 2] * 2)


def test_what_seeds_have_in_common_does_not_widen_the_intervals_of_pairs() -> None:
    table = pd.DataFrame(np.random.default_rng(0).normal(0.9, 0.01, (6, 4)))
    lucky = table.add(np.arange(6.0), axis=0)
    assert list(paired(lucky, LEVEL)) == pytest.approx(list(paired(table, LEVEL)))
    assert all(student(lucky, LEVEL) > 10 * student(table, LEVEL))


def test_one_cell_has_nothing_to_be_paired_with() -> None:
    assert paired(pd.DataFrame({"a": [0.9, 0.8]}), LEVEL).isna().all()


def test_means_have_students_interval() -> None:
    table = pd.DataFrame({"a": [0.9, 0.92, 0.91, 0.95], "b": [0.8, 0.7, None, None], "c": [0.5, None, None, None]})
    low, high = t.interval(0.95, 3, table["a"].mean(), table["a"].sem())
    assert student(table, LEVEL)["a"] == pytest.approx((high - low) / 2)
    assert student(table, LEVEL)["b"] == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert np.isnan(student(table, LEVEL)["c"])


# Words and marks


def test_numbers_are_written_for_people() -> None:
    assert [points(0.0042), points(-0.0042), points(-0.00001)] == ["+0.42", "−0.42", "0.00"]
    assert [probability(p) for p in (0.0004, 0.0214, 0.0999, 1.0)] == ["< 0.001", "0.021", "0.10", "1.00"]


def test_verdicts_say_what_was_told() -> None:
    difference = invented()["findings"].levels[0]
    said = {
        (told, small, mean): verdict(replace(difference, different=told, negligible=small, mean=mean)).words
        for told, small, mean in ((True, False, 0.1), (True, False, -0.1), (True, True, 0.1), (False, True, 0.1))
    }
    assert list(said.values()) == ["better", "worse", "better, negligible", "negligible"]
    assert verdict(replace(difference, different=False, negligible=False)).words == "not told"


def test_levels_are_told_apart_by_colour_and_shape(found: dict[str, Any]) -> None:
    ablation = marks(found["scores"])
    assert len({one.colour for one in ablation.values()}) == 5
    assert len({(one.colour, one.shape) for one in ablation.values()}) == 9
    assert ablation["attention + swiglu"].rest == "channel mixing swiglu"


def test_crossed_factors_are_averaged_over_the_others_and_only_where_all_are_there() -> None:
    factors = {"token_mixing": ["mlp", "s2"], "model.depth": [2, 4], "channel_mixing": ["mlp", "swiglu"]}
    scores = invented(factors, failing="s2 + 4 + mlp")["scores"]
    tables = {(first, second): table for first, second, table in crossings(scores)}
    assert list(tables) == [
        ("token_mixing", "model.depth"),
        ("token_mixing", "channel_mixing"),
        ("model.depth", "channel_mixing"),
    ]
    table = tables["token_mixing", "model.depth"]
    assert ("s2", 4) not in table.columns
    both = scores.accuracies[["mlp + 4 + mlp", "mlp + 4 + swiglu"]]
    assert list(table["mlp", 4]) == pytest.approx(list(both.mean(axis=1)))


# Pictures


def test_the_forest_has_every_difference_once(found: dict[str, Any]) -> None:
    rows = listed(found["findings"])
    headings = ["token mixing against mlp", "channel mixing against mlp", "arms against mlp + mlp"]
    assert [row for row in rows if isinstance(row, str)] == headings
    assert len(rows) == 3 + 4 + 1 + 8
    figure = forest_picture(found["findings"], 0.005)
    assert figure is not None
    axes, beside = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()][1] == "attention"
    first = found["findings"].levels[0]
    assert any(list(line.get_xdata()) == [100 * first.low, 100 * first.high] for line in axes.lines)
    assert any(list(line.get_xdata()) == [100 * first.bootstrap_low, 100 * first.bootstrap_high] for line in axes.lines)
    assert f"{points(first.mean)} [{points(first.low)}, {points(first.high)}]" in [
        text.get_text() for text in beside.texts
    ]
    interactive = forest_figure(found["findings"], 0.005)
    assert interactive is not None
    drawn = [text for trace in interactive.data for text in trace.hovertext or ()]
    assert len(drawn) == 13
    assert sum("<b>attention against mlp</b>: better" in text for text in drawn) == 1
    assert sum("<br>bootstrap 99.22 %: " in text for text in drawn) == 13


def test_no_interval_is_said_to_cover_everything() -> None:
    assert [coverage(level) for level in (0.05, 0.0425, 0.0025, 5e-5)] == ["95 %", "95.75 %", "99.75 %", "99.995 %"]


def test_it_is_said_where_few_seeds_allow_no_bootstrap_interval_of_the_level(found: dict[str, Any]) -> None:
    few = captions(replace(found["findings"], bootstrap_level=2 / 32, seeds=5), LEVEL, 0.005)["forest"]
    assert "by bootstrap (thin, 93.75 %: what 5 seeds allow at most)" in few
    enough = captions(replace(found["findings"], bootstrap_level=0.0155), LEVEL, 0.005)["forest"]
    assert "by bootstrap (thin, 98.45 %)" in enough
    assert "by bootstrap (thin)" in captions(None, LEVEL, 0.005)["forest"]


def test_one_factor_has_no_interaction_and_says_nothing_twice() -> None:
    ablation = invented({"model.patch_size": [7, 14]})
    assert listed(ablation["findings"])[0] == "patch size against 7"
    assert len(listed(ablation["findings"])) == 2
    assert interaction_picture(ablation["scores"], LEVEL) is None
    assert interaction_figures(ablation["scores"], LEVEL) == {}


def test_interactions_have_a_gap_where_an_arm_failed(found: dict[str, Any]) -> None:
    figure = interaction_picture(found["scores"], LEVEL)
    assert figure is not None
    [axes] = figure.axes
    lines = {container.get_label(): container.lines[0].get_ydata() for container in axes.containers}
    assert np.isnan(lines["swiglu"][2])
    assert lines["mlp"] == pytest.approx(
        [100 * found["scores"].accuracies[f"{one} + mlp"].mean() for one in MIXINGS["token_mixing"]]
    )
    [interactive] = interaction_figures(found["scores"], LEVEL).values()
    assert interactive.data[1].y[2] is None
    assert interactive.data[0].y == pytest.approx(lines["mlp"])


def test_the_plane_has_every_arm_with_both_intervals(found: dict[str, Any]) -> None:
    rows = arm_rows(*found.values())
    figure, interactive = plane_picture(found["scores"], rows, LEVEL), plane_figure(found["scores"], rows, LEVEL)
    assert figure is not None
    assert interactive is not None
    assert len(figure.axes[0].containers) == 9
    drawn = [trace for trace in interactive.data if trace.hovertext]
    assert len(drawn) == 9
    halves = 100 * paired(found["scores"].accuracies, LEVEL)
    assert [trace.error_y.array[0] for trace in drawn] == pytest.approx(list(halves))
    assert drawn[0].error_x.array[0] == pytest.approx(0.04 * 21_000)
    assert plane_picture(found["scores"], rows.assign(throughput=None), LEVEL) is None
    # The name of the reference is written where there is room for it.
    slowest_last = plane_figure(found["scores"], rows.assign(throughput=rows["throughput"].to_numpy()[::-1]), LEVEL)
    assert slowest_last is not None
    named = [next(trace for trace in one.data if trace.text == ("reference",)) for one in (interactive, slowest_last)]
    assert [trace.textposition for trace in named] == ["top right", "top left"]


def test_curves_are_means_over_the_seeds_in_a_panel_for_each_shape(found: dict[str, Any]) -> None:
    figure = curves_picture(found["scores"], found["runs"], LEVEL)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["channel mixing mlp", "channel mixing swiglu"]
    runs = found["runs"]
    last = [100 * runs[runs["arm"] == f"{one} + mlp"]["val_accuracy"].mean() for one in MIXINGS["token_mixing"]]
    assert [line.get_ydata()[-1] for line in figure.axes[0].lines] == pytest.approx(last)
    interactive = curves_figure(found["scores"], runs, LEVEL)
    assert interactive is not None
    assert sum(bool(trace.hovertext) for trace in interactive.data) == 9
    tables = [pd.DataFrame(runs["curve"][runs["arm"] == arm].tolist()) for arm in found["scores"].arms]
    top = max(100 * (one.iloc[:, -1].mean() + student(one, LEVEL).iloc[-1]) for one in tables)
    assert interactive.layout.yaxis.range[1] > top, "no band is cut off at its end"
    assert [trace.name for trace in interactive.data if trace.showlegend] == MIXINGS["token_mixing"]


def test_no_band_is_cut_and_no_axis_goes_beyond_what_an_accuracy_can_be() -> None:
    ablation = invented({"token_mixing": ["mlp", "s2"]}, seeds=3)
    for spread, ends in ((0.01, None), (0.6, (0.0, 100.0))):
        learned = [[0.3, 0.6, 0.8, 0.85 + off, 0.88 + off, 0.9 + off] for off in (-spread, 0, 0)] * 2
        scores, runs = ablation["scores"], ablation["runs"].assign(curve=learned)
        tables = [pd.DataFrame(runs["curve"][runs["arm"] == arm].tolist()).iloc[:, 1:] for arm in scores.arms]
        figure, interactive = curves_picture(scores, runs, LEVEL), curves_figure(scores, runs, LEVEL)
        assert figure is not None
        assert interactive is not None
        for low, high in (figure.axes[0].get_ylim(), interactive.layout.yaxis.range):
            for table in tables if ends is None else ():
                assert low <= 100 * (table.mean() - student(table, LEVEL)).min() + 1e-9
                assert high > 100 * (table.mean() + student(table, LEVEL)).max()
            assert ends is None or (low, high) == ends


def test_epochs_are_whole_numbers() -> None:
    ablation = invented({"token_mixing": ["mlp", "s2"]}, seeds=3)
    scores, runs = ablation["scores"], ablation["runs"].assign(curve=[[0.5, 0.8, 0.9]] * 6)
    figure, interactive = curves_picture(scores, runs, LEVEL), curves_figure(scores, runs, LEVEL)
    assert figure is not None
    assert interactive is not None
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())
    assert interactive.layout.xaxis.dtick == 1


def test_pictures_are_kept_as_png_and_svg_with_any_name(tmp_path: Path) -> None:
    names = ["$math_{ and 画像", "a_name_that_is_too_long_for_any_picture_of_an_ablation"]
    ablation = invented({"token_mixing": names}, seeds=3)
    rows = arm_rows(*ablation.values()).assign(throughput=None)
    runs = ablation["runs"].assign(curve=[[]] * 6)
    write_pictures(ablation["scores"], ablation["findings"], rows, runs, ablation["options"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forest.png", "forest.svg"]
    with Image.open(tmp_path / "forest.png") as picture:
        assert picture.width == 1600
    assert "<dc:date>" not in (tmp_path / "forest.svg").read_text(), "it is the same when it is written again"


# Page


def test_a_report_has_its_files_and_says_what_was_found(found: dict[str, Any], tmp_path: Path, quick: None) -> None:
    content = written(found, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [
            *("arms.csv", "arms.md", "arms.tex", "differences.csv", "effects.csv", "forest.png", "report.html"),
            "runs.csv",
        ]
    )
    tags = Tags(content)
    for words in (
        "token mixing (5) × channel mixing (2): 9 arms, 8 of at most 20 seeds compared; 79 runs are complete.",
        "attention beats mlp by 0.42 points",
        "multiply-adds within 2 % of the first arm's by width; the largest difference is 0.63 %",
        "looked at after 5, 8, 12, 20, until",
        "a difference is told where p is below 0.0158",
        "within ±0.5 percentage points",
        "Not compared, because a run has no result: s2 + swiglu.",
        "Images mnist",
    ):
        assert words in tags.words
    assert tags.words.index("All else is open.") < tags.words.index("Differences")
    figures = [one["data-figure"] for one in tags.all("script") if "data-figure" in one]
    assert figures == ["forest", "interaction-0", "plane", "curves"]
    [runs] = re.findall(r'data-rows="runs">(.*?)</script>', content)
    assert json.loads(runs)["commands"] == list(found["runs"]["command"])
    assert not any({"src", "srcset"} & attributes.keys() for _, attributes in tags.tags), "nothing is fetched"


def test_a_report_can_be_written_before_there_is_anything_to_say(
    found: dict[str, Any], tmp_path: Path, quick: None
) -> None:
    """The first runs are under way: one is complete, and no arm has two seeds."""
    scores = replace(found["scores"], accuracies=found["scores"].accuracies.iloc[:0])
    for runs in (found["runs"].iloc[:1], found["runs"].iloc[:0]):
        content = written(found, tmp_path, scores=scores, findings=None, runs=runs)
        assert "No two seeds of all arms are complete yet" in Tags(content).words
        assert len(pd.read_csv(tmp_path / "differences.csv")) == 0
        assert len(pd.read_csv(tmp_path / "runs.csv")) == len(runs)


def test_a_failed_report_leaves_the_old_one(
    found: dict[str, Any], tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(found, tmp_path)

    def full_disk(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(ablation_page, "write_pictures", full_disk)
    with pytest.raises(OSError, match="no space left"):
        written(found, tmp_path, name="other")
    assert (tmp_path / "report.html").read_text() == before
    assert len(list(tmp_path.iterdir())) == 8


def test_hostile_names_stay_text(tmp_path: Path, quick: None) -> None:
    ablation = invented({ATTACK: ["mlp", ATTACK], "channel_mixing": ["mlp", ATTACK]}, seeds=3)
    ablation["runs"] = ablation["runs"].assign(reason=ATTACK, command=ATTACK)
    ablation["findings"] = replace(ablation["findings"], words=[ATTACK])
    content = written(ablation, tmp_path, name=ATTACK, facts={ATTACK: ATTACK}, commands=[ATTACK])
    tags = Tags(content)
    assert "<script>alert" not in content
    assert not tags.all("img")
    assert not any(name.startswith("on") for _, attributes in tags.tags for name in attributes)
    for figure in re.findall(r'<script type="application/json" data-figure[^>]*>(.*?)</script>', content):
        assert "<img" not in json.dumps(json.loads(figure))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real pages: mixings one of which failed, one factor, numbers and long names."""
    long = ["mlp", "attention with a very long name that goes on and on", "s2v2_with_a_long_name_and_no_space_in_it"]
    cases = [invented(failing="s2 + swiglu"), invented({"token_mixing": ["mlp", "s2"]})]
    cases.append(invented({"model.patch_size": [7, 14], "token_mixing": long}))
    folders = [tmp_path_factory.mktemp("report") for _ in cases]
    for ablation, folder in zip(cases, folders, strict=True):
        written(ablation, folder)
    return [folder / "report.html" for folder in folders]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(reports: list[Path], width: int, dark: bool) -> None:
    with browser() as tab:
        tab.look(width=width, dark=dark)
        for page, figures in zip(reports, (4, 3, 4), strict=True):
            tab.open(page)
            assert tab.evaluate(DRAWN) == figures
            assert tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
            copied = "window.said = []; navigator.clipboard.writeText = async (text) => { said.push(text); }; "
            tab.evaluate(f"{copied} document.querySelector('#runs-table tbody button').click()")
            assert tab.evaluate("said[0]").startswith("python -m explore.train ")
            assert tab.console == []
