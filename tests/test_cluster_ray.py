"""Workers as actors of a Ray cluster, for real: several nodes in a network of their own, studies in PostgreSQL.

What is proved: workers that share a GPU fill a study while the command follows, wait both for one who measures, and
show nobody the password; a cluster elsewhere, behind ray://, fills one too; a worker that cannot begin ends the command
with the reason; when a node dies, as a machine whose power fails, its worker begins again on another node and its trial
goes on from its last epoch, once; Ctrl-C leaves workers at work, and explore.stop ends them.

make test-cluster ARGS=tests/test_cluster_ray.py
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cluster_machines import (
    PATIENCE,
    end_processes_below,
    said_by,
    signal_all,
    start_command,
    trial_processes,
    wait_until,
    with_descendants,
)
from cluster_services import (
    EPOCHS,
    LEFT_OPEN,
    PASSWORD,
    SMALL,
    Open,
    Postgres,
    Ray,
    assert_whole,
    epochs_of,
    hanging,
    in_the_middle,
    start_ray,
)

from explore.cost.turns import Turns
from explore.evaluation import INTERRUPTED
from explore.search.options import URL_VARIABLE

pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, LEFT_OPEN]
SWEEP = [*SMALL, "cluster=ray", "storage=postgres"]
ELSEWHERE = "ray://127.0.0.1:10001"


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    with start_ray(cpus=2, gpus=1) as ray:
        yield ray


def test_workers_that_share_a_gpu_fill_a_study(
    tmp_path: Path, server: Postgres, ray: Ray, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["study=shared", f"storage.url='{server.socket_url}'", f"outputs={tmp_path}"]
    resources = ["workers=2", "cluster.gpus=0.5", "cluster.cpus=1"]
    environment = {**ray.environment, "PGPASSWORD": PASSWORD}
    command = [*SWEEP, *places, *resources, "trials=4", "format=json"]
    monkeypatch.setattr("tempfile.tempdir", os.environ["TMPDIR"])  # as the nodes
    with Turns(torch.device("cpu")) as turns, turns.measuring():  # one who measures, for whom both have to wait
        follower = start_command("sweep", *command, environment=environment, prefix=ray.prefix)
        wait_until(lambda: len(workers_that_take_turns()) == 2, 240, "both", [follower])
        assert epochs_of(opened("shared")) == 0
        assert_nobody_shows_the_password()
    out, err = follower.communicate(timeout=PATIENCE * 500)
    assert follower.returncode == 0, err
    shown = json.loads(out)
    assert shown["trials"] == {"complete": 4}
    assert all(member["test_accuracy"] is not None for member in shown["front"])
    logs = [path.read_text() for path in (tmp_path / "shared" / "workers").glob("*.log")]
    assert len(logs) == 2
    assert sum("nothing is left to do, report" in log for log in logs) == 1
    assert PASSWORD not in "".join([*logs, out, err])
    seen = "".join(path.read_text(errors="replace") for path in (ray.folder / "ray").rglob("*.log"))
    assert seen
    assert PASSWORD not in seen


def test_a_cluster_elsewhere_fills_a_study(tmp_path: Path, server: Postgres, ray: Ray) -> None:
    secret = server.socket_url.replace("@", f":{PASSWORD}@")
    environment = {**ray.environment, "RAY_ADDRESS": "", URL_VARIABLE: secret}
    command = [*SWEEP, "study=elsewhere", f"outputs={tmp_path}", "workers=1", "trials=2", "format=json"]
    asked = [*command, f"cluster.address={ELSEWHERE}"]
    follower = start_command("sweep", *asked, environment=environment, prefix=ray.prefix)
    wait_until(lambda: actors(), 240, "an actor", [follower])
    assert_nobody_shows_the_password()
    out, err = follower.communicate(timeout=PATIENCE * 500)
    assert follower.returncode == 0, err
    assert json.loads(out)["trials"] == {"complete": 2}
    [log] = (tmp_path / "elsewhere" / "workers").glob("*.log")
    assert PASSWORD not in log.read_text() + out + err


@pytest.mark.parametrize("address", ["auto", ELSEWHERE])
def test_a_worker_that_cannot_begin_ends_the_command_with_the_reason(
    tmp_path: Path, server: Postgres, ray: Ray, address: str
) -> None:
    environment = {**ray.environment, "PGPASSWORD": PASSWORD}
    of_its_own = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {tmp_path}; exec "$@"', "sh"]
    places = [f"study=alone{len(address)}", f"storage.url='{server.socket_url}'", f"outputs={tmp_path}/here"]
    command = [*SWEEP, *places, "workers=2", "trials=2", f"cluster.address={address}"]
    follower = start_command("sweep", *command, environment=environment, prefix=[*ray.prefix, *of_its_own])
    _, err = follower.communicate(timeout=PATIENCE * 120)
    assert err.count("explore: a worker could not begin: nodes of Ray must have") == 2, err
    assert ".log: No such file or directory" in err
    assert "the workers have left before the search had ended" in err
    assert not actors()


@pytest.mark.slow
def test_the_trial_of_a_node_that_dies_goes_on_elsewhere(
    tmp_path: Path, server: Postgres, ray: Ray, opened: Open
) -> None:
    environment = {**ray.environment, "PGPASSWORD": PASSWORD}
    places = ["study=moved", f"storage.url='{server.socket_url}'", f"outputs={tmp_path}"]
    more = [*places, "workers=2", "+cluster.resources.place=1", "trials=3", f"training.epochs={EPOCHS}"]
    here = ['--resources={"place": 1}']
    nodes = {name: ray.add_node(cpus=1, more=here, machine=name) for name in ("alpha", "beta")}
    follower = start_command("sweep", *SWEEP, *more, environment=environment, prefix=ray.prefix)
    wait_until((tmp_path / "moved" / ".study").exists, 120, "beginning", [follower])
    study = opened("moved")
    wait_until(lambda: len(hanging(study, nodes)) == 2, 240, "training", [follower])
    lost, *_ = in_the_middle(study)
    end_processes_below([nodes.pop(lost.owner["host"])])
    signal_all(trial_processes(nodes.values()), signal.SIGCONT)
    ray.add_node(cpus=1, more=here, machine="gamma")
    said_by(follower, 600)
    assert_whole(study, 3, epochs=EPOCHS)
    [again] = [one for one in study.stretches() if one.continues is not None]
    assert (again.continues, again.number) == (lost.row, lost.number)
    assert again.owner["host"] != lost.owner["host"]
    logs = [path.read_text() for path in (tmp_path / "moved" / "workers").glob("*.log")]
    assert sorted(log.count("join study") for log in logs) == [1, 2], "Ray has begun it again elsewhere"
    assert "on gamma" in "".join(logs)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["auto", ELSEWHERE])
def test_ctrl_c_leaves_the_workers_which_stop_ends(
    tmp_path: Path, server: Postgres, ray: Ray, opened: Open, address: str
) -> None:
    environment = {**ray.environment, "PGPASSWORD": PASSWORD}
    name = f"left{len(address)}"
    places = [f"study={name}", f"storage.url='{server.socket_url}'"]
    more = [*places, f"outputs={tmp_path}", "workers=1", "trials=1", "training.epochs=5000"]
    more.append(f"cluster.address={address}")
    follower = start_command("sweep", *SWEEP, *more, environment=environment, prefix=ray.prefix)
    wait_until((tmp_path / name / ".study").exists, 120, "beginning", [follower])
    study = opened(name)
    wait_until(lambda: epochs_of(study) > 2, 240, "training", [follower])
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=PATIENCE * 120)
    assert "The workers go on. Follow them again: python -m explore.sweep +sweep=smoke" in err
    before = epochs_of(study)
    wait_until(lambda: epochs_of(study) > before, 60, "going on")
    stop = start_command("stop", *places, "cluster.grace=1", environment=environment, prefix=ray.prefix)
    assert "nobody works on it" in said_by(stop)
    [trial] = study.trials()
    assert trial.status == INTERRUPTED
    assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, trial.evaluation.epochs + 1))


def actors() -> list[int]:
    """The processes of Ray on this machine that have a worker."""
    return [pid for pid, line in process_list().items() if line.startswith("ray::Worker") and of_these_tests(pid)]


def workers_that_take_turns() -> list[int]:
    """The actors below which somebody has opened the lock of those who measure."""
    return [actor for actor in actors() if any(map(has_the_lock_open, with_descendants([actor])))]


def has_the_lock_open(pid: int) -> bool:
    file = f"{os.environ['TMPDIR']}/explore-device-cpu.lock"
    try:
        return any(os.path.realpath(link) == file for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended
        return False


def of_these_tests(pid: int) -> bool:
    return f"TMPDIR={os.environ['TMPDIR']}".encode() in seen_in(pid).split(b"\0")


def seen_in(pid: int) -> bytes:
    """What a process was started with, which Ray shows of its actors."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def assert_nobody_shows_the_password() -> None:
    """Neither a command line, nor the environment that Ray was asked for."""
    assert PASSWORD not in "\n".join(process_list().values())
    assert not [pid for pid in actors() if PASSWORD.encode() in seen_in(pid)]


def process_list() -> dict[int, str]:
    table = subprocess.check_output(["ps", "-ww", "-eo", "pid,args"], text=True).splitlines()[1:]
    return {int(pid): line for pid, line in (row.split(None, 1) for row in table)}
