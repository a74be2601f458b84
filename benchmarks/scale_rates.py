"""Many workers, a process each, on one study whose trials take no time: how many trials come out of it in a second."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, set_forkserver_preload
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.looked_up import Job, look_up
from benchmarks.table_search import LookedUp, Options, begin, scheduler
from explore.cluster.local import in_turn
from explore.evaluation import COMPLETE, Evaluation, Report
from explore.search.trial import key_of
from explore.search.worker import Stopped, Worker

_PATIENCE_SECONDS = 600.0
# One epoch that takes no time, of a configuration at random: all that is left is what a study costs.
_OPTIONS = Options(trials=10**9, sampler="random", epochs=1, epoch_seconds=0.0)


@dataclass(frozen=True)
class Rate:
    """Trials per second of all workers, what each took of the processor, and the configurations that were looked up."""

    trials_per_second: float
    processor_seconds: float
    looked_up: Sequence[str]


def rate_of(url: str, name: str, output: Path, workers: int, seconds: float) -> Rate:
    """Let so many workers work for so many seconds."""
    output.mkdir(parents=True)
    begin(url, name)
    set_forkserver_preload(["benchmarks.table_search"])
    context = get_context("forkserver")
    together = context.Barrier(workers + 1)
    pipes = [context.Pipe(duplex=False) for _ in range(workers)]
    started = [
        context.Process(target=_work, args=(url, name, output, place, seconds, together, theirs))
        for place, (_, theirs) in enumerate(pipes)
    ]
    for process in started:
        process.start()
    together.wait(_PATIENCE_SECONDS)
    began = time.monotonic()
    found: list[tuple[list[str], float, float]] = [ours.recv() for ours, _ in pipes]
    for process in started:
        process.join()
    ended = max(last for _, last, _ in found)
    everyone = [key for keys, _, _ in found for key in keys]
    processor = sum(own for _, _, own in found)
    return Rate(len(everyone) / (ended - began), processor / max(1, len(everyone)), everyone)


def faults_of(url: str, name: str, looked_up: Sequence[str]) -> list[str]:
    """The configurations that were lost, doubled or not finished."""
    trials = begin(url, name).trials()
    recorded = Counter(trial.proposal.key for trial in trials if trial.status == COMPLETE)
    unfinished = [trial.proposal.key for trial in trials if trial.status != COMPLETE]
    differing = (recorded - Counter(looked_up)) + (Counter(looked_up) - recorded)
    return [*unfinished, *differing.elements(), *(key for key, count in recorded.items() if count > 1)]


def _work(
    url: str, name: str, output: Path, place: int, seconds: float, together: Barrier, results: Connection
) -> None:
    seen: list[str] = []

    def look_up_and_count(job: Job, folder: Path, report: Report) -> Evaluation:
        seen.append(key_of(job.values))
        return look_up(job, folder, report)

    worker = Worker(
        study=begin(url, name),
        # Else all would propose the same.
        scheduler=scheduler(_OPTIONS, seed=place),
        evaluate=LookedUp(_OPTIONS, look_up_and_count),
        target=_OPTIONS.trials,
        output=output,
        turn=lambda: in_turn(output / ".turn"),
        leave=lambda: time.monotonic() > end,
    )
    together.wait(_PATIENCE_SECONDS)
    end, processor = time.monotonic() + seconds, time.process_time()
    with suppress(Stopped):
        worker.run()
    results.send((seen, time.monotonic(), time.process_time() - processor))
