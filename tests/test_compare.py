"""Fronts of several studies are compared when their figures mean the same, and the interval means what it says.

python -m pytest tests/test_compare.py
"""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import four_arms
import numpy as np
import pytest
from filled_studies import add, cost, fabricated
from hypothesis import given, settings
from hypothesis import strategies as st

from explore import compare
from explore.ablation.design import NOTE
from explore.command import _run
from explore.reporting.fronts import (
    FEWEST,
    Searched,
    difference_interval,
    on_one_scale,
    reference,
    refuse_incomparable,
    steps,
    worth,
    write_tables,
)
from explore.reporting.fronts_picture import write_fronts_picture
from explore.search.front import hypervolume
from explore.search.storage import open_storage
from explore.search.study import create_study
from explore.search.trial import Trial, front, timed_as


def study(
    name: str = "first", count: int = 10, better: float = 0.0, images: str = "a1", device: str = "AMD EPYC"
) -> Searched:
    """A study of which every trial is on the front."""
    trials = fabricated([(0.9 - 0.3 / depth + better, 50_000 / depth) for depth in range(1, count + 1)])
    trials = [replace(one, evaluation=replace(one.evaluation, cost=cost(one.throughput, device))) for one in trials]
    definition = {"images": images, "data": {"source": "digits"}, "cost": {"batch_size": 256}}
    return Searched(name=name, trials=trials, tests={}, definition=definition, epochs=3 * count, seconds=1.0)


def test_all_have_the_same_reference_point() -> None:
    both = [study(), study("second", count=20)]
    corner = reference(both)
    assert corner == pytest.approx((1.0, -np.log(50_000 / 20)))
    for one, value in zip(both, worth(both), strict=True):
        points = [(1 - (trial.accuracy or 0), -np.log(trial.throughput or 0)) for trial in one.complete]
        assert value.hypervolume == pytest.approx(hypervolume(points, corner))


def test_speeds_are_put_on_one_scale_where_the_reference_is_known_better_by_now() -> None:
    def timed(one: Searched, milliseconds: float) -> Searched:
        return replace(one, trials=[_calibrated(trial, milliseconds) for trial in one.trials])

    before, after = timed(study(), 3.0), timed(study("second"), 2.0)
    (first, second), words = on_one_scale([before, after])
    assert words == ["first by 1.5"]
    assert [trial.throughput for trial in first.trials] == pytest.approx([75_000 / depth for depth in range(1, 11)])
    assert second.trials == after.trials
    (little, _), words = on_one_scale([timed(study(), 2.001), after])
    assert words == [], "nobody reads of a factor that is 1 when it is written"
    assert little.trials[0].throughput == pytest.approx(50_025)
    assert on_one_scale([after, after]) == ([after, after], [])
    assert on_one_scale([study(), after]) == ([study(), after], []), "nothing is known of the reference of the first"


def _calibrated(trial: Trial, milliseconds: float) -> Trial:
    cost = trial.evaluation.cost
    assert cost
    assert cost.throughput
    return timed_as(trial, replace(cost.throughput, reference_ms=milliseconds))


def test_a_difference_that_is_none_is_not_told_apart_and_a_large_one_is() -> None:
    generator = np.random.default_rng(0)

    def area(points: np.ndarray) -> float:
        return hypervolume(points, (1.0, 1.0))

    first, same, better = (generator.uniform((low, -1), (low + 0.1, 1), (40, 2)) for low in (0.5, 0.5, 0.1))
    low, high = difference_interval(same, first, area)
    assert low < 0 < high
    low, high = difference_interval(better, first, area)
    assert 0 < low < area(better) - area(first) < high


def test_too_few_trials_have_no_interval() -> None:
    first, few, enough = (study(name, count) for name, count in (("a", FEWEST), ("b", FEWEST - 1), ("c", FEWEST)))
    own, none, known = worth([first, few, enough])
    assert own.interval is None
    assert none.interval is None
    assert none.difference == pytest.approx(none.hypervolume - own.hypervolume)
    assert known.interval
    assert known.interval[0] < known.difference == 0 < known.interval[1]


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.floats(-5, 5))
def test_the_interval_of_a_mean_is_the_usual_one(seed: int, shift: float) -> None:
    generator = np.random.default_rng(seed)
    one, other = generator.normal(shift, 1, (40, 2)), generator.normal(0, 2, (40, 2))
    low, high = difference_interval(one, other, lambda points: float(points[:, 0].mean()))
    error = np.sqrt((one[:, 0].var() + other[:, 0].var()) / 40)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.12)
    assert (low + high) / 2 == pytest.approx(one[:, 0].mean() - other[:, 0].mean(), abs=0.3 * error)


def test_studies_that_cannot_be_compared_are_refused_in_words() -> None:
    first = study()
    with pytest.raises(
        ValueError, match=r"accuracy cannot be compared .* digits \(a1\) for first and digits \(b2\) for "
    ):
        refuse_incomparable([first, study("second", images="b2")])
    with pytest.raises(ValueError, match="study second must have a complete trial, got none yet"):
        refuse_incomparable([first, study("second", count=0)])
    with pytest.raises(ValueError, match=r"throughput cannot be compared .*device AMD EPYC.* and device NVIDIA H100"):
        refuse_incomparable([first, study("second", device="NVIDIA H100")])
    refuse_incomparable([first, study("third", count=3)])


def test_every_member_stands_beside_what_the_others_reach_at_its_speed() -> None:
    both = [study(count=4), study("second", count=2, better=0.05)]
    rows = steps(both)
    assert [row.trial.throughput for row in rows] == sorted((row.trial.throughput for row in rows), reverse=True)
    assert sorted((row.study, row.trial.number) for row in rows) == sorted(
        (one.name, trial.number) for one in both for trial in front(one.trials)
    )
    for row in rows:
        assert row.reached[row.study] == row.trial.accuracy, "nobody on a front is beaten at its own speed"
    assert rows[-1].reached["second"] == pytest.approx(0.8), "the slowest of the other is fast enough as well"
    assert rows[0].reached["first"] == pytest.approx(0.6)


def test_tables_and_pictures_are_written(tmp_path: Path) -> None:
    both = [study("a$b"), study("second", better=0.05)]
    values = worth(both)
    write_tables(both, values, tmp_path)
    rows = list(csv.DictReader((tmp_path / "fronts.csv").read_text().splitlines()))
    assert {row["study"] for row in rows} == {"a$b", "second"}
    assert len(rows) == sum(len(front(one.trials)) for one in both)
    (_, second) = csv.DictReader((tmp_path / "hypervolumes.csv").read_text().splitlines())
    assert float(second["low"]) < float(second["difference"]) < float(second["high"])
    paths = [tmp_path / "fronts.png", tmp_path / "fronts.svg"]
    write_fronts_picture(both, "a note", paths)
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    text = paths[1].read_text()
    assert all(word in text for word in ("a$b", "second", "a note", "throughput / images/s"))
    before = paths[1].read_bytes()
    write_fronts_picture(both, "a note", paths)
    assert paths[1].read_bytes() == before, "the same studies give the same picture"


def test_the_command_compares_studies_by_name_and_by_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, name in (("outputs", "first"), ("elsewhere", "second")):
        (tmp_path / place / name).mkdir(parents=True)
        definition = {"space": {}, "images": "a1", "cost": {"batch_size": 256}}
        made = create_study(open_storage(f"sqlite:///{place}/{name}/study.db"), name, definition)
        for depth in range(1, 4):
            add(made, 0.9 - 0.1 / depth, 1000 / depth)
    assert _run(compare.main, ["first", "elsewhere/second"], compare.own) == 0
    out = capsys.readouterr().out
    assert "not known with fewer than 8 complete trials" in out
    assert re.search(r"1,000 +80.0 % #0 +80.0 % +depth=1", out)
    assert re.search(r"first +3 +3 +9 +14 s +3 +\d", out), "trials, complete ones, epochs, seconds, members"
    assert _run(compare.main, ["first", "elsewhere/second", "format=json"], compare.own) == 0
    result = json.loads(capsys.readouterr().out)
    assert [one["study"] for one in result["studies"]] == ["first", "second"]
    assert result["reference"] == pytest.approx({"val_accuracy": 0, "throughput": 1000 / 3})
    assert sorted(path.name for path in Path(result["folder"]).iterdir()) == [
        "fronts.csv",
        "fronts.png",
        "fronts.svg",
        "hypervolumes.csv",
    ]
    refused = {
        "first": "needs two different studies or more, got first",
        "first first": "needs two different studies or more",
        "first second": "study second must exist, got no file",
        "first ../second": "or the folder of a study that is kept in an SQLite file, got ../second, where no study.db",
        "../../etc first": "a STUDY must be a name of letters, digits, dots, dashes and underscores, or the folder",
        "first ..": "must be a name of letters",
        "first a/../..": "must be a name of letters",
        "first elsewhere/second storage.url=postgresql://me@db/explore": "a STUDY must be a name where storage.url is "
        "that of a server, got elsewhere/second; try second",
    }
    for words, text in refused.items():
        assert _run(compare.main, words.split(), compare.own) == 2
        assert text in capsys.readouterr().err
    made.note(NOTE, four_arms.DESIGN.to_dict())
    assert _run(compare.main, ["first", "elsewhere/second"], compare.own) == 2
    assert "studies to compare must be searches, got second, which is an ablation" in capsys.readouterr().err
