"""Workers as actors of a Ray cluster, for real: several nodes in a network of their own, studies in PostgreSQL.

What is proved: workers that share a GPU fill a study while the command follows; when a node dies, as a machine whose
power fails, its worker begins again on another node and its trial goes on from its last epoch, once; Ctrl-C leaves
workers at work, and explore.stop ends them.

make test-cluster ARGS=tests/test_cluster_ray.py
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_machines import (
    PATIENCE,
    end_processes_below,
    said_by,
    signal_all,
    start_command,
    trial_processes,
    wait_until,
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

from explore.evaluation import INTERRUPTED

pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, LEFT_OPEN]
SWEEP = [*SMALL, "cluster=ray", "storage=postgres"]


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    with start_ray(cpus=2, gpus=1) as ray:
        yield ray


def test_workers_that_share_a_gpu_fill_a_study(tmp_path: Path, server: Postgres, ray: Ray) -> None:
    places = ["study=shared", f"storage.url='{server.socket_url}'", f"outputs={tmp_path}"]
    resources = ["workers=2", "cluster.gpus=0.5", "cluster.cpus=1"]
    environment = {**ray.environment, "PGPASSWORD": PASSWORD}
    command = [*SWEEP, *places, *resources, "trials=4", "format=json"]
    follower = start_command("sweep", *command, environment=environment, prefix=ray.prefix)
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
def test_ctrl_c_leaves_the_workers_which_stop_ends(tmp_path: Path, server: Postgres, ray: Ray, opened: Open) -> None:
    environment = {**ray.environment, "PGPASSWORD": PASSWORD}
    places = ["study=left", f"storage.url='{server.socket_url}'"]
    more = [*places, f"outputs={tmp_path}", "workers=1", "trials=1", "training.epochs=5000"]
    follower = start_command("sweep", *SWEEP, *more, environment=environment, prefix=ray.prefix)
    wait_until((tmp_path / "left" / ".study").exists, 120, "beginning", [follower])
    study = opened("left")
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
