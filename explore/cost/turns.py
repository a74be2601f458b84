"""Turns on a device: any number of processes of this machine compute side by side, but one that measures is alone.

Two locks on files in the folder for temporary files, both released by the kernel when their process ends, however it
ends. Who measures holds both for itself. Who computes shares the second, and passes through the first on the way: there
it waits behind one who wants to measure, who would otherwise never meet a moment without anybody computing.

Nobody waits long for a process that was stopped (Ctrl-Z), which computes nothing and keeps its locks: another file
takes the place of the one that it has locked, and among themselves the others keep to their turns.
"""

import fcntl
import os
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import torch

from explore.cost.device import gpu_identity, nvidia_smi
from explore.cost.waiting import WAITING

_SHORTEST_PAUSE, _LONGEST_PAUSE = 5e-5, 0.01  # seconds between two looks at a lock
_PATIENCE = 2.0  # seconds with those who were stopped
_MPS_SERVER = "nvidia-cuda-mps-server"  # computes nothing itself: kernels are those of its clients


class Turns:
    """The turns of this process on one device, until the end of the context.

    A turn must not be taken within a turn of the same process.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._queue, self._device = (_Lock(path) for path in _files(device))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._queue.close()
        self._device.close()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Waits while another process measures, or waits to; takes microseconds when none does.

        A GPU may go on with what it was told after the turn, unless somebody waits to measure.
        """
        self._queue.take(fcntl.LOCK_SH)
        self._device.take(fcntl.LOCK_SH)
        self._queue.give_back()
        try:
            yield
        finally:
            if self._gpu and self._awaited():
                torch.cuda.synchronize(self._gpu)
            self._device.give_back()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Waits until no other process computes or measures on the device, then keeps it for itself."""
        self._queue.take(fcntl.LOCK_EX)
        try:
            self._device.take(fcntl.LOCK_EX)
            yield
        finally:
            self._device.give_back()
            self._queue.give_back()

    def _awaited(self) -> bool:
        """Whether somebody has the queue for itself."""
        if not self._queue.taken_at_once(fcntl.LOCK_SH):
            return True
        self._queue.give_back()
        return False


class _Lock:
    """A lock on the file that is at a path; a child of this process has one of its own there."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, _open(path)
        _LOCKS.add(self)

    def close(self) -> None:
        _LOCKS.discard(self)
        os.close(self._file)

    def take(self, kind: int) -> None:
        """Wait for a lock of a kind of `fcntl`."""
        began, pause = time.monotonic(), _SHORTEST_PAUSE
        while not self.taken_at_once(kind):
            slept = time.monotonic()
            time.sleep(pause)
            WAITING.add(time.monotonic() - slept)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if time.monotonic() - began > _PATIENCE:
                began = time.monotonic()
                if _only_stopped_hold(self._file) and not self._make_way():
                    return  # rather without a lock than for ever

    def taken_at_once(self, kind: int) -> bool:
        """Take a lock where nobody has one that excludes it; whether it was taken."""
        while True:
            try:
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._is_at_its_place():
                    return False
            else:
                if self._is_at_its_place():
                    return True
            self.reopen()  # another file took its place

    def give_back(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def reopen(self) -> None:
        os.close(self._file)
        self._file = _open(self._path)

    def _is_at_its_place(self) -> bool:
        return os.fstat(self._file).st_nlink > 0

    def _make_way(self) -> bool:
        """Take away the file that only processes have locked that were stopped; False where that is not allowed."""
        guard = _open(self._path.with_suffix(".guard"))  # of two who find it out at once only one does it
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_at_its_place() and _only_stopped_hold(self._file):
                self._path.unlink()
            return True
        except BlockingIOError:
            return not _only_stopped_hold(guard)
        except OSError:  # it belongs to another user
            return False
        finally:
            os.close(guard)


_LOCKS: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _reopen_all() -> None:
    for one in _LOCKS:
        one.reopen()


# A lock belongs to a file as it was opened: a child would keep that of a parent that was killed.
os.register_at_fork(after_in_child=_reopen_all)


def strangers(device: torch.device) -> list[str]:
    """Processes on a GPU that take no turns there, as `name (pid)`; none on a processor, whose own scheduler is fair.

    As far as the system shows them: from inside a container it may show none.
    """
    if device.type != "cuda":
        return []
    answers = (line.partition(",") for line in nvidia_smi("--query-compute-apps=pid,process_name", device))
    others = {int(pid): name.strip() for pid, _, name in answers if pid.strip().isdigit()}
    file = os.path.realpath(_files(device)[1])
    # Where the system shows only the server it stands for all that compute through it, this process among them.
    shown = os.getpid() in others
    programs = {pid: name for pid, name in others.items() if not (shown and Path(name).name == _MPS_SERVER)}
    return [f"{name} ({pid})" for pid, name in sorted(programs.items()) if not _takes_turns(pid, file)]


def _only_stopped_hold(file: int) -> bool:
    """Whether all who have a lock on a file were stopped, as far as the system shows them."""
    holders = _holders(file)
    return bool(holders) and all(map(_is_stopped, holders))


def _holders(file: int) -> list[int]:
    """The processes that have a lock on a file, as far as the system shows them."""
    seen = os.fstat(file)
    name = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return []
    # Such as `7: FLOCK ADVISORY READ 708 08:01:5368 0 EOF`; an arrow stands before the kind of those that wait.
    return [int(words[4]) for words in locks if words[1] == "FLOCK" and words[5] == name]


def _is_stopped(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended, or lives in another namespace
        return False
    return state in ("T", "t")


def _takes_turns(pid: int, file: str) -> bool:
    process = Path(f"/proc/{pid}")
    with suppress(OSError):  # it has ended meanwhile
        try:
            return any(os.path.realpath(link) == file for link in (process / "fd").iterdir())
        except PermissionError:  # it belongs to somebody else, and only its command line can be read
            return b"explore." in (process / "cmdline").read_bytes()
    return False


def _files(device: torch.device) -> tuple[Path, Path]:
    identity = gpu_identity(device) if device.type == "cuda" else device.type
    folder = Path(tempfile.gettempdir())
    return folder / f"explore-queue-{identity}.lock", folder / f"explore-device-{identity}.lock"


def _open(path: Path) -> int:
    with suppress(OSError):  # it is not there yet, or belongs to another user
        os.utime(path)  # what nobody touches for days is deleted, and whoever came then would lock another file
    try:
        # Reading is enough to lock, and lets users share a file that one of them owns.
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        with suppress(PermissionError):  # another user was faster
            os.fchmod(file, 0o644)  # whatever this user hides from others
        return file
