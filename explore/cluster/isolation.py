"""Each trial in a process of its own, forked from a warm server that has imported everything.

A crash, an out-of-memory kill or a poisoned GPU then costs one trial. The server is Python's forkserver: it has a
single thread and no CUDA context, so that a fork of it is safe; a fork is ready within a fraction of a second, where a
new interpreter takes seconds to import torch.
"""

import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Generic, TypeVar

from explore.cost.waiting import WAITING
from explore.evaluation import COMPLETE, FAILED, STOPPED, Evaluation
from explore.faults import Unwritable, unwritable

Job = TypeVar("Job")
Item = TypeVar("Item")  # what an evaluation reports

_PRELOAD = ["explore.warm"]
_TICK_SECONDS = 0.5
_END_SECONDS = 5.0
_HINTS = {
    "SIGKILL": ", as the system does when memory runs out",
    "SIGBUS": ", as when a file that it reads was cut short",
}


def start_server() -> None:
    """Start the warm server now, so that its imports overlap with other work.

    It begins with Ctrl-C held back, which a terminal sends to it as well, until `explore.warm` has it ignored.
    """
    from multiprocessing import forkserver, resource_tracker

    multiprocessing.set_forkserver_preload(_PRELOAD)
    resource_tracker.ensure_running()  # which the server needs, and whose start would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def server_context() -> multiprocessing.context.ForkServerContext:
    """The context whose processes are forked from the warm server."""
    return multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Isolated(Generic[Job, Item]):
    """Runs `evaluate(job, folder, report)` in a process of its own; the job must be picklable.

    What the process prints goes to `log.txt` in the trial's folder. `tick` is called about twice a second while it
    runs; when it raises, the process is ended and the exception goes on. A process that dies is started again, to go on
    from what it has left in the folder, until it has died `lives` times. One that takes longer than `minutes`, without
    what it waits for its turn on a device, is ended for good.

    With `processes` above 1 so many run the same job as one team, each of which finds its place in the environment, as
    Lightning and torch look for it. Only the first is listened to while it works; they live and die together.
    `environment` is set in all of them, such as the GPUs that they see.
    """

    evaluate: Callable[[Job, Path, Callable[[Item], None]], Evaluation]
    tick: Callable[[], None]
    processes: int = 1
    minutes: float = math.inf
    environment: Mapping[str, str] = field(default_factory=dict)
    lives: int = 3

    def __call__(self, job: Job, folder: Path, report: Callable[[Item], None]) -> Evaluation:
        """Evaluate; an exception or the repeated death of the process becomes a failed evaluation with its reason.

        Raises Unwritable where the process could not keep what it found.
        """
        folder.mkdir(parents=True, exist_ok=True)
        limit = _Limit(self.minutes)
        causes: list[str] = []
        while len(causes) < self.lives:
            team = _Team(self.evaluate, job, folder, self.processes, self.environment)
            try:
                result = self._listen(team, report, limit)
                causes += [] if result else [team.cause_of_death()]
            finally:
                team.end()
            if result:
                again = f"{causes[-1]}, and was started again" if causes else ""
                return replace(result, reason="; ".join(filter(None, (result.reason, again))))
            # Ctrl-C also reaches a process that is being born; the order to stop comes a moment later.
            time.sleep(_TICK_SECONDS)
            self.tick()
        times = f", {self.lives} times in all" if self.lives > 1 else ""
        return Evaluation(status=FAILED, reason=f"{causes[-1]}{times}; see {folder / 'log.txt'}")

    def _listen(self, team: "_Team[Job, Item]", report: Callable[[Item], None], limit: "_Limit") -> Evaluation | None:
        """Pass on what the first reports, until one of the team has a result for all, or has died."""
        while True:
            self.tick()
            if limit.is_over():
                return Evaluation(
                    status=FAILED,
                    reason=f"it took longer than {self.minutes:g} minutes (stopping.max_minutes) and was ended",
                )
            for connection in wait(team.connections, _TICK_SECONDS):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    return None
                if isinstance(message, Unwritable):
                    raise message
                if isinstance(message, _Waited):
                    limit.put_off(message.seconds)
                elif not isinstance(message, Evaluation):
                    report(message)
                elif connection is team.connections[0] or message.status not in (COMPLETE, STOPPED):
                    # Who loses a companion may fail of it before the loss is noticed here.
                    if message.status == FAILED and team.lost_one():
                        return None
                    team.wait()
                    return message
                else:
                    team.connections.remove(connection)


@dataclass(frozen=True)
class _Waited:
    """What the first of a team says while it waits for its turn."""

    seconds: float


class _Limit:
    """The end of the time that an evaluation has."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def put_off(self, seconds: float) -> None:
        """Give as much more."""
        self._end += seconds

    def is_over(self) -> bool:
        """Whether it has had its time."""
        return time.monotonic() > self._end


class _Team(Generic[Job, Item]):
    """The processes of one evaluation; who is the first is listened to."""

    def __init__(
        self,
        evaluate: Callable[[Job, Path, Callable[[Item], None]], Evaluation],
        job: Job,
        folder: Path,
        count: int,
        environment: Mapping[str, str],
    ) -> None:
        self.connections: list[Connection] = []
        self._all: list[Connection] = []
        self._processes: list[ForkServerProcess] = []
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"} if count > 1 else {}
        shared |= environment
        for place in range(count):
            ours, theirs = multiprocessing.Pipe()
            own = {**shared, "LOCAL_RANK": str(place)} if count > 1 else shared
            process = server_context().Process(target=_child, args=(evaluate, job, folder, theirs, own, place == 0))
            process.start()
            theirs.close()
            self._all.append(ours)
            self._processes.append(process)
        self.connections += self._all

    def lost_one(self) -> bool:
        """Whether one of several has died by force."""
        if len(self._processes) == 1:
            return False
        wait([process.sentinel for process in self._processes], _TICK_SECONDS)
        return any((process.exitcode or 0) < 0 for process in self._processes)

    def cause_of_death(self) -> str:
        """What became of the first that died."""
        wait([process.sentinel for process in self._processes], _END_SECONDS)
        codes = [process.exitcode for process in self._processes if process.exitcode is not None]
        return _cause_of_death(next(filter(None, codes), 0)) if codes else "its process went silent"

    def wait(self) -> None:
        """Give everybody the time to end by themselves."""
        deadline = time.monotonic() + _END_SECONDS
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def end(self) -> None:
        """End those that have not ended: one that was stopped, or that hangs after its result, must go."""
        for process in self._processes:
            process.kill()
            process.join()
        for connection in self._all:
            connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _child(
    evaluate: Callable[[Job, Path, Callable[[Item], None]], Evaluation],
    job: Job,
    folder: Path,
    connection: Connection,
    environment: Mapping[str, str],
    first: bool,
) -> None:
    for order in (signal.SIGINT, signal.SIGTERM):  # meant for the worker, who ends its trials; clusters tell everybody
        signal.signal(order, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(connection,), daemon=True).start()
    os.environ.update(environment)
    os.environ.pop("SLURM_NTASKS", None)  # by which Lightning would think that Slurm has started the team
    if first:
        WAITING.tell = lambda seconds: connection.send(_Waited(seconds))
    result: Evaluation | Unwritable
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        result = evaluate(job, folder, connection.send if first else lambda item: None)
    except Exception as error:
        result = unwritable(error) or Evaluation(status=FAILED, reason=f"{type(error).__name__}: {error}")
        with suppress(OSError):
            traceback.print_exc()
    with suppress(OSError):  # of a disk that is full: the result matters more than the log
        sys.stdout.flush()
        sys.stderr.flush()
    connection.send(result)


def _die_with_parent(connection: Connection) -> None:
    """Nobody ever writes to this end: it becomes readable when the worker is gone, and its trial must not go on."""
    try:
        connection.poll(None)
    finally:
        os._exit(1)


def _cause_of_death(exit_code: int) -> str:
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"its process was killed by {name}{_HINTS.get(name, '')}"
    return f"its process ended with exit status {exit_code}"
