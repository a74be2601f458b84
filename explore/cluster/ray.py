"""Workers as detached actors of Ray: they outlive the command that started them, and begin again on another node."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from explore.cluster.local import CORES_VARIABLE
from explore.cluster.options import Job, Ray

_NAMESPACE = "explore"


def check(options: Ray) -> None:
    """Refuse what no worker could be started with; raises ValueError."""
    if options.gpus < 0 or options.cpus <= 0:
        raise ValueError(f"cluster.gpus must be at least 0 and cpus more, got {options.gpus} and {options.cpus}")
    _connected(options)


def submit(options: Ray, job: Job, count: int) -> list[str]:
    """Start so many actors; those that find no room now wait for it."""
    ray = _connected(options)
    job.logs.mkdir(parents=True, exist_ok=True)
    began = time.time_ns()
    names = [f"{job.name}-{began}-{index}" for index in range(count)]
    command = [*job.command, *([] if options.gpus else ["workers=1"])]
    environment = {**job.secrets, CORES_VARIABLE: str(max(1, int(options.cpus)))}
    for name in names:
        # As arguments, because Ray shows the environments of actors to everybody.
        _actor(ray).options(
            name=name,
            namespace=_NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            num_gpus=options.gpus,
            num_cpus=options.cpus,
            resources=dict(options.resources),
        ).remote(name, command, str(job.folder), environment, str(job.logs / f"{name}.log"))
    return names


def active(options: Ray, names: Sequence[str]) -> int:
    """How many of these actors there are."""
    return sum(_found(options, name) is not None for name in names)


def cancel(options: Ray, names: Sequence[str]) -> None:
    """End these actors, at work or not."""
    ray = _connected(options)
    for name in names:
        if actor := _found(options, name):
            ray.kill(actor, no_restart=True)


def _found(options: Ray, name: str) -> Any:
    try:
        return _connected(options).get_actor(name, namespace=_NAMESPACE)
    except ValueError:
        return None


def _connected(options: Ray) -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError("cluster=ray needs Ray, which is not installed; pip install 'explore[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address=options.address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"cluster.address must be a Ray cluster that answers, got {options.address}: {reason}"
            ) from None
    return ray


def _actor(ray: Any) -> Any:
    # Inside a function it travels as a whole, and nodes need not find this package where it was found here.
    class Worker:
        """Runs a command as long as it lives, and leaves with it."""

        def __init__(self, name: str, command: list[str], folder: str, environment: dict[str, str], log: str) -> None:
            import os
            import subprocess
            import threading

            import ray

            def run() -> None:
                with open(log, "ab") as out:
                    # Ends with its parent, which Ray may end without a word.
                    line = ["setpriv", "--pdeathsig", "TERM", *command]
                    everything = {**os.environ, **environment}
                    subprocess.run(line, cwd=folder, env=everything, stdout=out, stderr=out)
                ray.kill(ray.get_actor(name), no_restart=True)

            threading.Thread(target=run, daemon=True).start()

    return ray.remote(Worker)
