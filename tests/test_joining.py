"""A machine joins a study only if it has in common with it what it must: the folder of checkpoints, the device, and a
storage that machines can share. Its workers see a GPU each. And of all that find nothing left to do, one concludes.

python -m pytest tests/test_joining.py
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filled_studies import add, cost, curve, new_study

from explore import conclusion, joining, working
from explore.candidate import Candidate
from explore.cluster.isolation import start_server
from explore.config import compose
from explore.evaluation import COMPLETE, INTERRUPTED, Evaluation, Report
from explore.evaluator import Job
from explore.faults import Unwritable
from explore.plan import begin, prepare
from explore.search import study as study_module
from explore.search.owner import this_process
from explore.search.study import Study
from explore.working import _gpus


def with_an_interrupted_trial() -> Study:
    study = new_study()
    proposal = add(study, 0.5, 100.0).proposal
    trial = study.claim(replace(proposal, values={"model.depth": 2}), command="", target=9)
    assert trial is not None
    study.finish(trial, Evaluation(status=INTERRUPTED, curve=curve(0.5)))
    return study


def test_machines_that_see_the_same_folder_find_the_mark_in_it(tmp_path: Path) -> None:
    study = new_study()
    with pytest.raises(ValueError, match=r"outputs must be the folder where the checkpoints of study .* lie"):
        joining.check_folder(with_an_interrupted_trial_and_mark(tmp_path / "one"), tmp_path)
    joining.mark_folder(study, tmp_path)
    joining.mark_folder(study, tmp_path)
    joining.check_folder(study, tmp_path)


def with_an_interrupted_trial_and_mark(folder: Path) -> Study:
    folder.mkdir()
    study = with_an_interrupted_trial()
    joining.mark_folder(study, folder)
    return study


def test_a_study_moves_to_another_folder_only_without_checkpoints_to_go_on_from(tmp_path: Path) -> None:
    study = with_an_interrupted_trial_and_mark(tmp_path / "one")
    (tmp_path / "two").mkdir()
    with pytest.raises(ValueError, match="outputs must be the folder where the checkpoints"):
        joining.mark_folder(study, tmp_path / "two")
    finished = new_study()
    add(finished, 0.5, 100.0)
    joining.mark_folder(finished, tmp_path / "one")
    joining.mark_folder(finished, tmp_path / "two")
    joining.check_folder(finished, tmp_path / "two")


def test_of_two_who_begin_a_study_in_different_folders_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would go on with trials whose checkpoints the other one has."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    study = new_study()
    joining.mark_folder(study, tmp_path / "one")
    joining.mark_folder(study, tmp_path / "two")
    joining.check_folder(study, tmp_path / "two")
    with pytest.raises(ValueError, match="outputs must be the folder where the checkpoints"):
        joining.check_folder(study, tmp_path / "one")
    begun = study.claim(add(new_study(), 0.5, 100.0).proposal, command="", target=9)
    assert begun is not None
    with pytest.raises(ValueError, match="outputs must be the folder where the checkpoints"):
        joining.mark_folder(study, tmp_path / "one")
    monkeypatch.setattr(joining, "is_running", lambda owner: False)
    joining.mark_folder(study, tmp_path / "one")


def test_who_works_in_a_folder_that_the_study_has_left_is_told_in_a_line(tmp_path: Path) -> None:
    start_server()
    plans = []
    for name in ("one", "two"):
        more = ["+sweep=smoke", "workers=2", "tracking.mode=disabled", f"storage.url=sqlite:///{tmp_path}/study.db"]
        more.append(f"outputs={tmp_path / name}")
        plans.append(prepare(compose(more), more))
    first, second = map(begin, plans)
    with pytest.raises(Unwritable, match=r"outputs must be the folder where the checkpoints of study smoke lie"):
        working.keep_working(plans[0], first, lambda: None, lambda: False)
    assert second.trials() == []


def test_of_two_who_begin_a_study_at_once_the_second_finds_what_the_first_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else both would find no settings and write their own, and train what cannot be compared."""
    barrier, definition = threading.Barrier(2), Study.definition.fget
    assert definition

    def read_together(study: Study) -> dict[str, object]:
        found: dict[str, object] = definition(study)
        if not found:
            with suppress(threading.BrokenBarrierError):
                barrier.wait(0.5)
        return found

    monkeypatch.setattr(Study, "definition", property(read_together))
    options = ["+sweep=smoke", f"outputs={tmp_path}"]
    plans = [prepare(compose(more), more) for more in ([*options, "training.ema=0.1"], [*options, "training.ema=0.2"])]
    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(begin, plan).exception(60) for plan in plans]
    [refused] = [error for error in outcomes if error]
    assert isinstance(refused, ValueError)
    assert "study smoke exists with other settings" in str(refused)


def test_an_sqlite_file_is_for_one_machine_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    study = with_an_interrupted_trial()
    left = study.interrupted()[0]
    elsewhere = this_process() | {"host": "elsewhere", "boot": "another"}
    monkeypatch.setattr(study_module, "this_process", lambda: elsewhere)
    assert study.claim(left.proposal, command="", target=9, continues=left) is not None
    with pytest.raises(ValueError, match=r"one machine at a time, and elsewhere works on study .*storage=postgres"):
        joining.check_machine(study, "sqlite:///study.db")
    joining.check_machine(study, "postgresql://user@host/name")
    now = time.time()
    monkeypatch.setattr(joining.time, "time", lambda: now + 130)
    joining.check_machine(study, "sqlite:///study.db")


class Asked:
    """In place of a process that asks a GPU for its name."""

    def __init__(self, *arguments: object, **named: object) -> None: ...
    def __enter__(self) -> "Asked":
        return self

    def __exit__(self, *exception: object) -> None: ...
    def submit(self, ask: object, candidate: Candidate) -> "Asked":
        return self

    def result(self) -> tuple[str, None, str]:
        return "NVIDIA H100", None, "2.13.0"


def test_the_first_machine_decides_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "ProcessPoolExecutor", Asked)
    monkeypatch.setattr(joining, "_MOMENT_SECONDS", 0.0)
    study = new_study()
    joining.check_device(study, None)  # type: ignore[arg-type]
    joining.check_device(study, None)  # type: ignore[arg-type]
    assert study.notes["device"] == "NVIDIA H100"
    measured = new_study()
    add(measured, 0.5, 100.0)
    with pytest.raises(ValueError, match=r"must have the same device, .* got NVIDIA H100 on .* for a study of"):
        joining.check_device(measured, None)  # type: ignore[arg-type]


def test_of_two_that_come_at_the_same_moment_one_decides_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "ProcessPoolExecutor", Asked)
    study = new_study()
    monkeypatch.setattr(joining.time, "sleep", lambda seconds: study.note("device", "NVIDIA A100"))
    with pytest.raises(
        ValueError, match=r"must have the same device, .* got NVIDIA H100 on .* for a study of NVIDIA A"
    ):
        joining.check_device(study, None)  # type: ignore[arg-type]


def test_of_all_that_find_nothing_left_to_do_one_concludes(monkeypatch: pytest.MonkeyPatch) -> None:
    study = new_study()
    asked: list[bool] = []

    def others_ask_meanwhile(seconds: float) -> None:
        if len(asked) < 3:
            asked.append(True)
            asked.append(conclusion.chosen_to_conclude(study))

    monkeypatch.setattr(conclusion.time, "sleep", others_ask_meanwhile)
    assert conclusion.chosen_to_conclude(study)
    assert asked == [True, False]
    study.note("concluding", this_process() | {"pid": os.getpid(), "started": "1", "since": 0})
    assert conclusion.chosen_to_conclude(study), "the one before has died"
    study.note("concluded", ["trials=3"])
    assert not conclusion.chosen_to_conclude(study)


def test_the_end_of_a_search_computes_with_the_cores_of_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch by itself takes a thread for each core of the machine around it."""
    used: list[int] = []
    monkeypatch.setattr(conclusion, "compare_speeds", lambda plan, study: used.append(torch.get_num_threads()))
    monkeypatch.setattr(conclusion, "retrain", lambda *arguments: False)
    monkeypatch.setattr(conclusion, "_measure_test_accuracy", lambda *arguments: None)
    plan = SimpleNamespace(design=None)
    for count in (1, 2, 64):
        torch.set_num_threads(2)
        monkeypatch.setattr(conclusion, "cores", lambda count=count: count)
        assert conclusion.conclude(plan, new_study()) is None  # type: ignore[arg-type]
    assert used == [1, 2, 2]


def test_workers_of_a_machine_see_gpus_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [_gpus(place, 1, 2).get("CUDA_VISIBLE_DEVICES") for place in range(3)] == ["0", "1", "0"]
    assert [_gpus(place, 2, 4).get("CUDA_VISIBLE_DEVICES") for place in range(3)] == ["0,1", "2,3", "0,1"]
    assert _gpus(0, 1, 1) == _gpus(0, 1, 0) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-6")
    assert [_gpus(place, 1, 2)["CUDA_VISIBLE_DEVICES"] for place in range(2)] == ["4", "GPU-6"]


def telling(job: Job, folder: Path, report: Report) -> Evaluation:
    """Say which GPUs this process of a trial sees, once the other trial has begun: one worker has each."""
    (folder / f"gpus{os.environ.get('LOCAL_RANK', 0)}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    deadline = time.monotonic() + 60
    while len(list(folder.parent.glob("*/gpus0"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return Evaluation(status=COMPLETE, cost=cost(1000.0), curve=curve(0.5))


@pytest.mark.parametrize(
    ("devices", "seen"), [(1, {("0",), ("1",)}), (2, {("0,1", "0,1"), ("2,3", "2,3")})], ids=["one each", "two each"]
)
def test_the_processes_of_a_trial_see_the_gpus_of_their_worker(
    devices: int, seen: set[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPUs are pretended; processes, environment and everything between are those of a search."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * devices)
    monkeypatch.setattr(working, "train", telling)
    options = ["+sweep=smoke", "trials=2", "workers=2", "training.epochs=3", "sampler=random", "stopping.rule=off"]
    options += [f"training.devices={devices}", "tracking.mode=disabled", f"outputs={tmp_path}"]
    start_server()
    plan = prepare(compose(options), options)
    study = begin(plan)
    assert working.keep_working(plan, study, lambda: None, lambda: False)
    assert [trial.status for trial in study.trials()] == [COMPLETE, COMPLETE]
    folders = [plan.output / trial.folder for trial in study.trials()]
    assert {tuple((one / f"gpus{place}").read_text() for place in range(devices)) for one in folders} == seen
    assert "CUDA_VISIBLE_DEVICES" not in os.environ, "the worker itself sees all"


def test_all_workers_leave_when_one_finds_that_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def work(plan: object, study: Study, faults: list[Unwritable], place: int, stop: object) -> None:
        begun.append(place)
        if place == 1:
            faults.append(Unwritable("no space is left"))
        while not faults:
            time.sleep(0.01)

    monkeypatch.setattr(working, "work", work)
    with pytest.raises(Unwritable, match="no space is left"):
        working.keep_working(SimpleNamespace(workers=3), new_study(), lambda: None, lambda: False)  # type: ignore[arg-type]
    assert sorted(begun) == [0, 1, 2], "none was replaced"
