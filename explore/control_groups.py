"""What the control groups of Linux leave to this process, as those of a container: time of cores, and memory.

A process finds its own group at the root of the folder of all groups where it lives in a container, and elsewhere a
file of its own says which it is; a limit holds for all groups below.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def quota(groups: Path = GROUPS, own: Path = OWN) -> int | None:
    """The cores whose time this process is given, rounded up; None where all may be used.

    A container with a limit (`limits: {cpu: 4}`) sees all cores of its machine, and is stopped for the rest of each
    period when its threads have used up that time.
    """
    shares = []
    for folder in _folders("cpu", groups, own):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # of version 2, of version 1
            with suppress(OSError, ValueError):  # of a file that is not there, or says `max`
                time, period = map(int, " ".join((folder / name).read_text() for name in names).split())
                shares += [math.ceil(time / period)] if min(time, period) > 0 else []
    return min(shares, default=None)


def memory_limit(groups: Path = GROUPS, own: Path = OWN) -> int | None:
    """The bytes beyond which this process or one beside it would be killed; None where no group has a limit.

    It may be more than the machine has, which is how version 1 says that there is none.
    """
    limits = []
    for folder in _folders("memory", groups, own):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2, of version 1
            with suppress(OSError, ValueError):  # as above
                limits.append(int((folder / name).read_text()))
    return min(limits, default=None)


def memory() -> int:
    """The bytes of memory for this process: those of the machine, or the limit of its container if that is less."""
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(here, memory_limit() or here)


def _folders(controller: str, groups: Path, own: Path) -> Iterator[Path]:
    """Where the groups that may limit this process lie: its own and those around it, of both versions."""
    yield groups
    yield groups / controller
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                root = groups / controllers
                for depth in range(len(parts := path.strip("/").split("/"))):
                    yield root.joinpath(*parts[: depth + 1])
