"""The dashboard shows a study with names for people, and cannot change it.

python -m pytest tests/test_dashboard.py
"""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filled_studies import add

from explore import dashboard
from explore.command import _run
from explore.reporting.dashboard import make_dashboard
from explore.search.storage import open_storage
from explore.search.study import Study, create_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path = tmp_path_factory.mktemp("dashboard") / "study.db"
    made = create_study(open_storage(f"sqlite:///{path}"), "shoes", {"space": {}})
    for depth in (1, 2, 3):
        add(made, 0.9 - 0.1 / depth, 1000 / depth)
    add(made, status="failed", reason="no such luck")
    made.note("test_accuracy", {"2": 0.85})
    made.note("command", "python -m explore.sweep study=shoes")
    return made


@pytest.fixture(scope="module")
def url(study: Study) -> Iterator[str]:
    server, url = make_dashboard(study._storage, "shoes", "localhost", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def ask(url: str, path: str, method: str = "GET", given: object = None) -> Any:
    data = None if given is None else json.dumps(given).encode()
    request = urllib.request.Request(
        url.partition("/dashboard")[0] + path, data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read() or "null")


def test_it_answers_with_the_study_and_its_objectives(url: str) -> None:
    with urllib.request.urlopen(url, timeout=120) as page:
        assert b"<html" in page.read()
    (summary,) = ask(url, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "shoes"
    assert {"key": "command", "value": "python -m explore.sweep study=shoes"} in summary["user_attrs"]
    detail = ask(url, f"/api/studies/{summary['study_id']}")
    assert detail["objective_names"] == ["val_accuracy", "throughput"]
    assert detail["directions"] == ["maximize", "maximize"]
    assert [trial["number"] for trial in detail["best_trials"]] == [0, 1, 2]


def test_every_trial_has_its_parameters_and_what_is_known_of_it_in_columns(url: str) -> None:
    trials = ask(url, "/api/studies/1")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Complete", "Complete", "Fail"]
    assert trials[2]["values"] == pytest.approx([0.9 - 0.1 / 3, 1000 / 3])
    assert [one["name"] for one in trials[2]["params"]] == ["model.depth"]
    columns = {one["key"]: one["value"] for one in trials[2]["user_attrs"]}
    assert columns["status"] == "complete"
    assert columns["test_accuracy"] == "0.85"
    assert columns["command"] == "python -m explore.train model.depth=3"
    assert float(columns["params"]) == 54_321
    assert not {"claim", "evaluation", "heartbeat", "trial", "model.depth"} & set(columns)
    failed = {one["key"]: one["value"] for one in trials[3]["user_attrs"]}
    assert (failed["status"], failed["reason"]) == ("failed", "no such luck")
    assert "throughput" not in failed


CHANGES = [
    ("DELETE", "/api/studies/1", {}),
    ("POST", "/api/studies/1/rename", {"study_name": "boots"}),
    ("POST", "/api/studies", {"study_name": "boots", "directions": ["maximize"]}),
    ("POST", "/api/trials/1/tell", {"state": "Fail"}),
    ("POST", "/api/trials/1/user-attrs", {"user_attrs": {"evaluation": 1}}),
]


@pytest.mark.parametrize(("method", "path", "given"), CHANGES)
def test_nothing_can_be_changed(method: str, path: str, given: object, url: str, study: Study) -> None:
    before = study.trials()
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(url, path, method, given)
    assert refused.value.code == 403
    assert b"shows a study and does not change it" in refused.value.read()
    assert study.trials() == before


def test_a_note_can_be_written(url: str) -> None:
    ask(url, "/api/studies/1/note", "PUT", {"body": "try smaller patches", "version": 1})
    assert ask(url, "/api/studies/1")["note"]["body"] == "try smaller patches"


REFUSED = {
    "port=x": "port must be a number from 0 to 65535, got x",
    "port=70000": "port must be a number from 0 to 65535, got 70000",
    "browser=yes": "browser must be on or off, got yes",
    "": "study must be given, got nothing",
    "study=none": "study none must exist, got no file",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_is_refused_in_words(
    given: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(dashboard.main, given.split(), dashboard.own) == 2
    assert REFUSED[given] in capsys.readouterr().err


def test_an_address_that_is_taken_is_refused_in_words(url: str, study: Study) -> None:
    port = int(url.split(":")[2].partition("/")[0])
    with pytest.raises(ValueError, match=f"got localhost:{port}, which is in use; try port=0"):
        make_dashboard(study._storage, "shoes", "localhost", port)


def test_a_library_that_is_missing_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs optuna-dashboard, .* pip install 'explore\[dashboard\]'"):
        make_dashboard(study._storage, "shoes", "localhost", 0)


def test_a_browser_is_opened_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert not dashboard._has_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.get", lambda: "a browser")
    assert dashboard._has_browser()
