"""Workers on many machines, for real: a PostgreSQL server that asks for a password, and machines that are namespaces
with a name and process numbers of their own.

What is proved: workers that join by the study's name fill it together and the last one concludes; a machine that falls
silent loses its trial to others and cannot write over it when it comes back; the server may be started again meanwhile;
explore.stop ends everybody; the password is nowhere to be seen.

make test-cluster ARGS=tests/test_cluster_postgres.py
"""

import json
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from cluster_services import (
    LEFT_OPEN,
    PASSWORD,
    PATIENCE,
    Open,
    Postgres,
    said_by,
    signal_machine,
    start_command,
    wait_until,
)

from explore.evaluation import COMPLETE, INTERRUPTED, RUNNING
from explore.search.study import Study, finished

pytestmark = [pytest.mark.cluster, LEFT_OPEN]
SWEEP = ["+sweep=smoke", "references=[]", "sampler=tpe", "stopping.rule=off", "cluster=manual", "storage=postgres"]


@pytest.fixture
def environment(server: Postgres) -> dict[str, str]:
    return {"PGPASSWORD": PASSWORD}


def begin(name: str, folder: Path, server: Postgres, environment: Mapping[str, str], *more: str) -> list[str]:
    """Begin a study; where it is, for other commands."""
    places = [f"study={name}", f"storage.url={server.url}"]
    said_by(
        start_command(
            "sweep", *SWEEP, *places, f"outputs={folder}", "cluster.follow=false", *more, environment=environment
        )
    )
    return places


def epochs_of(study: Study) -> int:
    return sum(trial.evaluation.epochs for trial in study.trials())


def test_workers_of_two_machines_fill_a_study_and_the_last_one_concludes(
    tmp_path: Path, server: Postgres, environment: dict[str, str], opened: Open
) -> None:
    places = begin("two", tmp_path, server, environment, "trials=6")
    command = [*SWEEP, *places, f"outputs={tmp_path}", "trials=6", "format=json"]
    follower = start_command("sweep", *command, environment=environment)
    workers = [start_command("worker", *places, "workers=1", environment=environment, machine="alpha")]
    secret = {"EXPLORE_STORAGE_URL": server.secret}
    workers += [start_command("worker", "study=two", "workers=1", environment=secret, machine="beta")]
    study = opened("two")
    wait_until(lambda: len({trial.owner["host"] for trial in study.trials()}) == 2, 120, "beginning")
    seen = subprocess.check_output(["ps", "-eo", "args"], text=True)
    said = [said_by(worker) for worker in workers]
    out, err = follower.communicate(timeout=PATIENCE * 120)
    shown = json.loads(out)
    trials = study.trials()
    assert [trial.status for trial in trials] == [COMPLETE] * 6
    assert len({trial.proposal.key for trial in trials}) == 6
    assert {trial.owner["host"] for trial in trials} == {"alpha", "beta"}
    assert sum("nothing is left to do, report" in words for words in said) == 1
    assert shown["trials"] == {"complete": 6}
    assert all(member["test_accuracy"] is not None for member in shown["front"])
    assert (tmp_path / "two" / "report.html").exists()
    # The password is nowhere.
    configuration = said_by(start_command("worker", "study=two", "--cfg", "job", environment=secret))
    notes = json.dumps(study.notes)
    for text in (*said, out, err, configuration, notes, seen):
        assert PASSWORD not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_a_machine_that_fell_silent_loses_its_trial_and_does_not_write_over_it(
    tmp_path: Path, server: Postgres, environment: dict[str, str], opened: Open
) -> None:
    """It is stopped as a whole, as one that is suspended is, and goes on while another one trains its trial."""
    places = begin("silent", tmp_path, server, environment, "trials=1", "training.epochs=400")
    study = opened("silent")
    alpha = start_command("worker", *places, "workers=1", environment=environment, machine="alpha")
    wait_until(lambda: epochs_of(study) > 3, 120, "training")
    signal_machine(alpha, signal.SIGSTOP)
    beta = start_command("worker", *places, "workers=1", environment=environment, machine="beta")
    wait_until(lambda: study.trials()[0].owner["host"] == "beta", 240, "taking over")
    taken = study.trials()[0]
    assert (taken.number, taken.status) == (0, RUNNING)
    before = (tmp_path / "silent" / "trials" / "0000" / "last.ckpt").read_bytes()
    wait_until(lambda: (tmp_path / "silent" / taken.folder / "last.ckpt").exists(), 60, "a checkpoint")
    assert taken.folder != "trials/0000"
    signal_machine(alpha, signal.SIGCONT)
    said = said_by(alpha), said_by(beta)
    (trial,) = study.trials()
    assert (trial.status, trial.owner["host"]) == (COMPLETE, "beta")
    assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, 401))
    assert len(before) > 1000
    assert not any("Traceback" in words for words in said)


def test_the_server_may_be_started_again_while_workers_work(
    tmp_path: Path, server: Postgres, environment: dict[str, str], opened: Open
) -> None:
    places = begin("restarted", tmp_path, server, environment, "trials=6", "training.epochs=10")
    study = opened("restarted")
    worker = start_command("worker", *places, "workers=2", environment=environment)
    for _ in range(3):
        before = epochs_of(study)
        wait_until(lambda before=before: epochs_of(study) > before, 120, "training")
        server.stop("immediate")
        time.sleep(4)
        server.start()
    said = said_by(worker)
    assert [trial.status for trial in finished(study.trials())] == [COMPLETE] * 6
    assert "waiting for the storage" in said
    assert "Traceback" not in said


def test_stop_ends_workers_everywhere_and_the_study_can_go_on(
    tmp_path: Path, server: Postgres, environment: dict[str, str], opened: Open
) -> None:
    long = ["trials=1", "training.epochs=5000"]
    places = begin("stopped", tmp_path, server, environment, *long)
    study = opened("stopped")
    for machine in ("alpha", "beta"):
        before = epochs_of(study)
        worker = start_command("worker", *places, "workers=1", environment=environment, machine=machine)
        wait_until(lambda before=before: epochs_of(study) > before + 2, 240, "training")
        said = said_by(start_command("stop", *places, "cluster.grace=1", environment=environment))
        assert "nobody works on it" in said
        assert "Go on:  python -m explore.sweep +sweep=smoke" in said
        said_by(worker, 60)
        [trial] = study.trials()
        assert (trial.status, trial.owner["host"]) == (INTERRUPTED, machine)
        assert "was stopped; go on with it" in said_by(start_command("worker", *places, environment=environment))
        begin("stopped", tmp_path, server, environment, *long)
    assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, trial.evaluation.epochs + 1))


def test_a_machine_that_does_not_see_the_folder_is_refused_before_any_work(
    tmp_path: Path, server: Postgres, environment: dict[str, str], opened: Open
) -> None:
    places = begin("folder", tmp_path, server, environment, "trials=1")
    worker = start_command("worker", *places, f"outputs={tmp_path / 'other'}", environment=environment)
    _, err = worker.communicate(timeout=PATIENCE * 120)
    assert worker.returncode == 2
    assert "outputs must be the folder where the checkpoints of study folder lie, the same on all machines" in err
    study = opened("folder")
    study.note("device", "NVIDIA H100 80GB HBM3")
    worker = start_command("worker", *places, environment=environment)
    _, err = worker.communicate(timeout=PATIENCE * 120)
    assert worker.returncode == 2
    assert "all machines of a study must have the same device" in err
    assert study.trials() == []
