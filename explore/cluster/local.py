"""Workers as processes on this machine, forked from the warm server."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from explore.cluster.isolation import server_context

_STOP_SECONDS = 10.0


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for one's turn among the processes of this machine; the kernel ends the turn of one that dies."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


class Crew:
    """`count` processes that run `work(*arguments, stop)`; `stop()` tells them when to leave.

    They leave when they are told to and when the process that started them is gone, however it ended.
    """

    def __init__(self, work: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
        self._work = work
        self._arguments = arguments
        self._members: list[tuple[BaseProcess, Connection]] = []
        self.lost = 0
        for _ in range(count):
            self._start()

    def working(self) -> bool:
        """Whether anybody is left; whoever died is counted in `lost` and not replaced."""
        for member in list(self._members):
            process, lifeline = member
            if not process.is_alive():
                process.join()
                lifeline.close()
                self.lost += process.exitcode != 0
                self._members.remove(member)
        return bool(self._members)

    def stop(self) -> None:
        """Ask everybody to leave, wait, and end those who do not."""
        for _, lifeline in self._members:
            lifeline.close()
        for process, _ in self._members:
            process.join(_STOP_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._members.clear()

    def _start(self) -> None:
        ours, theirs = server_context().Pipe()
        process = server_context().Process(target=_member, args=(self._work, self._arguments, theirs))
        process.start()
        theirs.close()
        self._members.append((process, ours))


def _member(work: Callable[..., None], arguments: tuple[Any, ...], lifeline: Connection) -> None:
    # Ctrl-C reaches every process of a terminal; the one in front decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())

    def listen() -> None:
        lifeline.poll(None)
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    work(*arguments, told.is_set)
