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
_ATTEMPTS = 3  # to connect
_STARTED: dict[str, Any] = {}  # the actors of this process by name: of one that is dead, Ray tells others nothing


@dataclass(kw_only=True)
class Ray(Cluster):
    """`workers` actors of a Ray cluster, each a worker; resources are those of one."""

    address: str = "auto"  # of the cluster: ray://HOST:10001, or HOST:6379 for one of its machines; auto = this one's
    gpus: float = 0.0  # 0.5 = two workers share a GPU, with one trial each; one with whole GPUs may have several trials
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
        command = [*job.command, *([] if self.gpus >= 1 else ["workers=1"])]
        environment = {**job.secrets, CORES_VARIABLE: str(max(1, int(self.cpus)))}
        for name in names:
            # As arguments, because Ray shows the environments of actors to everybody.
            _STARTED[name] = (
                _actor(ray)
                .options(
                    name=name,
                    namespace=_NAMESPACE,
                    lifetime="detached",
                    max_restarts=-1,
                    num_gpus=self.gpus,
                    num_cpus=self.cpus,
                    resources=dict(self.resources),
                )
                .remote(name, command, str(job.folder), environment, str(job.logs / f"{name}.log"))
            )
        return names

    def active(self, names: Sequence[str]) -> int | None:
        """How many of these actors there are; None where the cluster does not answer."""
        try:
            return sum(_found(self.address, name) is not None for name in names)
        except ValueError:
            return None

    def unable(self, names: Sequence[str]) -> list[str]:
        """What the nodes lack on which workers could not begin, of those that this process has started."""
        return sorted({reason for name in names if name in _STARTED and (reason := _unable(self.address, name))})

    def cancel(self, names: Sequence[str], *, waiting: bool) -> None:
        """End these actors. Ray does not tell who waits; those that begin after the end leave by themselves."""
        for name in () if waiting else names:
            if actor := _found(self.address, name):
                _connected(self.address).kill(actor, no_restart=True)


def _found(address: str, name: str) -> Any:
    ray = _connected(address)
    try:
        return ray.get_actor(name, namespace=_NAMESPACE)
    except ValueError:
        return None
    except ConnectionError as error:
        raise ValueError(_unanswered(address, error)) from None


def _unable(address: str, name: str) -> str:
    """Why an actor of this process could not begin; empty where it has begun, or waits, or nobody tells."""
    try:
        if not _found(address, name):
            ray = _connected(address)
            try:
                ray.get(_STARTED[name].begun.remote(), timeout=_ANSWER_SECONDS)
            except ray.exceptions.RayError as error:
                if getattr(error, "actor_init_failed", False):
                    return str(error).splitlines()[-1].partition(": ")[2]
    except (ConnectionError, ValueError):
        pass
    return ""


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError("cluster=ray needs Ray, which is not installed; pip install 'explore[ray]'") from None
    if not ray.is_initialized():
        _refuse_silence(address)
        try:
            _connect(ray, address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(_unanswered(address, error)) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(address=address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
            return
        except ConnectionAbortedError:
            # Of the servers that a head forks for its clients some are dead at birth (ray-project/ray#63202).
            if attempt == _ATTEMPTS:
                raise


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
    # Of what has failed at the other end Ray tells the whole traceback, whose last line is the reason.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = getattr(error, "strerror", None) or lines[-1 if "Traceback" in str(error) else 0]
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

            # Ends with its parent, which Ray may end without a word: with this thread, the first one, to be exact.
            line = ["setpriv", "--pdeathsig", "TERM", *command]
            everything = {**os.environ, **environment}
            try:
                with open(log, "ab") as out:
                    process = subprocess.Popen(line, cwd=folder, env=everything, stdout=out, stderr=out)
            except OSError as error:
                # With an error from here the actor ends for good, and gives back what it holds.
                raise RuntimeError(self.reported(error, folder, log)) from None

            def wait() -> None:
                try:
                    process.wait()
                finally:
                    ray.kill(ray.get_actor(name), no_restart=True)

            threading.Thread(target=wait, daemon=True).start()

        def reported(self, error: OSError, folder: str, log: str) -> str:
            """What this node lacks; also in the log, or where there is none in that of the actor."""
            import contextlib
            import os
            import socket
            import sys

            needed = f"{folder}, {os.path.dirname(log)} and setpriv of util-linux"
            here = f"{socket.gethostname()} without {error.filename}: {error.strerror}"
            words = f"nodes of Ray must have {needed}, got {here}"
            print(words, file=sys.stderr)
            with contextlib.suppress(OSError), open(log, "a") as out:
                print(words, file=out)
            return words

        def begun(self) -> None:
            """Raises what has kept it from beginning."""

    return ray.remote(Worker)
