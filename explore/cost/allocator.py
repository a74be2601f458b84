"""Memory that a pass has used stays with the process for the next one, as in a program that has run for a while.

By default glibc gives large blocks back to the system when they are freed, or does not, depending on what was allocated
before: the same network then takes 1.0 or 1.3 times as long in one process or the other, for the pages that it is
handed out anew in every pass.
"""

import ctypes
from contextlib import suppress

# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE, _LARGE_BEFORE_2_35 = 2**30, 2**25


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed, for the rest of the process; elsewhere nothing happens."""
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Older versions refuse the larger value, and would keep a tiny one once another parameter is set.
        if mallopt(_MMAP_THRESHOLD, _LARGE) or mallopt(_MMAP_THRESHOLD, _LARGE_BEFORE_2_35):
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(_TOP_PAD, 2**26)
