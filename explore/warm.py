"""What the warm server imports before any trial is forked from it, and how its memory is made ready for that.

Frozen objects are left alone by the garbage collector: collecting them in a trial would touch, and so copy, all the
memory that it shares with the server, which doubled the time of everything else there. And most of a fork is copying
the table of pages, with an entry for each 4 KiB of 300 MB.
"""

import signal

from explore.imports import lasting

# Ctrl-C is meant for the one who started the server; it ignores it later on by itself, but importing takes seconds.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

with lasting():
    import explore.evaluator
    import explore.together  # noqa: F401 - imported for the trials, as the other one
    from explore.cluster.pages import collapse_pages_after

# Not at once: who trains a few candidates begins half a second sooner.
collapse_pages_after(forks=16)
