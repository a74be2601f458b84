"""A worker that is ended by a signal says so by its exit status, so that whoever started it begins another one in its
place; who leaves a study that was stopped or has come to its end does not.

python -m pytest tests/test_leaving.py
"""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filled_studies import new_study
from small_sweeps import WHOLE, study_of, wait_for_work_of

from explore import conclusion, worker, working
from explore.command import Refused
from explore.config import compose
from explore.evaluation import INTERRUPTED
from explore.plan import begin, prepare
from explore.search.study import Study
from explore.stop import main as stop


def join(folder: Path, *overrides: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "explore.worker", "study=smoke", f"outputs={folder}", "workers=1", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def begun(folder: Path, *overrides: str) -> None:
    options = ["+sweep=smoke", *WHOLE, "references=[]", f"outputs={folder}", *overrides]
    begin(prepare(compose(options), options))


def test_a_worker_that_is_ended_in_the_middle_is_no_completion(tmp_path: Path) -> None:
    begun(tmp_path, "trials=1", "training.epochs=5000")
    process = join(tmp_path)
    wait_for_work_of(process.pid, tmp_path)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, out + err
    assert "leaves study smoke" in out
    assert "Traceback" not in err
    study = study_of(tmp_path)
    assert [trial.status for trial in study.trials()] == [INTERRUPTED]
    line = ["study=smoke", f"outputs={tmp_path}", "cluster.grace=0"]
    assert stop(compose(line), line) == 0
    stopped = join(tmp_path)
    assert (stopped.communicate(timeout=120)[1], stopped.returncode) == ("", 0), "nobody is to come in its place"


def test_a_study_that_has_ended_is_not_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = new_study()
    monkeypatch.setattr("explore.places.named_study", lambda config: study)
    study.note("command", "python -m explore.sweep +sweep=smoke")
    study.note("concluded", ["trials=3"])
    assert stop(compose([]), []) == 0
    said = capsys.readouterr().out
    assert said == f"study {study.name} has ended, and nobody works on it: there is nothing to stop\n"
    assert not study.notes.get("stop")
    study.note("concluded", "")
    assert stop(compose([]), []) == 0
    assert "was stopped, nobody works on it\nGo on:  python -m explore.sweep" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("orders", "notes", "status"),
    [
        ([], {}, 0),
        ([signal.SIGTERM], {}, 143),
        ([signal.SIGINT], {}, 130),
        ([signal.SIGTERM, signal.SIGINT], {}, 143),
        ([signal.SIGTERM], {"stop": "after the rung"}, 0),
        ([signal.SIGTERM], {"concluded": ["trials=3"]}, 0),
        ([signal.SIGTERM], {"stop": "", "concluded": "", "ended": "nothing better is likely"}, 143),
    ],
)
def test_the_exit_status_says_whether_another_one_has_to_come(
    orders: list[int], notes: dict[str, object], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study()
    for key, value in {"command": "python -m explore.sweep", **notes}.items():
        study.note(key, value)
    monkeypatch.setattr(worker, "_ORDERS", orders)
    assert worker._status_of_orders(study) == status


def test_a_job_of_slurm_that_puts_itself_back_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, put_back = new_study(), list[bool]()
    monkeypatch.setattr(worker, "_ORDERS", [worker.TIME_IS_UP])
    monkeypatch.setattr(worker, "_find", lambda config: study)
    monkeypatch.setattr(worker, "_join", lambda study, overrides: SimpleNamespace(workers=1, study="pareto"))
    monkeypatch.setattr(worker, "_work", lambda plan, study: 0)
    monkeypatch.setattr(worker, "begin_again", lambda: put_back.append(True))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert (worker.main(compose([]), []), put_back) == (128 + worker.TIME_IS_UP, [])
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert (worker.main(compose([]), []), put_back) == (0, [True])


@pytest.fixture
def concluding(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """What comes of concluding, in this order; nothing is left to do, and seconds pass at once."""
    outcomes: list[Path | None] = []

    def conclude(plan: object, study: Study, stop: object) -> Path | None:
        if report := outcomes.pop(0):
            study.note("concluded", ["trials=3"])
        return report

    monkeypatch.setattr(working, "keep_working", lambda *arguments: True)
    monkeypatch.setattr(conclusion, "conclude", conclude)
    monkeypatch.setattr(conclusion.time, "sleep", lambda seconds: None)
    return outcomes


PLAN = SimpleNamespace(study="smoke", trials=3)


def test_who_comes_in_the_place_of_one_that_died_while_it_concluded_waits_until_that_is_certain(
    concluding: list[Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, now = new_study(), [0.0]
    monkeypatch.setattr(conclusion.time, "time", lambda: now[0])
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    study.note("concluding", {"host": "elsewhere", "boot": "another", "processes": "", "pid": 1, "since": 0.0})
    concluding.append(Path("report.html"))
    assert worker._work(PLAN, study) == 0  # type: ignore[arg-type]
    assert study.notes["concluded"]
    assert now[0] >= 900


def test_who_was_there_before_leaves_the_end_to_the_one_that_concludes(concluding: list[Path | None]) -> None:
    study = new_study()
    elsewhere = {"host": "elsewhere", "boot": "another", "processes": "", "pid": 1}

    def others_conclude_meanwhile(*arguments: object) -> bool:
        study.note("concluding", elsewhere | {"since": worker.time.time()})
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(working, "keep_working", others_conclude_meanwhile)
        assert worker._work(PLAN, study) == 0  # type: ignore[arg-type]
    assert not study.notes.get("concluded")


def test_who_leaves_before_it_has_concluded_lets_another_one_do_it_at_once(concluding: list[Path | None]) -> None:
    study = new_study()
    concluding += [None, Path("report.html")]
    assert worker._work(PLAN, study) == 0  # type: ignore[arg-type]
    assert not study.notes["concluding"]
    assert worker._work(PLAN, study) == 0  # type: ignore[arg-type]
    assert study.notes["concluded"]


def test_a_stop_without_workers_says_so_and_takes_no_time_below_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path)
    line = ["study=smoke", f"outputs={tmp_path}"]
    assert stop(compose(line), line) == 0
    assert "explore: no trial is running\n" in capsys.readouterr().err
    line.append("cluster.grace=-1")
    with pytest.raises(Refused, match=r"cluster\.grace must be at least 0 seconds, got -1\.0"):
        stop(compose(line), line)
