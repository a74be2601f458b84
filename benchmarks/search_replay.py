"""The real search loop on a recorded table: the evaluator looks up, the clock is simulated, workers are threads."""

import heapq
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from optuna.storages import InMemoryStorage

from benchmarks.search_judge import CLASSES, Finish, Table
from benchmarks.search_rows import Rows
from explore.cost.record import Cost, Throughput
from explore.evaluation import COMPLETE, DIVERGED, STOPPED, Epoch, Evaluation, Report
from explore.search.proposals import Proposer
from explore.search.schedule import Rungs, Scheduler, Step
from explore.search.space import Values
from explore.search.speed_aware import SpeedAware
from explore.search.study import create_study
from explore.search.trial import Proposal, Trial
from explore.search.veto import Veto
from explore.search.worker import Stopped, Worker

_LAUNCH_SECONDS = 0.1  # of a process for each piece of training
_A_MOMENT = 1e-6  # seconds
_ETA = 3


class Clock:
    """Simulated time for threads, of which one runs at a time: the one whose sleep ends first."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, int, bool, threading.Event]] = []  # the bool: at work, not idle
        self._count = 0
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        """Let the others run until so many seconds have passed."""
        self._sleep(self.now + seconds, at_work=True)

    def wait(self) -> None:
        """Sleep until something has happened elsewhere: not to others who wait, or all would wake one another."""
        with self._lock:
            happens = min((when for when, _, at_work, _ in self._waiting if at_work), default=self.now)
        self._sleep(happens + _A_MOMENT, at_work=False)

    def _sleep(self, until: float, *, at_work: bool) -> None:
        wake = threading.Event()
        self._queue(until, wake, at_work=at_work)
        self.leave()
        wake.wait()

    def leave(self) -> None:
        """Let the next one run."""
        with self._lock:
            if self._waiting:
                self.now, _, _, wake = heapq.heappop(self._waiting)
                wake.set()

    def join(self, wake: threading.Event) -> None:
        """Enter a thread that waits for its first turn."""
        self._queue(self.now, wake, at_work=True)

    def _queue(self, until: float, wake: threading.Event, *, at_work: bool) -> None:
        with self._lock:
            self._count += 1
            heapq.heappush(self._waiting, (until, self._count, at_work, wake))


@dataclass
class Lookup:
    """Evaluates rows of a table, and notes what was trained to the end."""

    table: Table
    rows: dict[tuple[str, ...], int]
    clock: Clock
    finishes: list[Finish] = field(default_factory=list)
    epochs: int = 0
    _trained: dict[int, int] = field(default_factory=dict)

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        """As `Evaluator`."""
        row = self.rows[tuple(overrides)]
        accuracy = self.table.validation[row]
        before = self._trained.get(row)
        if before is None:
            self.clock.sleep(self.table.cost_seconds[row])
        last = min(until, int(np.isfinite(accuracy).sum()))
        self.clock.sleep(_LAUNCH_SECONDS + (last - (before or 0)) * self.table.epoch_seconds[row])
        self.epochs += last - (before or 0)
        self._trained[row] = last
        if last == self.table.epochs:
            self.finishes.append(Finish(row, self.epochs, self.clock.now))
        status = DIVERGED if last < until else COMPLETE if last == self.table.epochs else STOPPED
        return Evaluation(status=status, cost=_cost(self.table.throughput[row]), curve=_curve(accuracy[:last]))


def replay(
    table: Table, scheduler: Callable[[Rows], Scheduler], workers: int = 1, *, enough: Callable[[list[Finish]], bool]
) -> list[Finish]:
    """Search until it was `enough`, or the table is exhausted; what was trained to the end, in that order."""
    rows, clock = Rows(table), Clock()
    lookup = Lookup(table, {overrides: row for row, overrides in enumerate(table.overrides)}, clock)
    study = create_study(InMemoryStorage(), "replay", {"space": table.data})
    # All share one scheduler: they run one at a time.
    shared = scheduler(rows)

    def work(wake: threading.Event) -> None:
        wake.wait()
        with suppress(Stopped):
            Worker(
                study=study,
                scheduler=shared,
                evaluate=lookup,
                target=len(table.overrides),
                output=Path(),
                wait=clock.wait,
                stop=lambda: enough(lookup.finishes),
            ).run()
        clock.leave()

    events = [threading.Event() for _ in range(workers)]
    threads = [threading.Thread(target=partial(work, event)) for event in events]
    for thread, event in zip(threads, events, strict=True):
        clock.join(event)
        thread.start()
    clock.leave()
    for thread in threads:
        thread.join()
    return lookup.finishes


def soonest(table: Table, scale: str, share: float) -> float:
    """Simulated seconds to a share of the hypervolume for who has a worker for each row: no search can be sooner."""
    seconds = table.cost_seconds + _LAUNCH_SECONDS + table.epochs * table.epoch_seconds
    ends = [int(row) for row in np.argsort(seconds) if np.isfinite(table.test[row])]
    return float(seconds[ends[int(np.argmax(table.progress(ends, scale) >= share))]])


class Nearest(Proposer):
    """A sampler whose proposals become the nearest rows of a table that were not tried yet."""

    rows: Rows

    def propose(self, trials: Sequence[Trial]) -> Proposal | None:
        """As `Proposer`."""
        free = set(range(len(self.rows.table.overrides))) - {self.rows.row_of(one) for one in trials}
        if not free:
            return None
        asked = next(iter(self._candidates(trials)))
        values = self.rows.values_of(self.rows.nearest(asked.values, free))
        return self.space.proposal(values, sampler_state=asked.sampler_state)


def sampled(
    rows: Rows, sampler: str, seed: int, startup: int, rungs: Sequence[int], *, below: float | None = None
) -> Scheduler:
    """One of Optuna's samplers, with or without rungs, and with a veto against promotions `below` a probability."""
    proposer = Nearest(space=rows.space, sampler=sampler, seed=seed, startup=startup)
    proposer.rows = rows
    veto = Veto(rows.space, rungs[-1], CLASSES, rows.table.smallest_error, below) if below is not None else None
    return Rungs(proposer, rungs, _ETA, veto)


class SpeedUnknown(SpeedAware):
    """Ours, but nobody is measured before being trained."""

    def next(self, trials: Sequence[Trial], *, room: bool) -> Step | None:
        """As `Scheduler`."""
        step = super().next(trials, room=room)
        return replace(step, until=self.rungs[0]) if step and not step.until else step


def speed_aware(
    rows: Rows, seed: int, rungs: Sequence[int], kind: type[SpeedAware] = SpeedAware, **options: Any
) -> Scheduler:
    """Ours; it chooses among all rows."""
    everyone = [rows.values_of(row) for row in range(len(rows.table.overrides))]

    def pool(generator: np.random.Generator, best: Sequence[Values]) -> list[Values]:
        return [everyone[index] for index in generator.permutation(len(everyone))]

    given = {"classes": CLASSES, "smallest": rows.table.smallest_error, "tolerance": 0.0} | options
    return kind(space=rows.space, rungs=rungs, seed=seed, pool=pool, **given)


def _cost(throughput: float) -> Cost:
    speed = Throughput(
        images_per_second=throughput,
        low=throughput,
        high=throughput,
        latency_ms=0.0,
        batch_size=256,
        precision="32-true",
        device="table",
        threads=1,
        blocks=1,
        torch_version="",
    )
    return Cost(params=0, macs=0, memory_bytes=0, throughput=speed)


def _curve(accuracy: Sequence[float]) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(epoch=epoch, train_loss=0.0, val_loss=0.0, val_accuracy=float(one), lr=0.0, seconds=0.0)
        for epoch, one in enumerate(accuracy, 1)
    )
