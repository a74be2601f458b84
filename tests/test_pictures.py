"""The pictures of a study: axes that show the front, colours, labels and numbers that people can read."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import pytest
from filled_studies import fabricated, searched
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from PIL import Image
from test_stopping import trial

from explore.reporting import over_time, pictures, style
from explore.reporting.importance import LEAST_TRIALS, importances
from explore.reporting.over_time import curves_figure, progress_figure
from explore.reporting.pictures import front_figure, importance_figure
from explore.reporting.printed import write_front, write_importance
from explore.reporting.printed_over_time import write_curves, write_progress
from explore.reporting.progress import progress
from explore.search.trial import Proposal, front

# The look


@given(st.floats(1e-2, 1e7), st.floats(1.26, 1e5))
def test_log_ticks_are_enough_and_inside(low: float, factor: float) -> None:
    ticks = style.log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 11
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= low * factor for tick in ticks)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40))
def test_labels_keep_their_distance(points: list[tuple[float, float]]) -> None:
    kept = [points[index] for index in style.spaced(points)]
    assert points == [] or points[0] in kept
    for index, (x, y) in enumerate(kept):
        assert all(abs(x - u) >= 0.06 or abs(y - v) >= 0.04 for u, v in kept[:index])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1.0, 1e6)), min_size=1, max_size=30), st.floats(0, 1))
def test_accuracy_axis_shows_the_front_and_the_references(points: list[tuple[float, float]], other: float) -> None:
    trials = fabricated(points)
    low, high = style.accuracy_range(trials, [other])
    assert all(low < 100 * value < high for value in [other, *(trial.accuracy or 0.0 for trial in front(trials))])


def test_hopeless_trials_do_not_squeeze_the_front() -> None:
    trials = fabricated([(0.98, 100.0), (0.97, 1000.0), (0.1, 10.0)])
    low, _ = style.accuracy_range(trials, [])
    assert low > 90
    figure = front_figure(trials, {}, [])
    assert figure is not None
    assert "1 below 95 % not shown" in str(figure.layout.annotations)


def test_colours_differ_and_do_not_depend_on_order() -> None:
    names = ["mlp", "attention", "pooling"]
    assert style.colours(names) == style.colours(reversed(names))
    assert len(set(style.colours(names).values())) == 3


def test_long_studies_show_what_a_person_can_see_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = fabricated(
        [(0.5 + number / 100, 1000 - number) for number in (40, 39)] + [(0.4, 500.0 - n) for n in range(30)]
    )
    monkeypatch.setattr(over_time, "MOST_CURVES", 3)
    monkeypatch.setattr(pictures, "_MOST_POINTS", 7)
    curves, points = curves_figure(trials), front_figure(trials, {}, [])
    assert curves is not None
    assert points is not None
    [others] = [trace for trace in curves.data if trace.name and "other" in trace.name]
    assert others.name == "3 of 30 other trials"
    assert sum(place is None for place in others.x) == 3
    drawn = [trace for trace in points.data if trace.hovertext]
    assert sum(len(trace.x) for trace in drawn) == 2 + 7
    assert any("23 others, evenly chosen, not drawn" in note.text for note in points.layout.annotations)


@given(st.lists(st.integers()), st.integers(1, 9))
def test_a_spread_is_of_all_times(items: list[int], most: int) -> None:
    kept = list(style.spread(items, most))
    assert len(kept) == min(len(items), most)
    assert kept[:1] == items[:1]
    places = [index * len(items) // most for index in range(most)] if len(items) > most else range(len(items))
    assert kept == [items[place] for place in places]


@pytest.mark.parametrize(
    ("written_as", "expected"),
    [
        (style.percent(0.9731), "97.3 %"),
        (style.speed(21_565.2), "21,565"),
        (style.speed(0.25), "0.25"),
        (style.short(12_345_678), "12.3 M"),
        (style.short(999_999), "1 M"),
        (style.short(844), "844"),
        (style.short(1_500_000, "B"), "1.5 MB"),
        (style.tick(20_000.0), "20k"),
        (style.value(0.0012345), "0.00123"),
        (style.value("mlp"), "mlp"),
    ],
)
def test_numbers_are_written_for_people(written_as: str, expected: str) -> None:
    assert written_as == expected


# Pictures


def test_importance_finds_the_dimension_that_matters_for_each_objective() -> None:
    trials = []
    for number in range(60):
        values = {"model.depth": 1 + number % 6, "model.width": 16 * (1 + number // 6)}
        values["training.batch_size"] = values["model.width"]  # as a search may draw them
        if number % 2:
            values["token_mixing.heads"] = 1 + number % 3
        proposal = Proposal(
            values=values,
            distributions={key: IntDistribution(1, 200) for key in values},
            overrides=[],
            sampler_state={},
        )
        trial = fabricated([(values["model.depth"] / 10, 10.0 * values["model.width"])])[0]
        trials.append(replace(trial, number=number, proposal=proposal))
    shares = importances(trials)
    assert max(shares["accuracy"], key=lambda key: shares["accuracy"][key]) == "model.depth"
    assert max(shares["throughput"], key=lambda key: shares["throughput"][key]) == "model.width"
    assert shares["throughput"]["model.width"] > 0.8, "which it would share with what goes along with it"
    assert [sum(by_dimension.values()) for by_dimension in shares.values()] == pytest.approx([1.0, 1.0])
    assert shares["accuracy"].keys() - shares["throughput"].keys() == {"training.batch_size"}
    assert importance_figure(shares) is not None


def test_too_few_trials_have_no_importances() -> None:
    trials = searched(LEAST_TRIALS - 1).trials()
    assert importances(trials) == {}
    assert importance_figure({}) is None


def test_figures_are_none_where_there_is_nothing_to_draw() -> None:
    assert front_figure([], {}, []) is None
    assert progress_figure(progress([], []), []) is None
    assert curves_figure([]) is None


def test_progress_has_marks_where_members_of_the_front_were_complete() -> None:
    trials = fabricated([(0.5, 100.0), (0.6, 90.0), (0.4, 80.0), (0.9, 300.0), (0.7, 20.0), (0.95, 40.0)])
    trials = [replace(one, row=one.number, started=None, ended=datetime(2026, 1, 1, 0, one.number)) for one in trials]
    figure = progress_figure(progress(trials, trials), [one.number for one in front(trials)])
    assert figure is not None
    by_epochs, marks, by_time, marks_by_time = figure.data
    # What changes nothing is not drawn: the third and, at the slowest speed, the fifth.
    assert by_epochs.x == (3, 6, 12, 18)
    assert (marks.x, marks_by_time.x) == ((12, 18), (12.0, 18.0))
    assert "#3" in marks.hovertext[0]
    assert "after 12 epochs, 12 s" in marks.hovertext[0]
    assert [trace.visible for trace in figure.data] == [True, True, False, False]
    epochs, time = figure.layout.updatemenus[0].buttons
    assert (epochs.label, epochs.args[0]["visible"]) == ("epochs", [True, True, False, False])
    assert time.args == ({"visible": [False, False, True, True]}, {"xaxis.title.text": "work of all workers / s"})
    assert by_time.y == by_epochs.y


def test_front_figure_has_every_trial_the_edge_and_the_references() -> None:
    trials = searched().trials()
    references = [
        {"name": "Mixer-B/16", "throughput": 800.0, "note": ""},
        {"name": "ViT-Ti/16", "throughput": 900.0, "note": "not trained here"},
    ]
    figure = front_figure(trials, {23: 0.97}, references)
    assert figure is not None
    hovers = [text for trace in figure.data if trace.hovertext and not trace.text for text in trace.hovertext]
    assert len(hovers) == 24
    assert any("#23" in text and "test 97.0 %" in text and "model.depth=24" in text for text in hovers)
    edge = next(trace for trace in figure.data if trace.name == "front")
    assert list(edge.x) == sorted(edge.x)
    assert {"Mixer-B/16", "ViT-Ti/16"} <= {one.text for one in figure.layout.annotations}
    assert sorted(line.x0 for line in figure.layout.shapes) == [800, 900]


@pytest.mark.parametrize("count", [0, 1, 24])
def test_front_picture_has_its_size(count: int, tmp_path: Path) -> None:
    write_front(searched(count).trials(), {0: 0.5}, tmp_path, "broken $math_{ and 画像")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size == (1600, 1000)
    assert ElementTree.parse(tmp_path / "front.svg").getroot().attrib["width"] == "576pt"


def test_pictures_are_the_same_to_the_byte_when_written_again(tmp_path: Path) -> None:
    trials = searched(3).trials()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_curves(trials, tmp_path / name, "some")
        write_progress(progress(trials, trials), [2], tmp_path / name, "some")
    for file in ("curves.png", "curves.svg", "progress.png", "progress.svg"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_who_was_stopped_after_one_epoch_is_seen(tmp_path: Path) -> None:
    """A line of one point is none."""
    with mock.patch("explore.reporting.printed_over_time.save") as save:
        write_curves([trial(0, 10.0, *[0.5] * 9, status="complete"), trial(1, 5.0, 0.2)], tmp_path, "some")
    [figure, *_] = save.call_args.args
    dots = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert dots == [[[1.0, pytest.approx(20)]]]


def test_pictures_are_left_out_where_there_is_nothing_to_draw(tmp_path: Path) -> None:
    write_curves([], tmp_path, "some")
    write_progress(progress([], []), [], tmp_path, "some")
    write_importance({}, tmp_path, "some")
    assert not list(tmp_path.iterdir())


def test_who_was_only_measured_is_not_said_to_be_stopped() -> None:
    measured, stopped = trial(0, 100.0), trial(1, 100.0, 0.5)
    assert (style.state(measured), style.state(stopped)) == ("measured", "stopped")
