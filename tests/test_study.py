"""Whoever claims, from however many processes: no configuration twice, no trial too many, nothing lost when an owner
dies, and nothing overwritten by one who was given up. Storages are refused without their passwords."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from explore.cost.record import Cost, Throughput
from explore.evaluation import COMPLETE, DIVERGED, FAILED, INTERRUPTED, REFUSED, RUNNING, Epoch, Evaluation
from explore.search import owner
from explore.search import study as study_module
from explore.search.storage import open_storage, open_study
from explore.search.study import SILENT, Study, TakenOver, create_study, study_names
from explore.search.trial import Proposal, finished, front

DEFINITION = {"space": {"x": "range(100)"}, "data": {"name": "digits", "val": 0.2}}
SPEED = Throughput(
    images_per_second=100.0,
    low=90.0,
    high=110.0,
    latency_ms=1.0,
    batch_size=8,
    precision="32-true",
    device="table",
    threads=1,
    blocks=3,
    torch_version="none",
)


def cost(speed: float = 100.0) -> Cost:
    return Cost(params=10, macs=20, memory_bytes=30, throughput=replace(SPEED, images_per_second=speed))


def epoch(number: int, accuracy: float = 0.5) -> Epoch:
    return Epoch(epoch=number, train_loss=1.0, val_loss=1.5, val_accuracy=accuracy, lr=0.1, seconds=0.5)


def complete(accuracy: float = 0.5, speed: float = 100.0) -> Evaluation:
    return Evaluation(status=COMPLETE, cost=cost(speed), curve=(epoch(0, accuracy),), seconds={"train": 1.0})


def proposal(x: int) -> Proposal:
    return Proposal(
        values={"x": x},
        distributions={"x": IntDistribution(0, 99)},
        overrides=[f"x={x}"],
        sampler_state={"generation": x},
    )


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def opened(folder: Path, definition: Mapping[str, Any] = DEFINITION) -> Study:
    return create_study(open_storage(url(folder)), "table", definition)


def kept_in_memory() -> Study:
    return create_study(InMemoryStorage(), "table", DEFINITION)


def claim_all(folder: Path, target: int, start: Any) -> None:
    """Claim the same configurations as everybody else, in the same order, and finish what was won."""
    start.wait()
    study = opened(folder)
    for x in range(2 * target):
        if trial := study.claim(proposal(x), command="", target=target):
            study.finish(trial, complete(x / 100))


def assert_exact(study: Study, target: int) -> None:
    keys = [trial.proposal.key for trial in study.trials()]
    assert len(keys) == len(set(keys)) == target
    assert {trial.status for trial in study.trials()} == {COMPLETE}


def test_processes_that_claim_the_same_share_a_study_of_exact_size(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    processes = [context.Process(target=claim_all, args=(tmp_path, 5, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 3
    assert_exact(opened(tmp_path), 5)


def test_threads_that_claim_the_same_share_a_study_of_exact_size(tmp_path: Path) -> None:
    opened(tmp_path)
    start = threading.Barrier(3)
    threads = [threading.Thread(target=claim_all, args=(tmp_path, 4, start)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_exact(opened(tmp_path), 4)


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    study = opened(tmp_path)
    trial = study.claim(proposal(7), command="python -m explore.train x=7", target=3)
    assert trial is not None
    for count in range(13):
        curve = tuple(epoch(number, number / 100) for number in range(count))
        study.record(trial, Evaluation(status=RUNNING, cost=cost(), curve=curve))
    [running] = opened(tmp_path).trials()
    assert (running.status, running.accuracy, running.throughput) == (RUNNING, 0.11, 100.0)
    assert [item.epoch for item in running.evaluation.curve] == list(range(12))
    evaluation = replace(complete(), reason="why", constraints={"params": -0.5})
    assert study.finish(trial, evaluation)
    [read] = opened(tmp_path).trials()
    assert (read.evaluation, read.proposal) == (evaluation, proposal(7))
    assert (read.number, read.command, read.folder) == (0, "python -m explore.train x=7", "trials/0000")
    assert read.started is not None
    assert read.ended is not None


def test_a_study_that_was_read_before_reads_what_one_opened_anew_reads(tmp_path: Path) -> None:
    lasting, other = opened(tmp_path), opened(tmp_path)
    for x in range(6):
        assert lasting.claim(proposal(x), command="", target=9) is not None
        assert other.claim(proposal(x), command="", target=9) is None
        before = lasting.trials()
        for late in [t for t in before if t.status == RUNNING and t.number % 3 != 0]:
            other.finish(late, complete(x / 10))
        assert lasting.trials() == opened(tmp_path).trials()
        assert all(old is new for old, new in zip(before, lasting.trials(), strict=True) if old.status == COMPLETE)


@pytest.mark.parametrize("status", [REFUSED, DIVERGED, FAILED])
def test_every_end_counts_as_finished_and_keeps_its_reason(status: str) -> None:
    study = kept_in_memory()
    trial = study.claim(proposal(1), command="", target=1)
    assert trial is not None
    assert study.finish(trial, Evaluation(status=status, reason="because"))
    [read] = study.trials()
    assert (read.status, read.evaluation.reason) == (status, "because")
    assert finished([read]) == [read]
    assert study.claim(proposal(2), command="", target=1) is None


def test_withdrawn_trials_are_not_seen_and_do_not_count() -> None:
    study = kept_in_memory()
    assert study.claim(proposal(1), command="", target=2) is not None
    assert study.claim(proposal(1), command="", target=2) is None
    assert study.claim(proposal(2), command="", target=2) is not None
    assert study.claim(proposal(3), command="", target=2) is None
    assert [trial.proposal.values["x"] for trial in study.trials()] == [1, 2]


def test_the_successor_takes_the_folder_and_only_one_may_succeed() -> None:
    study = kept_in_memory()
    first = study.claim(proposal(1), command="", target=1)
    assert first is not None
    study.finish(first, Evaluation(status=INTERRUPTED))
    [left] = study.interrupted()
    second = study.claim(left.proposal, command="", target=1, continues=left)
    assert second is not None
    assert (second.folder, second.continues) == (first.folder, first.number)
    assert study.claim(left.proposal, command="", target=1, continues=left) is None
    assert study.interrupted() == []
    study.finish(second, Evaluation(status=INTERRUPTED))
    [again] = study.interrupted()
    third = study.claim(again.proposal, command="", target=1, continues=again)
    assert third is not None
    assert (third.folder, third.continues) == (first.folder, second.row)


CLAIM_AND_SLEEP = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from explore.evaluation import RUNNING, Evaluation
from test_study import opened, proposal, epoch
study = opened(Path({folder!r}))
trial = study.claim(proposal(1), command="", target=2)
study.record(trial, Evaluation(status=RUNNING, curve=(epoch(0),)))
print("claimed", flush=True)
time.sleep(60)
"""


def test_the_trial_of_a_killed_worker_is_found_and_its_late_end_does_not_count(tmp_path: Path) -> None:
    script = CLAIM_AND_SLEEP.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "claimed\n"
        study = opened(tmp_path)
        [trial] = study.trials()
        assert study.interrupted() == []
        os.kill(owner.pid, signal.SIGKILL)
        # Not waited for yet: a zombie is dead too.
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
        [left] = study.interrupted()
    assert (left.number, left.status) == (trial.number, INTERRUPTED)
    assert [item.epoch for item in left.evaluation.curve] == [0]
    successor = study.claim(left.proposal, command="", target=2, continues=left)
    assert successor is not None
    assert not study.finish(trial, complete())
    with pytest.raises(TakenOver):
        study.beat(trial)
    assert [t.status for t in opened(tmp_path).trials()] == [RUNNING]


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(owner.time, "monotonic", lambda: seconds)


def test_the_trial_of_this_process_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    study = kept_in_memory()
    study.claim(proposal(1), command="", target=1)
    for now in range(0, 1000, 10):
        at(monkeypatch, now)
        assert study.interrupted() == []


def elsewhere() -> dict[str, Any]:
    return owner.this_process() | {"host": "elsewhere", "boot": "another"}


def test_a_worker_elsewhere_is_given_up_when_its_heart_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the one who watches: that of the other machine may be wrong by hours."""
    monkeypatch.setattr(study_module, "this_process", elsewhere)
    study = kept_in_memory()
    trial = study.claim(proposal(1), command="", target=1)
    assert trial is not None
    for now in range(1000, 1500, 20):
        at(monkeypatch, now)
        if now <= 1200:
            study.beat(trial)
        left = study.interrupted()
        assert [one.evaluation.reason for one in left] == ([SILENT] if now > 1320 else [])
    with pytest.raises(TakenOver, match="trial 0 was given up for dead"):
        study.beat(trial)
    with pytest.raises(TakenOver):
        study.record(trial, Evaluation(status=RUNNING))


def test_nobody_is_given_up_for_the_time_that_nobody_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a storage cannot be reached, no heart can be heard."""
    monkeypatch.setattr(study_module, "this_process", elsewhere)
    study = kept_in_memory()
    study.claim(proposal(1), command="", target=1)
    for now in (1000, 1030, 9000, 9030, 9060, 9090, 9110):
        at(monkeypatch, now)
        assert study.interrupted() == []
    at(monkeypatch, 9130)
    assert len(study.interrupted()) == 1


def test_a_newer_process_of_the_same_number_is_not_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    before = owner.this_process() | {"started": "1"}
    monkeypatch.setattr(study_module, "this_process", lambda: before)
    study = kept_in_memory()
    study.claim(proposal(1), command="", target=1)
    assert [one.evaluation.reason for one in study.interrupted()] == ["its worker died"]


def test_containers_of_one_host_do_not_look_for_the_processes_of_another() -> None:
    mine = owner.this_process()
    assert owner.is_here(mine)
    assert not owner.is_here(mine | {"processes": "pid:[1]"})
    assert not owner.is_here({"host": mine["host"], "pid": mine["pid"], "started": mine["started"]})


def test_a_claim_that_was_written_twice_is_one_trial() -> None:
    """As by a storage that lost the connection before it could say that the first one was written."""

    class Twice(InMemoryStorage):
        def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
            super().create_new_trial(study_id, template_trial)
            return super().create_new_trial(study_id, template_trial)

    study = create_study(Twice(), "table", DEFINITION)
    trial = study.claim(proposal(1), command="", target=1)
    assert trial is not None
    assert [one.row for one in study.trials()] == [0]
    assert study.finish(trial, complete())


@pytest.mark.parametrize("before", [complete(), Evaluation(status="withdrawn")], ids=lambda one: one.status)
def test_a_claim_that_is_written_once_more_when_its_trial_has_ended_is_withdrawn(before: Evaluation) -> None:
    """As by a proxy that had waited for its database for longer than the worker waited for the proxy."""
    storage = InMemoryStorage()
    study = create_study(storage, "table", DEFINITION)
    trial = study.claim(proposal(1), command="", target=1)
    assert trial is not None
    template = storage.get_trial(trial.trial_id)
    study.finish(trial, before)
    storage.create_new_trial(0, template)
    statuses = [one.status for one in study.trials()]
    assert statuses[-1] == RUNNING
    assert [one.status for one in study.trials_without_dead()] == statuses[:-1]
    assert not [one for one in Study(storage, "table").trials() if one.status == RUNNING]


def test_notes_are_kept_beside_the_definition(tmp_path: Path) -> None:
    opened(tmp_path).note("test_accuracy", {"3": 0.5})
    assert opened(tmp_path).notes == {"test_accuracy": {"3": 0.5}}
    assert opened(tmp_path).definition == DEFINITION


def test_the_front_holds_complete_trials_fastest_first() -> None:
    study = kept_in_memory()
    ends = [complete(0.9, 10), complete(0.5, 100), complete(0.4, 50), complete(0.7, 20)]
    for x, end in enumerate([*ends, Evaluation(status=DIVERGED, cost=cost(999), curve=(epoch(0, 0.99),))]):
        trial = study.claim(proposal(x), command="", target=9)
        assert trial is not None
        study.finish(trial, end)
    assert [trial.proposal.values["x"] for trial in front(study.trials())] == [1, 3, 0]
    assert front([]) == []


def test_an_existing_study_is_opened_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"study table must exist, got no file .*study.db; run python -m explore.sweep"
    ):
        open_study(url(tmp_path), "table")
    assert list(tmp_path.iterdir()) == []
    opened(tmp_path)
    assert study_names(open_storage(url(tmp_path))) == ["table"]
    assert open_study(url(tmp_path), "table").definition == DEFINITION
    with pytest.raises(ValueError, match="study must be one of table, got 'chair'"):
        open_study(url(tmp_path), "chair")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("secret", "storage.url must be an SQLAlchemy URL such as sqlite:///study.db"),
        ("postgresql://user:secret", "storage.url must be an SQLAlchemy URL such as sqlite:///study.db"),
        ("postgresql://user:secret@host:port/name", "storage.url must be an SQLAlchemy URL such as sqlite:///study.db"),
        ("nothing://user:secret@host/name", "storage.url must name a database that answers, got nothing://user:***@"),
        ("sqlite:////no/such/folder/study.db", "got sqlite:////no/such/folder/study.db: unable to open database file"),
    ],
)
def test_a_storage_that_is_none_is_refused_without_its_password(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        open_storage(address)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("nothing of the kind, and long enough to be looked at" * 99)
    with pytest.raises(ValueError, match="file is not a database"):
        open_storage(url(tmp_path))
