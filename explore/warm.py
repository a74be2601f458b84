"""What the warm server imports before any trial is forked from it, and how its memory is made ready for that.

Frozen objects are left alone by the garbage collector: collecting them in a trial would touch, and so copy, all the
memory that it shares with the server, which doubled the time of everything else there. And most of a fork is copying
the table of pages, with an entry for each 4 KiB of 300 MB.
"""

from explore.imports import lasting

with lasting():
    import explore.evaluator
    import explore.together  # noqa: F401 - imported for the trials, as the other one
    from explore.cluster.pages import collapse_pages_after

# Not at once: who trains a few candidates begins half a second sooner.
collapse_pages_after(forks=16)
