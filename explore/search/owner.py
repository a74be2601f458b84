"""Who works on a trial, and whether they are still there."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

HEARTBEAT_SECONDS = 15.0
GIVEN_UP_SECONDS = 120.0
_UNSEEN_SECONDS = 3 * HEARTBEAT_SECONDS  # nobody can tell what happened while they looked away for longer


def this_process() -> dict[str, Any]:
    """This process as it is written beside a claim; `claim` is another one each time."""
    started = start_time(os.getpid())
    return {"host": socket.gethostname(), **_place(), "pid": os.getpid(), "started": started, "claim": uuid4().hex}


def is_here(owner: Mapping[str, Any]) -> bool:
    """Whether an owner is, or was, a process that this machine can look for by its number."""
    place = _place()
    return place["boot"] is not None and all(owner.get(key) == value for key, value in place.items())


def is_running(owner: Mapping[str, Any]) -> bool:
    """Whether an owner of this machine is still the same process."""
    started = start_time(int(owner["pid"]))
    return started is not None and started == owner["started"]


def start_time(pid: int) -> str | None:
    """Clock ticks between boot and the start of a living process; a newer process of the same pid has others."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie has died and only waits for its parent to notice.
    return None if fields[0] in ("Z", "X") else fields[19]


def _place() -> dict[str, Any]:
    """Where a number of a process means something: containers share the name of a host, and not its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"boot": boot, "processes": os.readlink("/proc/self/ns/pid")}
    except OSError:
        return {"boot": None, "processes": None}


@dataclass
class Witness:
    """Says who went silent. Goes by how long it has seen the same heartbeat itself, because clocks differ."""

    _seen: dict[int, tuple[float, float]] = field(default_factory=dict, init=False)
    _looked: float = field(default=0.0, init=False)

    def silent(self, heartbeats: Mapping[int, float]) -> set[int]:
        """Those, of all that should be beating now, that have not for so long that they are given up for dead.

        While the storage could not be reached nobody could beat; so what was seen before does not count then.
        """
        now = time.monotonic()
        before = self._seen if now - self._looked < _UNSEEN_SECONDS else {}
        self._looked = now
        self._seen = {
            row: before[row] if row in before and before[row][0] == beat else (beat, now)
            for row, beat in heartbeats.items()
        }
        return {row for row, (_, since) in self._seen.items() if now - since > GIVEN_UP_SECONDS}
