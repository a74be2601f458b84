"""Workers on this machine: threads that propose candidates and look after the processes that train them.

A thread is enough: all that is heavy happens in the trial's own process (see `isolation`).
"""

import fcntl
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from explore.control_groups import quota

CORES_VARIABLE = "EXPLORE_CORES"
Stop = Callable[[], bool]


def cores() -> int:
    """The cores that this process may use: what the system says, or the share of a job or a container that is less."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = (int(os.environ.get(name) or here) for name in (CORES_VARIABLE, "SLURM_CPUS_PER_TASK"))
    return min(here, *given, quota() or here)


def threads_each(processes: int) -> int:
    """Threads for each of so many that compute at once: its share of the cores, or OMP_NUM_THREADS if that is less."""
    share = max(1, cores() // processes)
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(share, int(asked)) if asked.isdecimal() and int(asked) else share


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for one's turn among the workers of this machine; the kernel ends the turn of a process that dies.

    Where machines share the file, it is a turn among all of them, if its file system knows locks.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with suppress(OSError):  # without locks some proposals are made twice, and withdrawn
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


class Crew:
    """`count` threads that run `work(place, stop)`, with a place of 0, 1, ...; `stop()` tells them when to leave,
    within a second or so.

    `lost` holds the tracebacks of those that ended with an exception.
    """

    def __init__(self, work: Callable[[int, Stop], None], count: int) -> None:
        self.lost: list[str] = []
        self._told = threading.Event()
        self._members = [threading.Thread(target=self._member, args=(work, place)) for place in range(count)]
        for member in self._members:
            member.start()

    def working(self) -> bool:
        """Whether anybody is left."""
        return any(member.is_alive() for member in self._members)

    def stop(self) -> None:
        """Ask everybody to leave and wait until they have."""
        self._told.set()
        for member in self._members:
            member.join()

    def _member(self, work: Callable[[int, Stop], None], place: int) -> None:
        try:
            work(place, self._told.is_set)
        except Exception:
            self.lost.append(traceback.format_exc())
