"""How a search grows: trials per second with many workers, and what asking and telling cost after many trials.

    python -m benchmarks.scale [format=json] [only=rates,history,running] [workers=1,4,16,64] [seconds=8]
        [trials=100,1000,10000] [running=1,100,1000] [storage.url=URL] [storage.database=URL]

`rates`: that many workers, a process each, take turns as on a shared output folder and share one study whose trials are
looked up and take no time: what is left is the storage and the turns. Afterwards no trial may be lost or doubled.

`history`: one worker in a study that already holds so many finished trials. Medians with their quartiles. Bars after
10,000 trials: 50 ms for what the storage takes of an ask (reading, claiming) and of a tell (cost, epochs, end), and for
a proposal of each sampler.

`running`: what a look at the study, a claim and a heartbeat take while so many others are at work.

Without a URL the studies are in SQLite files; of a PostgreSQL server or a proxy before it the URL is needed, and keeps
them. `storage.database` is what a proxy at `storage.url` stands before, where history and running are written to.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.arguments import parse, refusing
from benchmarks.origin import print_json
from benchmarks.result_rows import Row, row, shown

if TYPE_CHECKING:
    from benchmarks.scale_rates import Rate
    from benchmarks.trial_parts import Clock

MOST_SECONDS, MOST_TRIALS = 0.05, 10_000
DEFAULTS = {
    "only": ("rates", "history", "running"),
    "workers": (1, 4, 16, 64),
    "seconds": 8.0,
    "trials": (100, 1000, 10_000),
    "running": (1, 100, 1000),
    "storage.url": "",
    "storage.database": "",
}
BARRED = ("propose", "decide", "ask", "tell")


def rate_rows(storage: str, workers: int, rate: "Rate", faults: Sequence[str]) -> list[Row]:
    """Rows of trials per second, what each took of the processor, and those that were lost or doubled."""
    name = f"{storage}, {workers} worker{'s' * (workers > 1)}"
    return [
        row(name, rate.trials_per_second, "trials/s"),
        row(f"{name}: processor of the workers", rate.processor_seconds, "s/trial"),
        row(f"{name}: lost or doubled", float(len(faults)), "trials", at_most=0.0),
    ]


def history_rows(number: int, clock: "Clock") -> list[Row]:
    """Rows of seconds by part, after so many trials."""
    return _timed(f"after {number:,} trials", clock, {part: _bar(part, number) for part in clock.seconds})


def running_rows(number: int, clock: "Clock") -> list[Row]:
    """Rows of seconds by part, while so many trials are running."""
    return _timed(f"while {number:,} run", clock, {})


def _timed(when: str, clock: "Clock", bars: Mapping[str, float | None]) -> list[Row]:
    """Where others compute as well the wall clock says more of them than of us: beside it the processor's time."""
    return [
        row(f"{part}, {when}", each, "s", at_most=bars.get(part))
        | {"processor": statistics.median(clock.computing[part])}
        for part, each in clock.settled().items()
    ]


def _bar(part: str, number: int) -> float | None:
    return MOST_SECONDS if part.startswith(BARRED) and number == MOST_TRIALS else None


def main(arguments: Sequence[str]) -> None:
    """Measure, and print the rows."""
    # Imported here, because workers import this module once more, as Python's forkserver does.
    from benchmarks.scale_history import parts_among_running, parts_with_history
    from benchmarks.scale_rates import faults_of, rate_of
    from explore.search.secrets import hidden
    from explore.search.storage import GRPC, open_storage

    options = parse(arguments, __doc__, DEFAULTS)
    only, found = options["only"], list[Row]()
    with tempfile.TemporaryDirectory() as name:
        folder, run = Path(name), f"scale-{os.getpid()}"

        def places(study: str) -> tuple[str, str]:
            """Where a study is, and the database behind."""
            url = options["storage.url"] or f"sqlite:///{folder}/{study}.db"
            return url, options["storage.database"] or url

        with refusing(arguments):
            url, database = places("empty")
            if database.startswith(GRPC) and {"history", "running"} & {*only}:
                raise ValueError(f"storage.database must be what the proxy stands before, got {database}")
            open_storage(url)
        if "rates" in only:
            for workers in options["workers"]:
                study = f"{run}-{workers}-workers"
                url, _ = places(study)
                rate = rate_of(url, study, folder / study, workers, options["seconds"])
                faults = faults_of(url, study, rate.looked_up)
                found += rate_rows(hidden(url).partition(":")[0], workers, rate, faults)
        if "history" in only:
            study = f"{run}-history"
            for number in sorted(options["trials"]):
                found += history_rows(number, parts_with_history(number, *places(study), study))
        if "running" in only:
            for number in sorted(options["running"]):
                study = f"{run}-{number}-running"
                found += running_rows(number, parts_among_running(number, *places(study), study))
    if options["format"] == "json":
        print_json(found)
        return
    for one in found:
        print(shown(one) + (f", processor {one['processor']:.4g}" if "processor" in one else ""))


if __name__ == "__main__":
    main(sys.argv[1:])
