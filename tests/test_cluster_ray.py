"""Workers as actors of a Ray cluster, for real: two nodes in a network of their own, studies in PostgreSQL.

What is proved: workers that share a GPU fill a study while the command follows; those of a node that dies begin again
on another one and go on from their checkpoints; Ctrl-C leaves them at work, and explore.stop ends them.

make test-cluster ARGS=tests/test_cluster_ray.py
"""

import json
import signal
from pathlib import Path

import pytest
from cluster_machines import PATIENCE, end_processes_below, said_by, start_command, wait_until
from cluster_services import LEFT_OPEN, PASSWORD, Open, Postgres, start_ray

from explore.evaluation import INTERRUPTED, RUNNING

pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, LEFT_OPEN]
SWEEP = ["+sweep=smoke", "references=[]", "sampler=tpe", "stopping.rule=off", "cluster=ray", "storage=postgres"]


def test_workers_that_share_a_gpu_fill_a_study(tmp_path: Path, server: Postgres) -> None:
    with start_ray(cpus=2, gpus=1) as ray:
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


def test_workers_of_a_node_that_dies_begin_again_on_another(tmp_path: Path, server: Postgres, opened: Open) -> None:
    with start_ray(cpus=1) as ray:
        environment = {**ray.environment, "PGPASSWORD": PASSWORD}
        places = ["study=moved", f"storage.url='{server.socket_url}'", f"outputs={tmp_path}"]
        more = [*places, "workers=1", "+cluster.resources.place=1", "trials=1", "training.epochs=5000"]
        mortal = ray.add_node(cpus=1, more=['--resources={"place": 1}'])
        follower = start_command("sweep", *SWEEP, *more, environment=environment, prefix=ray.prefix)
        wait_until(lambda: (tmp_path / "moved" / ".study").exists(), 120, "beginning")
        study = opened("moved")
        wait_until(lambda: [one for one in study.trials() if one.evaluation.epochs > 2], 240, "training")
        before = study.trials()[0].evaluation.epochs
        end_processes_below([mortal])
        ray.add_node(cpus=1, more=['--resources={"place": 1}'])
        wait_until(lambda: [one for one in study.trials() if one.continues is not None], 300, "beginning again")
        wait_until(lambda: study.trials()[0].evaluation.epochs > before + 2, 240, "going on")
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=PATIENCE * 120)
        assert "The workers go on. Follow them again: python -m explore.sweep +sweep=smoke" in err
        stop = start_command("stop", *places[:2], "cluster.grace=1", environment=environment, prefix=ray.prefix)
        assert "nobody works on it" in said_by(stop)
        [trial] = study.trials()
        assert trial.status in (INTERRUPTED, RUNNING)
        epochs = [epoch.epoch for epoch in trial.evaluation.curve]
        assert epochs == list(range(1, len(epochs) + 1))
