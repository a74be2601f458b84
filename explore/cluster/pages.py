"""The memory of a process in large pages, so that a fork of it has fewer entries to copy."""

import ctypes
import os
import sys
from pathlib import Path

_LARGE = 2 * 2**20  # bytes of a large page where the others have 4 KiB
_MADV_COLLAPSE = 25  # since Linux 6.1, see madvise(2): for what there is now, not for what will be allocated


def collapse_pages() -> None:
    """Put the memory that only this process has into large pages, as far as the system has them; Linux only."""
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _, _, file, *name = line.split()
        if rights == "rw-p" and file == "0" and name in ([], ["[heap]"]):
            first, end = (int(address, 16) for address in addresses.split("-"))
            first, end = -(-first // _LARGE) * _LARGE, end // _LARGE * _LARGE
            if first < end:
                madvise(first, end - first, _MADV_COLLAPSE)  # where it is refused the pages stay as they are


def collapse_pages_after(forks: int) -> None:
    """The same once this process has been forked so often: it takes as long as some thirty forks save by it."""
    process, left = os.getpid(), forks

    def forked() -> None:
        nonlocal left
        if os.getpid() == process:  # its children inherit the order
            left -= 1
            if left == 0:
                collapse_pages()

    os.register_at_fork(after_in_parent=forked)
