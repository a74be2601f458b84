"""The report: tables with full numbers, and one page that is safe, self-contained and complete."""

import json
import math
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filled_studies import add, cost, curve, new_study, searched
from plotly.offline import get_plotlyjs

from explore.command import _run
from explore.evaluation import FAILED, REFUSED, STOPPED, Evaluation
from explore.report import main
from explore.reporting import page, sections
from explore.reporting.importance import LEAST_TRIALS
from explore.reporting.page import _write_pictures
from explore.reporting.report import write_report
from explore.reporting.tables import front_rows, trial_rows, write_tables
from explore.search.rivals import decided
from explore.search.storage import open_storage
from explore.search.study import Study, create_study

FIXED = [
    *("trial", "status", "val_accuracy", "test_accuracy", "throughput", "throughput_low", "throughput_high"),
    *("settled", "latency_ms", "macs", "params", "memory_bytes", "epochs", "seconds", "batch_size", "precision"),
    "device",
]


FILES = ["front.csv", "report.html", "trials.csv"]
PICTURES = [f"{name}.{kind}" for name in ("curves", "front", "importance", "progress") for kind in ("png", "svg")]


class Tags(HTMLParser):
    """Collects tags of a page with their attributes, its text outside scripts and styles, and what its tables hold."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: dict[str, dict[str, Any]] = {}
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and (key := self.tags[-1][1].get("data-rows")) and data.strip():
            table = self.tables[key] = json.loads(data)
            self.text += [" ".join(row) for row in zip(*(column["texts"] for column in table["columns"]), strict=True)]
        if self.tags and self.tags[-1][0] not in {"script", "style"}:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(autouse=True)
def quick_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the megabytes of plotly.js and the drawing of the picture, which have tests of their own."""
    monkeypatch.setattr(sections, "get_plotlyjs", lambda: "/* plotly.js */")
    monkeypatch.setattr(page, "_write_pictures", lambda *arguments: None)


def written(study: Study, folder: Path) -> str:
    return write_report(study, folder).read_text(encoding="utf-8")


def test_a_report_for_machines_says_what_was_saved_and_why_the_search_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pareto").mkdir()
    study = create_study(open_storage(f"sqlite:///{tmp_path}/pareto/study.db"), "pareto", {"space": {}})
    whole = add(study, settled=False)
    stopped = study.claim(add(new_study(), values={"token_mixing": "mlp"}).proposal, command="", target=9)
    assert stopped
    study.finish(stopped, Evaluation(status=STOPPED, cost=cost(100.0), curve=curve(0.9)[:1]))
    assert _run(main, ["study=pareto", f"outputs={tmp_path}", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["front"], found["unsettled"], found["ended"]) == ([whole.number], [whole.number], None)
    assert (found["savings"]["epochs_saved"], found["savings"]["stopped"]) == (2, {"1": 1})
    study.note("ended", "All 2 trials are done.")
    assert _run(main, ["study=pareto", f"outputs={tmp_path}", "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["ended"] == "All 2 trials are done."


# Tables


def test_trials_table_has_full_numbers_in_the_promised_order(tmp_path: Path) -> None:
    study = new_study()
    add(study, 0.9, 1000.5, values={"token_mixing": "attention", "token_mixing.heads": 4})
    add(study, status=FAILED, reason="RuntimeError: out of memory", values={"token_mixing": "mlp"})
    write_tables(study.trials(), {0: 0.875}, tmp_path)
    rows = pd.read_csv(tmp_path / "trials.csv")
    keys = ["model.depth", "token_mixing", "token_mixing.heads"]
    assert list(rows.columns) == [*FIXED, *keys, "reason", "command"]
    first = rows.iloc[0]
    assert first["val_accuracy"] == pytest.approx(0.9)
    assert first["test_accuracy"] == 0.875
    assert first["throughput"] == 1000.5
    assert (first["macs"], first["params"], first["epochs"], first["seconds"]) == (12_345_678, 54_321, 3, 4.5)
    assert first["command"] == "python -m explore.train model.depth=1"
    assert rows.iloc[1]["reason"] == "RuntimeError: out of memory"
    assert math.isnan(rows.iloc[1]["throughput"])


def test_a_speed_that_did_not_settle_says_so_in_the_tables(tmp_path: Path) -> None:
    study = new_study()
    add(study, 0.9, 1000.0, settled=True)
    add(study, 0.95, 500.0, settled=False)
    add(study, 0.99, 100.0)  # nobody looked
    add(study, status=FAILED, reason="RuntimeError: out of memory")
    write_tables(study.trials(), {}, tmp_path)
    trials, members = (pd.read_csv(tmp_path / name, dtype=str) for name in ("trials.csv", "front.csv"))
    assert trials["settled"].fillna("").tolist() == ["True", "False", "", ""]
    assert members["settled"].fillna("").tolist() == ["True", "False", ""]


def test_whole_numbers_stay_whole_beside_missing_ones(tmp_path: Path) -> None:
    study = new_study()
    add(study, values={"token_mixing.heads": 4})
    add(study, status=REFUSED, reason="too large")
    write_tables(study.trials(), {}, tmp_path)
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert ",12345678,54321,1048576," in lines[1]
    assert ",1,4," in lines[1]
    assert "4.0," not in lines[1]


def test_front_table_is_fastest_first_with_objectives_in_front() -> None:
    study = new_study()
    for accuracy, speed in ((0.9, 100.0), (0.8, 400.0), (0.7, 200.0), (0.95, 50.0)):
        add(study, accuracy, speed)
    rows = front_rows(study.trials(), {1: 0.79})
    assert list(rows["trial"]) == [1, 0, 3]
    assert list(rows.columns[:6]) == ["trial", "val_accuracy", "test_accuracy", "throughput", "macs", "params"]
    assert rows.columns[-1] == "command"
    assert sorted(rows.columns) == sorted(trial_rows(study.trials(), {}).columns)


def test_tables_of_an_empty_study_have_their_headings() -> None:
    assert list(trial_rows([], {}).columns) == [*FIXED, "reason", "command"]
    assert len(front_rows([], {})) == 0


# Page


def test_report_writes_page_tables_and_pictures_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    path = write_report(searched(), tmp_path / "report")
    assert path == tmp_path / "report" / "report.html"
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([*FILES, *PICTURES])
    linked = {link["href"] for link in Tags(path.read_text()).all("a")}
    assert linked == set(PICTURES)


def test_report_is_the_same_when_written_again(tmp_path: Path) -> None:
    study = searched()
    assert written(study, tmp_path / "a") == written(study, tmp_path / "b")


def test_failed_report_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(searched(2), tmp_path)

    def full_disk(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(page, "_page", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_report(searched(3), tmp_path)
    assert (tmp_path / "report.html").read_text() == before
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_page_tells_the_whole_study(tmp_path: Path) -> None:
    study = searched()
    add(study, status=REFUSED, reason="macs 512 M exceed 100 M")
    study.note("test_accuracy", {"23": 0.961})
    study.note("data", {"name": "mnist", "image_size": 28, "classes": 10})
    study.note("command", "python -m explore.sweep +sweep=pareto trials=24")
    study.note("commit", "35bd1f9")
    study.note("references", [{"name": "Mixer-B/16", "throughput": 812.0, "note": "untrained"}])
    tags = Tags(written(study, tmp_path))
    for words in (
        "pareto on mnist",
        "25 trials: 24 complete, 1 refused",
        "AMD EPYC, batch size 256, 32-true, eager, 1 thread, PyTorch 2.13.0",
        "mnist, image size 28, classes 10",
        "python -m explore.sweep +sweep=pareto trials=24",
        "python -m explore.report study=pareto",
        "35bd1f9",
        "97.8 %",
        "test 96.1 %, trial 23",
        "50,000",
        "12.3 M",
        "Mixer-B/16 812 untrained",
        "macs 512 M exceed 100 M",
    ):
        assert words in tags.words
    figures = [attributes["data-figure"] for attributes in tags.all("script") if "data-figure" in attributes]
    assert figures == ["front", "progress", "curves", "importance"]
    assert "python -m explore.train model.depth=24" in tags.tables["front"]["commands"]


def test_tables_hold_full_numbers_and_the_command_of_each_row(tmp_path: Path) -> None:
    tags = Tags(written(searched(), tmp_path))
    assert list(tags.tables) == ["front", "mixings", "trials"]
    trials = tags.tables["trials"]
    columns = {column["name"]: column for column in trials["columns"]}
    assert columns["trial"]["numbers"] == list(range(24))
    assert columns["images/s"]["numbers"][0] == 50_000.0
    assert columns["images/s"]["texts"][0] == "50,000"
    assert columns["token_mixing"]["numbers"] is None
    assert trials["commands"] == [f"python -m explore.train model.depth={depth}" for depth in range(1, 25)]
    assert [one["data-filter"] for one in tags.all("input")] == ["trials"]
    assert {one["data-table"] for one in tags.all("button") if "data-table" in one} == {"front", "mixings", "trials"}


def test_points_of_pictures_know_their_trials(tmp_path: Path) -> None:
    content = written(searched(), tmp_path)
    for key in ("front", "curves"):
        [text] = re.findall(rf'data-figure="{key}">(.*?)</script>', content)
        numbers = {number for trace in json.loads(text)["data"] for number in trace.get("customdata", ()) if number}
        assert numbers == set(range(1, 24))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_page_of_a_young_study(count: int, tmp_path: Path) -> None:
    words = Tags(written(searched(count), tmp_path)).words
    assert f"{count} trial{'s' * (count != 1)}{':' if count else '.'}" in words
    there = "there is 1." if count == 1 else f"there are {count}."
    assert (f"Importances need {LEAST_TRIALS} complete trials of a searched space; {there}" in words) == (count > 0)
    assert ("No trial is complete yet" in words) == (count == 0)


def test_page_of_a_study_where_nothing_worked(tmp_path: Path) -> None:
    study = new_study()
    add(study, status=FAILED, reason="RuntimeError: out of memory")
    words = Tags(written(study, tmp_path)).words
    assert "No trial is complete yet" in words
    assert "RuntimeError: out of memory" in words


def test_page_warns_of_incomparable_speeds(tmp_path: Path) -> None:
    study = new_study()
    add(study, device="AMD EPYC")
    add(study, device="NVIDIA H200")
    assert "Throughput was measured in 2 ways" in Tags(written(study, tmp_path)).words


def test_page_warns_of_speeds_that_were_not_measured_together(tmp_path: Path) -> None:
    study = new_study()
    add(study)
    assert "measured together" not in Tags(written(study, tmp_path)).words
    study.note("not_compared", "the GPU ran out of memory")
    assert "could not be measured together: the GPU ran out of memory." in Tags(written(study, tmp_path)).words


def test_page_names_the_speeds_that_did_not_settle_while_they_are_few(tmp_path: Path) -> None:
    study = new_study()
    add(study, settled=True)
    assert "did not settle" not in Tags(written(study, tmp_path)).words
    add(study, settled=False)
    add(study, settled=False)
    assert (
        "The speed of 2 of these trials (1, 2) did not settle within its time" in Tags(written(study, tmp_path)).words
    )
    for _ in range(9):
        add(study, settled=False)
    assert "The speed of 11 of these trials did not settle within its time" in Tags(written(study, tmp_path)).words


def test_page_says_of_speeds_that_could_not_be_told_apart_no_more_than_that(tmp_path: Path) -> None:
    study = new_study()
    for accuracy, speed in ((0.9, 1320.0), (0.95, 1000.0)):
        add(study, accuracy, speed)
    turns = {trial.number: [1 / (trial.throughput or 1)] * 3 for trial in study.trials()}
    found = decided(turns, {0: 1, 1: 1}, 0.02)
    study.note("speeds", {str(number): asdict(one) for number, one in found.items()})
    tags = Tags(written(study, tmp_path))
    assert "as fast as" not in tags.words
    assert "two apart, as it never can after a few turns only, the table says so" in tags.words
    column = next(one for one in tags.tables["front"]["columns"] if one["name"] == "speed not told apart from")
    assert column["texts"] == ["1", "0"]


def test_page_fetches_nothing(tmp_path: Path) -> None:
    tags = Tags(written(searched(), tmp_path))
    assert not tags.all("img")
    assert [link["href"] for link in tags.all("link")] == ["data:,"]
    assert not any({"src", "srcset", "action"} & attributes.keys() for _, attributes in tags.tags)
    assert all("src" not in attributes for attributes in tags.all("script"))


def test_page_brings_its_own_plotly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(page, "_write_pictures", lambda *arguments: None)
    content = written(searched(2), tmp_path)
    assert content.count(get_plotlyjs()) == 1
    assert Tags(content).words.endswith("Close")


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    attack = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
    study = new_study(attack)
    for number in range(LEAST_TRIALS + 1):
        add(study, 0.5 + number / 100, 1000 - number, values={"token_mixing": attack, attack: number}, device=attack)
    add(study, status=FAILED, reason=attack)
    study.note("command", attack)
    study.note("commit", attack)
    study.note("data", {"name": attack, attack: attack})
    study.note("references", [{"name": attack, "throughput": 9.0, "note": attack}])
    content = written(study, tmp_path)
    tags = Tags(content)
    assert "<script>alert" not in content
    assert not tags.all("img")
    assert not any(name.startswith("on") for _, attributes in tags.tags for name in attributes)
    assert tags.tables["trials"]["columns"][0]["texts"][0] == "0", "tables are text of the page's own script"
    for figure in re.findall(r'<script type="application/json" data-figure[^>]*>(.*?)</script>', content):
        assert "<img" not in json.dumps(json.loads(figure))


def test_two_thousand_trials_take_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = searched(100)
    few = study.trials()
    many = [replace(few[number % 100], number=number, row=number) for number in range(2000)]
    monkeypatch.setattr(study, "trials", lambda: many)
    monkeypatch.setattr(study, "stretches", lambda: many)
    monkeypatch.setattr(page, "_write_pictures", _write_pictures)
    start = time.process_time()
    content = written(study, tmp_path)
    assert time.process_time() - start < 20
    assert len(Tags(content).tables["trials"]["commands"]) == 2000


def test_report_needs_no_torch() -> None:
    program = (
        "import sys, tempfile, pathlib, test_reporting as t\n"
        "t.write_report(t.searched(), pathlib.Path(tempfile.mkdtemp()))\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, check=True, timeout=300)
