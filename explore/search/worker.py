"""A worker: takes trials from a study and has them evaluated, until the study is full.

Knows neither networks nor data: the evaluator is an argument, real training or a table alike.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from explore.cost.record import Cost
from explore.evaluation import (
    BLOCK_LOST,
    BLOCK_STOPPED,
    COMPLETE,
    FAILED,
    IN_BLOCK,
    INTERRUPTED,
    RUNNING,
    STOPPED,
    Epoch,
    Evaluation,
    Evaluator,
    Pace,
    Report,
    ReportOf,
)
from explore.faults import Unwritable, unwritable
from explore.search.checkpoints import Sizes, bring, make_room
from explore.search.owner import HEARTBEAT_SECONDS
from explore.search.schedule import Scheduler, Step
from explore.search.study import Study, TakenOver
from explore.search.trial import Trial, candidates

CommandLine = Callable[[list[str]], str]
# Trains several at once, by their overrides and folders, so that who evaluates them finds that done.
Together = Callable[[Sequence[Sequence[str]], Sequence[Path], ReportOf], Evaluation]
# Measures of one whether it pays to train several like it at once.
Pacer = Callable[[Sequence[str], Path], Evaluation]
# Why one whose block came to nothing is trained alone.
_ALONE = "not trained with others: "
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
    rung, and `wait` passes the time while others may yet leave something to do. `pace` measures, and `together` trains,
    what the scheduler wants to be trained at once. `ended` is why nothing is left to do, once that is so.
    """

    study: Study
    scheduler: Scheduler
    evaluate: Evaluator
    target: int
    output: Path
    disk: float = math.inf
    command_line: CommandLine = lambda overrides: ""
    observer: Observer | None = None
    pace: Pacer | None = None
    together: Together | None = None
    turn: Callable[[], AbstractContextManager[None]] = nullcontext
    stop: Callable[[], bool] = lambda: False
    leave: Callable[[], bool] = lambda: False
    wait: Callable[[], None] = lambda: time.sleep(_WAIT_SECONDS)
    ended: str = field(default="", init=False)
    _current: Trial | None = field(default=None, init=False)
    _waiting: list[Trial] = field(default_factory=list, init=False)  # claimed with the current one
    _sizes: Sizes = field(default_factory=dict, init=False)
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
                self._evaluate_all(taken)
                count += len(taken)
            elif any(trial.status == RUNNING for trial in self.study.trials()):
                self.wait()  # what others find out may leave something to do
            else:
                self.ended = self.scheduler.ended or self._exhausted()
                return count

    def _exhausted(self) -> str:
        """What there is no more of, where a scheduler had nothing left to say."""
        trials = self.study.trials()
        if (count := len(candidates(trials))) >= self.target:
            if count > self.target:
                return f"The study is full: {count} trials are done, and {self.target} asked for."
            return f"The study is full: {count} of {count} trial{'s are' if count != 1 else ' is'} done."
        many = f"all {len(trials)} possible configurations were tried"
        return f"The space is exhausted: {many if len(trials) != 1 else 'its only configuration was tried'}."

    def check_in(self) -> None:
        """Tell the study now and then that the current trial, and those that wait with it, are in good hands.

        Raises Stopped when told to leave, and TakenOver when others think that the current one is not.
        """
        if self.stop():
            raise Stopped
        if (self._current or self._waiting) and time.monotonic() - self._last_beat > HEARTBEAT_SECONDS:
            self._last_beat = time.monotonic()
            for trial in list(self._waiting):
                try:
                    self.study.beat(trial)
                except TakenOver:  # others have it in a folder of their own
                    self._waiting.remove(trial)
            if self._current:
                self.study.beat(self._current)

    def _next(self) -> list[tuple[Trial, Step]]:
        """What to do next: one trial, or several that are trained at once; none when nothing is left to do."""
        while True:
            trials = self.study.trials_without_dead()
            room = len(candidates(trials)) < self.target
            # Those that do not fit in any more wait for a larger target.
            for left_behind in [trial for trial in trials if room and trial.status == INTERRUPTED]:
                if taken := self._claim(self.scheduler.resume(left_behind)):
                    return [taken]
            step = self.scheduler.next(trials, room=room)
            if step is None:
                return []
            each = [step, *(Step(proposal, step.until) for proposal in step.beside if self.together)]
            if claimed := [taken for one in each if (taken := self._claim(one))]:
                return claimed

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

    def _evaluate_all(self, taken: Sequence[tuple[Trial, Step]]) -> None:
        """Evaluate what was claimed, one after the other; several are trained at once before.

        Those that wait when it is told to leave are kept as interrupted, and go on from what is in their folders. So
        are all whose block came to nothing: any worker takes them, one by one.
        """
        self._waiting, self._last_beat = [trial for trial, _ in taken], time.monotonic()
        known: dict[int, Evaluation] = {}
        try:
            if len(taken) > 1 and not self._train_together(list(self._waiting), known):
                for trial in self._waiting:
                    self.study.finish(trial, replace(known[trial.row], status=INTERRUPTED))
                return
            for trial, step in taken:
                if trial in self._waiting:  # and was not taken over by others
                    self._waiting.remove(trial)
                    self._evaluate(trial, step, known.get(trial.row))
        except BaseException as order:
            for trial in self._waiting:
                so_far = known.get(trial.row, trial.evaluation)
                self.study.finish(trial, replace(so_far, status=INTERRUPTED, reason=_in_words(order)))
            raise
        finally:
            self._waiting = []

    def _train_together(self, trials: Sequence[Trial], known: dict[int, Evaluation]) -> bool:
        """Train trials at once, and keep in `known` by their rows: their curves, and their shares of the time.

        Whether that came to something; if not, `known` has the reason.
        """
        assert self.together
        began, part, reason = time.monotonic(), BLOCK_STOPPED, ""

        def share() -> dict[str, float]:
            return {part: (time.monotonic() - began) / len(trials)}

        def report(item: tuple[int, Epoch]) -> None:
            place, epoch = item
            before = known.get(trials[place].row, Evaluation(status=RUNNING))
            if epoch.epoch > before.epochs:  # a process that had died begins again
                known[trials[place].row] = replace(before, curve=(*before.curve, epoch), seconds=share())
            if time.monotonic() - self._last_record >= _RECORD_SECONDS:
                self._last_record = time.monotonic()
                for trial in self._waiting:
                    with suppress(TakenOver):  # which the next beat finds out
                        self.study.record(trial, known.get(trial.row, trial.evaluation))

        overrides, folders = [one.proposal.overrides for one in trials], [self.output / one.folder for one in trials]
        try:
            result = _or_failed(partial(self.together, overrides, folders, report))
            part, reason = (IN_BLOCK, "") if result.status == COMPLETE else (BLOCK_LOST, _ALONE + result.reason)
        finally:
            for trial in trials:
                known[trial.row] = replace(known.get(trial.row, trial.evaluation), reason=reason, seconds=share())
        return part == IN_BLOCK

    def _evaluate(self, trial: Trial, step: Step, together: Evaluation | None) -> None:
        self._current = trial  # has beaten since it was claimed, with those that wait
        seen: list[Cost | Epoch] = []
        known = together or (step.continues.evaluation if step.continues else Evaluation(status=RUNNING))

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
            result = self._result(trial, report, step)
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
        alone = known.reason if known.reason.startswith(_ALONE) else ""
        reason = "; ".join(filter(None, (result.reason, alone)))
        self._end(trial, replace(result, reason=reason, seconds=_added(known.seconds, result.seconds)))
        if result.status == STOPPED and result.epochs and self.disk < math.inf:
            with self.turn():
                make_room(self.study, self.output, self.disk, self._sizes)

    def _result(self, trial: Trial, report: Report, step: Step) -> Evaluation:
        overrides, folder = trial.proposal.overrides, self.output / trial.folder
        result = _or_failed(partial(self.evaluate, overrides, folder, report, step.until))
        if not (self.pace and step.paced and result.status == COMPLETE):
            return result
        # Apart from the evaluation, which is not lost whatever becomes of this.
        began = time.monotonic()
        measured = _or_failed(partial(self.pace, overrides, folder))
        pace = measured.pace or Pace(refusal=f"that could not be measured: {measured.reason}")
        return replace(result, pace=pace, seconds={**result.seconds, "pace": time.monotonic() - began})

    def _leave_to_others(self, trial: Trial, so_far: Evaluation) -> None:
        self._current = None
        if self.observer:
            self.observer.end(trial, so_far)

    def _end(self, trial: Trial, result: Evaluation) -> None:
        self._current = None
        self.study.finish(trial, result)
        if self.observer:
            self.observer.end(trial, result)


def _or_failed(evaluate: Callable[[], Evaluation]) -> Evaluation:
    """What comes out; an exception that is neither an order nor a fault of this machine is a failed evaluation."""
    try:
        return evaluate()
    except (Stopped, TakenOver):
        raise
    except Exception as error:
        if fault := unwritable(error):
            raise fault from error
        return Evaluation(status=FAILED, reason=f"{type(error).__name__}: {error}")


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
