"""Workers as detached actors of Ray: they outlive the command that started them, and begin again on another node."""

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from explore.cluster.job import Cluster, Job
from explore.cluster.local import CORES_VARIABLE

_NAMESPACE = "explore"
_ANSWER_SECONDS = 10.0


@dataclass(kw_only=True)
class Ray(Cluster):
    """`workers` actors of a Ray cluster, each a worker; resources are those of one."""

    address: str = "auto"  # of the cluster: ray://HOST:10001, or HOST:6379 for one of its machines; auto = this one's
    gpus: float = 0.0  # 0.5 = two workers share a GPU; one with several works on as many trials at a time
    cpus: float = 1.0
    resources: dict[str, float] = field(default_factory=dict)  # further ones: +cluster.resources.NAME=1
    follow: bool = True  # show the search until it ends; false = return when the workers were started

    def check(self) -> None:
        """Refuse what no worker could be started with; raises ValueError."""
        if self.gpus < 0 or self.cpus <= 0:
            raise ValueError(f"cluster.gpus must be at least 0 and cpus more, got {self.gpus} and {self.cpus}")
        _connected(self.address)

    def submit(self, job: Job, count: int) -> list[str]:
        """Start so many actors; those that find no room now wait for it."""
        ray = _connected(self.address)
        job.logs.mkdir(parents=True, exist_ok=True)
        began = time.time_ns()
        names = [f"{job.name}-{began}-{index}" for index in range(count)]
        command = [*job.command, *([] if self.gpus else ["workers=1"])]
        environment = {**job.secrets, CORES_VARIABLE: str(max(1, int(self.cpus)))}
        for name in names:
            # As arguments, because Ray shows the environments of actors to everybody.
            _actor(ray).options(
                name=name,
                namespace=_NAMESPACE,
                lifetime="detached",
                max_restarts=-1,
                num_gpus=self.gpus,
                num_cpus=self.cpus,
                resources=dict(self.resources),
            ).remote(name, command, str(job.folder), environment, str(job.logs / f"{name}.log"))
        return names

    def active(self, names: Sequence[str]) -> int:
        """How many of these actors there are."""
        return sum(_found(self.address, name) is not None for name in names)

    def cancel(self, names: Sequence[str], *, waiting: bool) -> None:
        """End these actors. Ray does not tell who waits; those that begin after the end leave by themselves."""
        for name in () if waiting else names:
            if actor := _found(self.address, name):
                _connected(self.address).kill(actor, no_restart=True)


def _found(address: str, name: str) -> Any:
    try:
        return _connected(address).get_actor(name, namespace=_NAMESPACE)
    except ValueError:
        return None


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError("cluster=ray needs Ray, which is not installed; pip install 'explore[ray]'") from None
    if not ray.is_initialized():
        _refuse_silence(address)
        try:
            ray.init(address=address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(_unanswered(address, error)) from None
    return ray


def _refuse_silence(address: str) -> None:
    """Refuse an address where nobody listens: Ray would try for minutes, and say what only its makers understand."""
    if address == "auto":
        return
    try:
        place = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if not host or not port or place.scheme != "ray":
        raise ValueError(f"cluster.address must be auto, HOST:PORT or ray://HOST:PORT, got {address or 'nothing'}")
    if "://" in address and not find_spec("grpc"):
        raise ValueError(f"cluster.address={address} needs grpcio, which is not installed; pip install 'explore[ray]'")
    try:
        socket.create_connection((host, port), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise ValueError(_unanswered(address, error)) from None


def _unanswered(address: str, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return f"cluster.address must be a Ray cluster that answers, got {address}: {reason}"


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
