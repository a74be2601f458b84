"""Workers on many machines, for real: a PostgreSQL server that asks for a password, and machines that are namespaces
with a name and process numbers of their own.

What is proved: workers that join by the study's name fill it together and the last one concludes; a machine that falls
silent loses its trial to others and cannot write over it when it comes back; the server may be started again meanwhile;
explore.stop ends everybody; the password is nowhere to be seen; a database is made as it is documented.

make test-cluster ARGS=tests/test_cluster_postgres.py
"""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cluster_machines import PATIENCE, ROOT, said_by, signal_machine, start_command, wait_until
from cluster_services import BY_HAND, LEFT_OPEN, PASSWORD, Open, Postgres, assert_whole, begin, epochs_of, run_here

from explore.evaluation import INTERRUPTED, RUNNING
from explore.worker import main as join

pytestmark = [pytest.mark.cluster, LEFT_OPEN]
ENVIRONMENT = {"PGPASSWORD": PASSWORD}


def test_a_database_is_made_as_the_documentation_says(server: Postgres) -> None:
    """The tests' own is called the same, so that this one has another name."""
    (statements,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    for statement in statements.replace("explore", "documented").splitlines():
        server.order(statement)
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(f"postgresql://me:SECRET@127.0.0.1:{server.port}/documented") as connection:
        connection.execute("create table studies (name text)")  # as the first command does


def test_workers_of_two_machines_fill_a_study_and_the_last_one_concludes(
    tmp_path: Path, server: Postgres, opened: Open
) -> None:
    own = ["trials=6", "tracking.mode=offline"]
    places = begin("two", tmp_path, server.url, *own)
    command = [*BY_HAND, *places, f"outputs={tmp_path}", *own, "format=json"]
    follower = start_command("sweep", *command, environment=ENVIRONMENT)
    workers = [start_command("worker", *places, "workers=1", environment=ENVIRONMENT, machine="alpha")]
    secret = {"EXPLORE_STORAGE_URL": server.secret}
    workers += [start_command("worker", "study=two", "workers=1", environment=secret, machine="beta")]
    study = opened("two")
    wait_until(lambda: len({trial.owner["host"] for trial in study.trials()}) == 2, 120, "beginning")
    seen = subprocess.check_output(["ps", "-eo", "args"], text=True)
    said = [said_by(worker) for worker in workers]
    out, err = follower.communicate(timeout=PATIENCE * 120)
    shown = json.loads(out)
    assert_whole(study, 6, epochs=2)
    assert {trial.owner["host"] for trial in study.trials()} == {"alpha", "beta"}
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
    assert len([path for path in files if path.suffix == ".wandb"]) >= 6
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_machine_that_fell_silent_loses_its_trial_and_does_not_write_over_it(
    tmp_path: Path, server: Postgres, opened: Open
) -> None:
    """It is stopped as a whole, as one that is suspended is, and goes on while another one trains its trial."""
    places = begin("silent", tmp_path, server.url, "trials=1", "training.epochs=100")
    study = opened("silent")
    alpha = start_command("worker", *places, "workers=1", environment=ENVIRONMENT, machine="alpha")
    wait_until(lambda: epochs_of(study) > 3, 120, "training")
    signal_machine(alpha, signal.SIGSTOP)
    beta = start_command("worker", *places, "workers=1", environment=ENVIRONMENT, machine="beta")
    wait_until(lambda: study.trials()[0].owner["host"] == "beta", 240, "taking over")
    taken = study.trials()[0]
    assert (taken.number, taken.status) == (0, RUNNING)
    before = (tmp_path / "silent" / "trials" / "0000" / "last.ckpt").read_bytes()
    wait_until(lambda: (tmp_path / "silent" / taken.folder / "last.ckpt").exists(), 60, "a checkpoint")
    assert taken.folder != "trials/0000"
    signal_machine(alpha, signal.SIGCONT)
    said = said_by(alpha), said_by(beta)
    assert_whole(study, 1, epochs=100)
    assert study.trials()[0].owner["host"] == "beta"
    assert len(before) > 1000
    assert not any("Traceback" in words for words in said)


def test_the_server_may_be_started_again_while_workers_work(tmp_path: Path, server: Postgres, opened: Open) -> None:
    places = begin("restarted", tmp_path, server.url, "trials=6", "training.epochs=10")
    study = opened("restarted")
    worker = start_command("worker", *places, "workers=2", environment=ENVIRONMENT)
    for _ in range(3):
        before = epochs_of(study)
        wait_until(lambda before=before: epochs_of(study) > before, 120, "training")
        server.stop("immediate")
        time.sleep(4)
        server.start()
    said = said_by(worker)
    assert_whole(study, 6, epochs=10)
    assert "waiting for the storage" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_stop_ends_workers_everywhere_and_the_study_can_go_on(
    tmp_path: Path, server: Postgres, opened: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    long = ["trials=1", "training.epochs=5000"]
    places = begin("stopped", tmp_path, server.url, *long)
    study = opened("stopped")
    for machine in ("alpha", "beta"):
        before = epochs_of(study)
        worker = start_command("worker", *places, "workers=1", environment=ENVIRONMENT, machine=machine)
        wait_until(lambda before=before: epochs_of(study) > before + 2, 240, "training")
        said = said_by(start_command("stop", *places, "cluster.grace=1", environment=ENVIRONMENT))
        assert "nobody works on it" in said
        assert "Go on:  python -m explore.sweep +sweep=smoke" in said
        said_by(worker, 60)
        [trial] = study.trials()
        assert (trial.status, trial.owner["host"]) == (INTERRUPTED, machine)
        assert run_here(join, *places) == 0
        assert "was stopped; go on with it" in capsys.readouterr().out
        begin("stopped", tmp_path, server.url, *long)
    assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, trial.evaluation.epochs + 1))


def test_a_machine_that_does_not_see_the_folder_is_refused_before_any_work(
    tmp_path: Path, server: Postgres, opened: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    places = begin("folder", tmp_path, server.url, "trials=1")
    assert run_here(join, *places, f"outputs={tmp_path / 'other'}") == 2
    words = "outputs must be the folder where the checkpoints of study folder lie, the same on all machines"
    assert words in capsys.readouterr().err
    study = opened("folder")
    study.note("device", "NVIDIA H100 80GB HBM3")
    assert run_here(join, *places) == 2
    assert "all machines of a study must have the same device" in capsys.readouterr().err
    assert study.trials() == []
