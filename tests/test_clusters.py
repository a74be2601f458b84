"""What can be said of workers elsewhere without a cluster: what is refused before any work, what Slurm is asked for,
and that a storage which does not answer for a while is waited for, without a password in any message.

python -m pytest tests/test_clusters.py             # real clusters: tests/test_cluster_*.py
"""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from explore.checks import check_cluster
from explore.cluster.job import Job
from explore.cluster.slurm import Slurm, begin_again
from explore.config import compose
from explore.faults import Unwritable
from explore.plan import _for_workers
from explore.search import patience
from explore.search.options import URL_VARIABLE, Grpc, Postgres, Sqlite
from explore.search.patience import patient
from explore.search.storage import make_proxy, of_one_machine, open_storage

FAKE = """#!/usr/bin/env python3
import json, os, sys
got = {"arguments": sys.argv[1:], "script": sys.stdin.read(), "secret": os.environ.get("SECRET")}
json.dump(got, open("ASKED", "w"))
print("17;cluster")
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command in the place of sbatch that writes down what it is asked for."""
    file = tmp_path / "asked.json"
    (tmp_path / "sbatch").write_text(FAKE.replace("ASKED", str(file)))
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return file


def test_an_array_is_asked_for_with_its_resources_and_the_secret_stays_out_of_sight(
    tmp_path: Path, asked: Path
) -> None:
    options = Slurm(
        partition="gpu", gpus=1, cpus=4, memory="16G", time="4h", options=["--qos=long"], setup=["module load cuda"]
    )
    job = Job(
        name="explore-shoes",
        command=["python", "-m", "explore.worker", "study=shoes"],
        folder=tmp_path,
        secrets={"SECRET": "open sesame"},
        logs=tmp_path / "logs",
    )
    options.check()
    assert options.submit(job, 64) == ["17"]
    got = json.loads(asked.read_text())
    assert {"--array=0-63", "--requeue", "--partition=gpu", "--gres=gpu:1", "--cpus-per-task=4"} <= set(
        got["arguments"]
    )
    assert {"--mem=16G", "--time=240", "--signal=B:USR1@120", "--qos=long", "--export=ALL"} <= set(got["arguments"])
    assert got["script"].splitlines() == [
        "#!/bin/sh",
        "module load cuda",
        "exec python -m explore.worker study=shoes",
    ]
    assert got["secret"] == "open sesame"
    assert "sesame" not in str(got["arguments"])
    Slurm(time="1m").submit(job, 1)
    got = json.loads(asked.read_text())
    assert "--signal=B:USR1@20" in got["arguments"]
    assert not [one for one in got["arguments"] if one.startswith(("--gres", "--mem", "--partition"))]
    assert got["script"].endswith("study=shoes workers=1\n")


def test_one_job_of_an_array_begins_again_and_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    begin_again()
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    begin_again()
    assert (tmp_path / "asked").read_text() == "requeue 17_0\n"


@pytest.mark.parametrize("time", ["soon", "0m", "4", "4h30m", ""])
def test_a_time_that_is_none_is_refused(time: str, asked: Path) -> None:
    with pytest.raises(ValueError, match=r"cluster.time must be a time such as 30m, 4h or 2d"):
        Slurm(time=time).check()


NO_SOURCE = """sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
sbatch: error: fetch_config: DNS SRV lookup failed
sbatch: fatal: Could not establish a configuration source"""
NO_CONTROLLER = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
NO_NODES = "sbatch: error: Batch job submission failed: Requested node configuration is not available"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (NO_CONTROLLER, "cluster=slurm needs a controller that answers, got: Unable to contact slurm controller (con"),
        (NO_SOURCE, "needs a controller that answers, got: Could not establish a configuration source; see whether"),
        (NO_NODES, f"Slurm must take the jobs, got: {NO_NODES}; command: sbatch --parsable --requeue --job-name=x"),
        ("", "Slurm must take the jobs, got: ; command: sbatch"),
    ],
)
def test_slurm_that_does_not_answer_is_told_in_one_sentence_and_from_one_that_refuses(
    said: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said").write_text(said)
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\ncat {tmp_path}/said >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    job = Job(name="x", command=["true"], folder=tmp_path, secrets={}, logs=tmp_path / "logs")
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        Slurm().submit(job, 2)
    assert "\n" not in str(refused.value)
    assert ("--job-name" in str(refused.value)) == ("must take the jobs" in words)


def test_slurm_that_does_not_answer_is_not_an_empty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answers = {
        "echo PENDING; echo RUNNING": 2,
        "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1": 0,
        "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1": None,
    }
    for answer, count in answers.items():
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / "squeue").chmod(0o755)
        assert Slurm().active(["17"]) == count


def test_without_jobs_slurm_is_asked_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scancel` with a state alone would end all jobs of the user that wait, of whatever program."""
    for name in ("squeue", "scancel"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for waiting in (True, False):
        Slurm().cancel([], waiting=waiting)
    assert Slurm().active([]) == 0
    assert not (tmp_path / "asked").exists()
    Slurm().cancel(["17"], waiting=True)
    assert (tmp_path / "asked").read_text() == "scancel --state=PENDING 17\n"


def test_storages_have_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    here = Path("outputs/shoes")
    assert Sqlite().address(here) == "sqlite:///outputs/shoes/study.db"
    assert Grpc(host="head", port=5).address(here) == "grpc://head:5"
    with pytest.raises(ValueError, match=r"storage=postgres needs a URL, got none; add storage.url=postgresql://USER"):
        Postgres().address(here)
    with pytest.raises(ValueError, match="storage=postgres needs a URL, got one of mysql"):
        Postgres(url="mysql://host/name").address(here)
    monkeypatch.setenv(URL_VARIABLE, "postgresql://user:secret@host/name")
    assert Sqlite().address(here) == Postgres().address(here) == "postgresql://user:secret@host/name"
    assert [of_one_machine(url) for url in ("sqlite:///x", "postgresql://h/x", "grpc://h:1")] == [True, False, False]


def test_a_file_of_one_machine_is_refused_for_workers_on_many() -> None:
    with pytest.raises(ValueError, match="cluster=manual needs a storage for many machines, got an SQLite file"):
        check_cluster(compose(["cluster=manual"]), "sqlite:///study.db")
    check_cluster(compose(["cluster=manual"]), "postgresql://me@host/name")
    with pytest.raises(ValueError, match="cluster=slurm needs the number of workers, got none; add workers=8"):
        check_cluster(compose(["cluster=slurm"]), "postgresql://me@host/name")


def test_what_is_another_machines_own_affair_is_not_kept_for_it() -> None:
    known = ["+sweep=smoke", "data=folder", "data.path=shoes"]
    own = ["workers=3", "storage.url=sqlite:///x", "cluster=local", "data.snapshot=folder-0123456789abcdef"]
    assert _for_workers([*known, *own]) == known


def test_a_proxy_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr("explore.search.storage._ANSWER_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"storage.url must name a database that answers, got grpc://127.0.0.1:1"):
        open_storage("grpc://127.0.0.1:1")


def test_a_proxy_stands_before_a_database() -> None:
    with pytest.raises(
        ValueError, match=r"storage\.database must be .* a database, got that of a proxy, grpc://head:13000"
    ):
        make_proxy("grpc://head:13000", "127.0.0.1", 13001)


class Failing:
    """Answers the third time that it is asked."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0

    def get_all_studies(self) -> list[str]:
        self.asked += 1
        if self.asked < 3:
            raise self.error
        return ["shoes"]


def test_what_passes_is_waited_for_and_what_does_not_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    storage = Failing(ConnectionError("down"))
    assert patient(storage, (ConnectionError,), str).get_all_studies() == ["shoes"]  # type: ignore[arg-type]
    assert slept == [0.1, 0.2]
    with pytest.raises(KeyError):
        patient(Failing(KeyError("x")), (ConnectionError,), str).get_all_studies()  # type: ignore[arg-type]


def test_patience_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    storage = Failing(ConnectionError("down"))
    storage.asked = -1_000_000
    waiting = patient(storage, (ConnectionError,), lambda error: f"it is {error}")  # type: ignore[arg-type]
    words = "the storage does not answer: it is down; what was found so far is kept, and the same command goes on"
    with pytest.raises(Unwritable, match=words):
        waiting.get_all_studies()
    assert 600 < now[0] < 610
    assert capsys.readouterr().err.startswith(f"explore: waiting for the storage: {words}")
    with pytest.raises(Unwritable, match=words):
        waiting.get_all_studies()
    assert now[0] < 610, "who leaves does not wait again"
    storage.asked = 3
    waiting.get_all_studies()
    storage.asked = 0
    waiting.get_all_studies()  # and is patient again with one that came back


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [("psycopg", "postgresql://me@127.0.0.1:1/name", "postgres"), ("grpc", "grpc://127.0.0.1:1", "grpc")],
)
def test_a_driver_that_is_missing_is_named_with_what_installs_it(
    module: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"storage\.url needs a driver .*; pip install 'explore\[{extra}\]'"):
        open_storage(url)
