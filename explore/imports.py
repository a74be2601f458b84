"""Imports of large libraries, without looking for garbage among what they make."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """What is imported inside stays until the end of the process, and the garbage collector never looks at it.

    It would do so several times while torch and others are imported, which takes a quarter of that time, and once more
    when the process ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
