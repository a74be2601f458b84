"""A worker: takes trials from a study and has them evaluated, until the study is full.

Knows neither networks nor data: the evaluator is an argument, real training or a table alike.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from explore.cost.record import Cost
from explore.evaluation import FAILED, INTERRUPTED, RUNNING, STOPPED, Epoch, Evaluation, Evaluator, Report
from explore.faults import Unwritable, unwritable
from explore.search.checkpoints import bring, make_room
from explore.search.owner import HEARTBEAT_SECONDS
from explore.search.schedule import Scheduler, Step
from explore.search.study import Study, TakenOver
from explore.search.trial import Trial, candidates

CommandLine = Callable[[list[str]], str]
_RECORD_SECONDS = 1.0  # between two records of the epochs of a running trial
_WAIT_SECONDS = 0.5


class Observer(Protocol):
    """Is told what happens to a trial."""

    def begin(self, trial: Trial) -> None:
        """A trial begins."""

    def report(self, item: Cost | Epoch) -> None:
        """Its cost or an epoch is known."""

    def end(self, trial: Trial, evaluation: Evaluation) -> None:
        """It has ended."""


class Stopped(Exception):  # noqa: N818 - an order from outside, not an error
    """The worker was told to leave; its trial goes on from its last rung when the study is taken up again."""


@dataclass
class Worker:
    """Works on a study until it holds `target` trials.

    `scheduler` decides what it does next. `command_line(overrides)` writes the command that repeats a trial. `output`
    is the folder of the study. `disk` is how many bytes the checkpoints of stopped
    trials may take. `turn` is held while a trial is proposed and claimed: workers that share it never
    propose the same. `stop` says when to leave at once, `leave` when to leave after the current trial has come to its
    rung, and `wait` passes the time while others may yet leave something to do.
    """

    study: Study
    scheduler: Scheduler
    evaluate: Evaluator
    target: int
    output: Path
    disk: float = math.inf
    command_line: CommandLine = lambda overrides: ""
    observer: Observer | None = None
    turn: Callable[[], AbstractContextManager[None]] = nullcontext
    stop: Callable[[], bool] = lambda: False
    leave: Callable[[], bool] = lambda: False
    wait: Callable[[], None] = lambda: time.sleep(_WAIT_SECONDS)
    _current: Trial | None = field(default=None, init=False)
    _last_beat: float = field(default=0.0, init=False)
    _last_record: float = field(default=0.0, init=False)

    def run(self) -> int:
        """Work until nothing is left to do; returns how many times a trial was taken here.

        Raises Stopped when it was told to leave, after the current trial was kept as interrupted or came to its rung.
        """
        count = 0
        while True:
            self.check_in()
            if self.leave():
                raise Stopped
            with self.turn():
                taken = self._next()
            if taken:
                self._evaluate(*taken)
                count += 1
            elif any(trial.status == RUNNING for trial in self.study.trials()):
                self.wait()  # what others find out may leave something to do
            else:
                return count

    def check_in(self) -> None:
        """Tell the study now and then that the current trial is in good hands.

        Raises Stopped when told to leave, and TakenOver when others think that it is not.
        """
        if self.stop():
            raise Stopped
        if self._current and time.monotonic() - self._last_beat > HEARTBEAT_SECONDS:
            self._last_beat = time.monotonic()
            self.study.beat(self._current)

    def _next(self) -> tuple[Trial, Step] | None:
        while True:
            trials = self.study.trials_without_dead()
            room = len(candidates(trials)) < self.target
            # Those that do not fit in any more wait for a larger target.
            for left_behind in [trial for trial in trials if room and trial.status == INTERRUPTED]:
                if taken := self._claim(self.scheduler.resume(left_behind)):
                    return taken
            step = self.scheduler.next(trials, room=room)
            if step is None:
                return None
            if taken := self._claim(step):
                return taken

    def _claim(self, step: Step) -> tuple[Trial, Step] | None:
        command = self.command_line(list(step.proposal.overrides))
        trial = self.study.claim(
            step.proposal,
            command=command,
            target=self.target,
            continues=step.continues,
            expected=step.expected,
        )
        return (trial, step) if trial else None

    def _evaluate(self, trial: Trial, step: Step) -> None:
        self._current, self._last_beat = trial, time.monotonic()
        seen: list[Cost | Epoch] = []
        known = step.continues.evaluation if step.continues else Evaluation(status=RUNNING)

        def report(item: Cost | Epoch) -> None:
            if any(_alike(item, one) for one in seen):
                return  # its process had died, and went on from what was reported already
            seen.append(item)
            # Short epochs must not wait for the storage each time; what is left out is there when the trial ends.
            if isinstance(item, Cost) or time.monotonic() - self._last_record >= _RECORD_SECONDS:
                self._last_record = time.monotonic()
                self.study.record(trial, _so_far(known, seen, RUNNING))
            if self.observer:
                self.observer.report(item)

        try:
            if self.observer:
                self.observer.begin(trial)
            if step.continues:
                bring(self.output / step.continues.folder, self.output / trial.folder)
            result = self._result(trial, report, step.until)
        except TakenOver:
            self._leave_to_others(trial, _so_far(known, seen, INTERRUPTED, "taken over by others"))
            return
        except BaseException as order:
            # Told to leave, or a fault that is not the candidate's: the trial stays to be gone on with.
            self._end(trial, _so_far(known, seen, INTERRUPTED, _in_words(order)))
            raise
        if result.cost is None and not result.curve:
            so_far = _so_far(known, seen, result.status)
            result = replace(result, cost=so_far.cost, curve=so_far.curve)
        self._end(trial, replace(result, seconds=_added(known.seconds, result.seconds)))
        if result.status == STOPPED and self.disk < math.inf:
            with self.turn():
                make_room(self.study, self.output, self.disk)

    def _result(self, trial: Trial, report: Report, until: int) -> Evaluation:
        try:
            return self.evaluate(trial.proposal.overrides, self.output / trial.folder, report, until)
        except (Stopped, TakenOver):
            raise
        except Exception as error:
            if fault := unwritable(error):
                raise fault from error
            return Evaluation(status=FAILED, reason=f"{type(error).__name__}: {error}")

    def _leave_to_others(self, trial: Trial, so_far: Evaluation) -> None:
        self._current = None
        if self.observer:
            self.observer.end(trial, so_far)

    def _end(self, trial: Trial, result: Evaluation) -> None:
        self._current = None
        self.study.finish(trial, result)
        if self.observer:
            self.observer.end(trial, result)


def _in_words(order: BaseException) -> str:
    if isinstance(order, Stopped | KeyboardInterrupt):
        return "stopped from outside"
    return str(order) if isinstance(order, Unwritable) else repr(order)


def _alike(one: Cost | Epoch, other: Cost | Epoch) -> bool:
    if isinstance(one, Epoch):
        return isinstance(other, Epoch) and one.epoch == other.epoch
    return isinstance(other, Cost)


def _added(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {part: before.get(part, 0.0) + now.get(part, 0.0) for part in {**before, **now}}


def _so_far(known: Evaluation, seen: list[Cost | Epoch], status: str, reason: str = "") -> Evaluation:
    """The end of an evaluation that could not say for itself what it had found; `known` is what it went on with.

    Who goes on reports the epochs before once more, and may die before they have all been.
    """
    costs = [item for item in seen if isinstance(item, Cost)]
    epochs = tuple(item for item in seen if isinstance(item, Epoch))
    cost, curve = costs[-1] if costs else known.cost, max(epochs, tuple(known.curve), key=len)
    return replace(known, status=status, reason=reason, cost=cost, curve=curve)
