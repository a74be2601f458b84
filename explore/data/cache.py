"""Decoded data sets on disk: a folder of plain .npy files each, written once, read by memory map.

A folder appears complete or not at all, because it is written under another name and then renamed; so any number of
processes may write and read at the same time. Anything in the cache may be deleted at any time.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explore.user_cache import user_cache

Arrays = Mapping[str, NDArray[Any]]


def cache_folder(configured: str | None) -> Path:
    """The configured folder, or that of the user."""
    return user_cache() if configured is None else Path(os.path.expanduser(configured))


def fetch(folder: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """Arrays and facts that `store` has put in the folder; None if there are none, or if they are damaged."""
    try:
        facts = json.loads((folder / "facts.json").read_text())
        # Copy on write: the pages are shared by all processes, and torch takes no arrays that are read-only.
        return {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in facts["arrays"]}, facts
    except (OSError, ValueError, KeyError, EOFError):
        return None


def store(folder: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Write arrays and facts (what JSON can hold) to the folder; whoever was first has written the same.

    Raises ValueError if the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=".incomplete-", ignore_cleanup_errors=True
        ) as scratch:
            complete = Path(scratch) / folder.name
            complete.mkdir()
            for name, array in arrays.items():
                np.save(complete / f"{name}.npy", array)
            (complete / "facts.json").write_text(json.dumps({**facts, "arrays": list(arrays)}))
            with _alone(folder.parent):
                if fetch(folder) is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    complete.rename(folder)
    except OSError as error:
        place = str(folder.parent)
        raise ValueError(
            f"data.cache must be a folder that can be written, got {place!r} ({error.strerror})"
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes: between looking and replacing, nobody may put a good copy there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
