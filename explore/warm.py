"""What the warm server imports before any trial is forked from it.

Frozen objects are left alone by the garbage collector: collecting them in a trial would touch, and so copy, all the
memory that it shares with the server, which doubled the time of everything else there.
"""

import gc

import explore.evaluator
import explore.together  # noqa: F401 - imported for the trials, as the other one

gc.collect()
gc.freeze()
