"""Each trial in a process of its own, forked from a warm server that has imported everything.

A crash, an out-of-memory kill or a poisoned GPU then costs one trial. The server is Python's forkserver: it has a
single thread and no CUDA context, so that a fork of it is safe; a fork is ready within a fraction of a second, where a
new interpreter takes seconds to import torch.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, TypeVar

from explore.evaluation import FAILED, Evaluation, Report

Job = TypeVar("Job")

_PRELOAD = ["explore.warm"]
_TICK_SECONDS = 0.5
_END_SECONDS = 5.0


def start_server() -> None:
    """Start the warm server now, so that its imports overlap with other work."""
    from multiprocessing import forkserver

    multiprocessing.set_forkserver_preload(_PRELOAD)
    forkserver.ensure_running()


def server_context() -> multiprocessing.context.ForkServerContext:
    """The context whose processes are forked from the warm server."""
    return multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Isolated(Generic[Job]):
    """Runs `evaluate(job, folder, report)` in a process of its own; the job must be picklable.

    What the process prints goes to `log.txt` in the trial's folder. `tick` is called about twice a second while it
    runs; when it raises, the process is ended and the exception goes on. `environment` is set in the process, such as
    the GPUs that it sees.
    """

    evaluate: Callable[[Job, Path, Report], Evaluation]
    tick: Callable[[], None]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, job: Job, folder: Path, report: Report) -> Evaluation:
        """Evaluate; an exception or the death of the process becomes a failed evaluation with its reason."""
        folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = multiprocessing.Pipe()
        process = server_context().Process(target=_child, args=(self.evaluate, job, folder, theirs, self.environment))
        process.start()
        theirs.close()
        try:
            result = self._listen(ours, report)
            process.join(_END_SECONDS)
        finally:
            # Nothing to a process that has ended; one that was stopped, or that hangs after its result, must go.
            process.kill()
            process.join()
            ours.close()
        if result is None:
            # Ctrl-C also reaches a process that is being born; the order to stop comes a moment later.
            time.sleep(_TICK_SECONDS)
            self.tick()
        return result or Evaluation(status=FAILED, reason=_cause_of_death(process.exitcode, folder))

    def _listen(self, connection: Connection, report: Report) -> Evaluation | None:
        while True:
            self.tick()
            try:
                if not connection.poll(_TICK_SECONDS):
                    continue
                message = connection.recv()
            except (EOFError, OSError):
                return None
            if isinstance(message, Evaluation):
                return message
            report(message)


def _child(
    evaluate: Callable[[Job, Path, Report], Evaluation],
    job: Job,
    folder: Path,
    connection: Connection,
    environment: Mapping[str, str],
) -> None:
    os.environ.update(environment)
    for order in (signal.SIGINT, signal.SIGTERM):  # meant for the worker, who ends its trials; clusters tell everybody
        signal.signal(order, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(connection,), daemon=True).start()
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        result = evaluate(job, folder, connection.send)
    except Exception as error:
        traceback.print_exc()
        result = Evaluation(status=FAILED, reason=f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(result)


def _die_with_parent(connection: Connection) -> None:
    """Nobody ever writes to this end: it becomes readable when the worker is gone, and its trial must not go on."""
    try:
        connection.poll(None)
    finally:
        os._exit(1)


def _cause_of_death(exit_code: int | None, folder: Path) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}; see {folder / 'log.txt'}"
    return f"its process ended with exit status {exit_code}; see {folder / 'log.txt'}"
