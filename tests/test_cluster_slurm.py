"""Workers as jobs of Slurm, for real: a cluster of three nodes, each a machine of its own, and studies in PostgreSQL.

What is proved: an array of workers fills a study while the command follows; Ctrl-C leaves them at work and the same
command finds them again; explore.stop empties the queue; a time limit, preemption, a job that is cancelled or put
back and a node that dies cost no epoch that a checkpoint holds, and no trial is trained twice; jobs get the GPUs that
were asked for; what Slurm refuses is refused in its words.

make test-cluster ARGS=tests/test_cluster_slurm.py
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_machines import PATIENCE, ROOT, Command, said_by, signal_all, start_command, trial_processes, wait_until
from cluster_services import (
    EPOCHS,
    LEFT_OPEN,
    PASSWORD,
    SMALL,
    Open,
    Postgres,
    Slurm,
    assert_whole,
    epochs_of,
    hanging,
    in_the_middle,
    run_here,
    start_slurm,
)

from explore.cluster.job import Job
from explore.cluster.slurm import Slurm as Options
from explore.evaluation import INTERRUPTED, RUNNING
from explore.search.study import Study
from explore.sweep import main as sweep

pytestmark = [pytest.mark.cluster, LEFT_OPEN]
SWEEP = [*SMALL, "cluster=slurm", "cluster.time=10m"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with start_slurm(3) as slurm:
        yield slurm


class Search:
    """The commands about one study."""

    def __init__(self, name: str, folder: Path, server: Postgres, slurm: Slurm, *more: str) -> None:
        self.environment = {**slurm.environment, "PGPASSWORD": PASSWORD}
        self.places = [f"study={name}", "storage=postgres", f"storage.url={server.url}"]
        self.folder, self.slurm, self.more = folder / name, slurm, more
        self.name = name

    def sweep(self, *more: str) -> Command:
        return start_command("sweep", *self.arguments(*more), environment=self.environment)

    def arguments(self, *more: str) -> list[str]:
        return [*SWEEP, *self.places, f"outputs={self.folder.parent}", *self.more, *more]

    def stop(self) -> str:
        return said_by(start_command("stop", *self.places, "cluster.grace=1", environment=self.environment))

    def begun(self, opened: Open, command: Command) -> Study:
        """The study, when its workers are in the queue."""
        wait_until(self.jobs, 120, "submitting", [command])
        return opened(self.name)

    def jobs(self) -> list[str]:
        return self.slurm.run("squeue", "-h", "-r", "-o", "%T", f"--name=explore-{self.name}").split()

    def logs(self) -> list[str]:
        return [path.read_text() for path in sorted((self.folder / "workers").glob("*.log"))]


def started(search: Search, opened: Open, *more: str, trials: int = 2) -> tuple[Command, Study]:
    """A search of which so many trials hang in the middle, so that what is to meet them there does.

    Of three nodes with two processors each, every worker has one to itself.
    """
    command = search.sweep(f"training.epochs={EPOCHS}", "cluster.cpus=2", *more)
    study = search.begun(opened, command)
    wait_until(lambda: len(hanging(study, search.slurm.machines)) == trials, 120, "training", [command])
    assert PASSWORD not in subprocess.check_output(["ps", "-eo", "args"], text=True)
    return command, study


def test_an_array_of_workers_fills_a_study_while_the_command_follows(
    tmp_path: Path, server: Postgres, slurm: Slurm
) -> None:
    search = Search("array", tmp_path, server, slurm, "trials=4", "workers=2", "cluster.gpus=1", "format=json")
    command = search.sweep("cluster.setup=['echo gpus $CUDA_VISIBLE_DEVICES']")
    out, err = command.communicate(timeout=PATIENCE * 300)
    assert command.returncode == 0, err
    shown = json.loads(out)
    assert shown["trials"] == {"complete": 4}
    assert shown["go_on"] is None
    assert all(member["test_accuracy"] is not None for member in shown["front"])
    assert (search.folder / "report.html").exists()
    wait_until(lambda: not search.jobs(), 60, "leaving")
    logs = search.logs()
    assert len(logs) == 2
    assert all(re.match(r"gpus [01]\n", log) for log in logs)
    assert sum("nothing is left to do, report" in log for log in logs) == 1
    assert PASSWORD not in "".join([*logs, out, err, slurm.run("scontrol", "show", "job")])


@pytest.mark.slow
def test_ctrl_c_leaves_the_workers_which_the_same_command_finds_and_stop_ends(
    tmp_path: Path, server: Postgres, slurm: Slurm, opened: Open
) -> None:
    search = Search("left", tmp_path, server, slurm, "trials=4", "workers=2", "training.epochs=2000")
    follower = search.sweep()
    wait_until(lambda: len(search.jobs()) == 2, 120, "submitting")
    study = opened(search.name)
    wait_until(lambda: epochs_of(study) > 4, 120, "training")
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=PATIENCE * 60)
    assert follower.returncode == 130
    assert "The workers go on. Follow them again: python -m explore.sweep +sweep=smoke" in err
    assert "Stop them: python -m explore.stop study=left storage=postgres" in err
    assert "Traceback" not in err
    before = epochs_of(study)
    wait_until(lambda: epochs_of(study) > before, 60, "going on")
    again = said_by(search.sweep("cluster.follow=false"))
    assert "in the queue" not in again
    more = said_by(search.sweep("cluster.follow=false", "workers=3"))
    assert "1 worker is in the queue" in more
    assert len(search.jobs()) == 3
    assert "nobody works on it" in search.stop()
    wait_until(lambda: not search.jobs(), 60, "leaving")
    assert not [trial for trial in study.trials() if trial.status == RUNNING]


@pytest.mark.slow
def test_preempted_workers_begin_again_and_go_on(tmp_path: Path, server: Postgres, slurm: Slurm, opened: Open) -> None:
    search = Search("preempted", tmp_path, server, slurm, "trials=2", "workers=2")
    command, study = started(search, opened, "cluster.partition=low")
    slurm.run("sbatch", "--partition=high", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap=sleep 15")
    wait_until(lambda: "RUNNING" not in search.jobs(), 120, "preemption", [command])
    said_by(command, 500)
    assert_whole(study, 2, epochs=EPOCHS)
    assert [trial.continues is not None for trial in study.trials()] == [True, True]
    assert [log.count("join study") for log in search.logs()] == [2, 2]


@pytest.mark.slow
def test_at_the_time_limit_a_worker_leaves_and_begins_again_until_the_end(
    tmp_path: Path, server: Postgres, slurm: Slurm, opened: Open
) -> None:
    """Where a machine is slow, more jobs are needed."""
    search = Search("limited", tmp_path, server, slurm, "trials=2", "workers=1")
    command, study = started(search, opened, "cluster.time=3m", trials=1)
    said_by(command, 400)
    assert_whole(study, 2, epochs=EPOCHS)
    (log,) = search.logs()
    assert log.count("join study") == log.count("leaves study") >= 2, "it left by itself before Slurm ended it"
    assert "DUE TO TIME LIMIT" not in log
    reasons = [one.evaluation.reason for one in study.stretches() if one.status == INTERRUPTED]
    assert set(reasons) == {"stopped from outside"}
    assert len(reasons) < log.count("join study"), "each job leaves one trial at most"
    assert "JOB REQUEUE" not in log.partition("nothing is left to do")[2], "who has concluded does not begin again"


def test_a_job_that_begins_again_leaves_the_others_of_its_array_alone(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    again = f'{sys.executable} -c "from explore.cluster.slurm import begin_again; begin_again()"'
    first = '[ "$SLURM_JOB_ID" = "$SLURM_ARRAY_JOB_ID" ] && [ -z "$SLURM_RESTART_COUNT" ]'
    script = f"echo begun; if {first}; then sleep 3; {again}; fi; sleep 20"
    job = Job(name="explore-again", command=["sh", "-c", script], folder=ROOT, secrets={}, logs=tmp_path)
    Options().submit(job, 2)
    wait_until(lambda: not slurm.run("squeue", "-h", "--name=explore-again"), 90, "the jobs")
    assert sorted(log.read_text().count("begun") for log in tmp_path.glob("*.log")) == [1, 2]


@pytest.mark.slow
def test_a_job_that_is_cancelled_leaves_its_trial_to_one_that_is_put_back(
    tmp_path: Path, server: Postgres, slurm: Slurm, opened: Open
) -> None:
    search = Search("cancelled", tmp_path, server, slurm, "trials=2", "workers=2")
    command, study = started(search, opened)
    cancelled, put_back = slurm.run("squeue", "-h", "-r", "-o", "%i", f"--name=explore-{search.name}").split()
    slurm.run("scontrol", "requeue", put_back)
    slurm.run("scancel", cancelled)
    wait_until(lambda: len(search.jobs()) == 1, 60, "cancelling")
    said_by(command)
    assert_whole(study, 2, epochs=EPOCHS)
    assert len([one for one in study.stretches() if one.continues is not None]) == 2
    assert sorted(log.count("join study") for log in search.logs()) == [1, 2], "who was cancelled does not begin again"


@pytest.mark.slow
def test_the_trial_of_a_node_that_dies_goes_on_elsewhere(
    tmp_path: Path, server: Postgres, slurm: Slurm, opened: Open
) -> None:
    search = Search("died", tmp_path, server, slurm, "trials=3", "workers=2")
    command, study = started(search, opened)
    lost, *_ = in_the_middle(study)
    slurm.end_node(lost.owner["host"])
    signal_all(trial_processes(slurm.machines.values()), signal.SIGCONT)
    try:
        said_by(command, 600)
    finally:
        slurm.start_node(lost.owner["host"])
    assert_whole(study, 3, epochs=EPOCHS)
    [again] = [one for one in study.stretches() if one.continues is not None]
    assert (again.continues, again.number) == (lost.row, lost.number)
    assert again.owner["host"] != lost.owner["host"]
    assert sorted(log.count("join study") for log in search.logs()) == [1, 2], "Slurm has begun it again elsewhere"
    wait_until(lambda: slurm.idle() == 3, 120, "the node")


def test_what_slurm_refuses_is_refused_in_its_words(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    job = Job(name="explore-refused", command=["true"], folder=tmp_path, secrets={}, logs=tmp_path)
    for options, words in (
        (Options(partition="none"), "invalid partition specified: none"),
        (Options(gpus=99), "Requested node configuration is not available"),
        (Options(options=["--nonsense"]), "unrecognized option '--nonsense'"),
    ):
        options.check()
        with pytest.raises(ValueError, match=f"Slurm must take the jobs, got: sbatch: .*{words}"):
            options.submit(job, 2)
    assert not slurm.run("squeue", "-h", "--name=explore-refused")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("cluster.time=soon", "cluster.time must be a time such as 30m, 4h or 2d, got soon"),
        ("PATH=/nowhere", "cluster=slurm needs the command sbatch, got none here; run it on a login node"),
    ],
)
def test_what_cannot_be_is_refused_by_the_command(
    more: str,
    message: str,
    tmp_path: Path,
    server: Postgres,
    slurm: Slurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    search = Search("refused", tmp_path, server, slurm, "workers=1")
    name, _, value = more.partition("=")
    if name == "PATH":
        monkeypatch.setenv(name, value)
    assert run_here(sweep, *search.arguments(*([] if name == "PATH" else [more]))) == 2
    assert message in capsys.readouterr().err
    assert not search.folder.exists()
