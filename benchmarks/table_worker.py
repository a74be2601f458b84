"""A worker whose trials are looked up in place of being trained; everything else is that of a real search.

    python -m benchmarks.table_worker URL STUDY OUTPUT trials=60 [workers=2] [sampler=speed_aware] [epochs=27]
        [epoch_seconds=0.02]

Begins the study in the storage at URL or joins it, in as many threads as `workers`, and leaves when nothing is left to
do. Each trial has a process of its own, which keeps a checkpoint in the folder OUTPUT.
"""

import multiprocessing
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

_POLL_SECONDS = 0.2


def main(arguments: Sequence[str]) -> int:
    """Work, and say with the exit status whether nobody was lost."""
    # Imported here, because the process of each trial imports this module once more, as Python's forkserver does.
    import yaml

    from benchmarks.table_search import Options, begin, work
    from explore.cluster.local import Crew

    url, name, output = arguments[:3]
    given = {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in arguments[3:])}
    options = Options(**given)
    multiprocessing.set_forkserver_preload(["benchmarks.looked_up"])
    Path(output).mkdir(parents=True, exist_ok=True)
    crew = Crew(partial(work, begin(url, name), Path(output), options), options.workers)
    while crew.working():
        time.sleep(_POLL_SECONDS)
    print("".join(crew.lost), file=sys.stderr)
    return 1 if crew.lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
