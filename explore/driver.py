"""One search from its plan to its report: start workers, follow them, conclude."""

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from explore.candidate import COSTS, Candidate, test_accuracy, this_machine, time_published, time_together
from explore.cluster.isolation import Isolated
from explore.cluster.local import Crew, in_turn
from explore.config import compose, has_option, vary
from explore.data.dataset import load
from explore.evaluation import COMPLETE, STOPPED
from explore.evaluator import TrainingEvaluator, train
from explore.faults import Unwritable, unwritable
from explore.plan import SNAPSHOT, Plan, scheduler
from explore.reporting.page import write_report
from explore.reporting.progress import progress
from explore.reporting.tables import trial_rows
from explore.search.rivals import batch_size, compared, decided, measured_on, results, rivals, with_speeds
from explore.search.space import parse_space
from explore.search.study import Study, Trial, finished, front
from explore.search.worker import Stopped, Worker
from explore.tracking import Tracker
from explore.view import View

_POLL_SECONDS = 0.5
_REPLACEMENTS = 3


def search(plan: Plan, study: Study, view: View) -> int:
    """Search until the study is full; goes on where it stopped. Returns the exit status for the shell."""
    interrupted = False
    with view:
        try:
            _follow(plan, study, view)
        except KeyboardInterrupt:
            interrupted = True
    return _conclude(plan, study, view, interrupted=interrupted)


def _work(plan: Plan, study: Study, faults: list[Unwritable], stop: Callable[[], bool]) -> None:
    """What a worker does; all share `study`, because reading a long one takes seconds.

    All leave when one finds that nothing can be kept, and says so in `faults`.
    """
    config = compose(plan.base)
    tracker = Tracker(plan.tracking, plan.study, plan.output, whole=plan.stops)
    space = parse_space(plan.space, lambda key, values: has_option(key, values, config))

    decides = scheduler(plan, space, load(config.data))
    isolated = Isolated(train, lambda: worker.check_in(), config.training.devices, plan.max_minutes)
    worker = Worker(
        study=study,
        scheduler=decides,
        evaluate=TrainingEvaluator(plan.base, plan.output / COSTS, plan.space, isolated),
        target=plan.trials,
        output=plan.output,
        disk=plan.disk,
        command_line=lambda overrides: command_line(plan.base, overrides),
        observer=tracker,
        turn=lambda: in_turn(plan.output / ".turn"),
        stop=lambda: bool(faults) or stop(),
    )
    try:
        with suppress(Stopped):
            worker.run()
        if decides.ended:
            study.note("ended", decides.ended)
    except Exception as error:
        if not (fault := unwritable(error)):
            raise
        faults.append(fault)


def command_line(base: Sequence[str], overrides: Sequence[str]) -> str:
    """The command that trains one candidate of a search again."""
    chosen = {SNAPSHOT, *(override.partition("=")[0] for override in overrides)}
    kept = [override for override in base if override.partition("=")[0] not in chosen]
    return shlex.join(["python", "-m", "explore.train", *kept, *overrides])


def _follow(plan: Plan, study: Study, view: View) -> None:
    """Keep workers at work until nothing is left to do; those that died are replaced a few times.

    Raises Unwritable where what they find cannot be kept.
    """
    study.note("ended", "")
    replacements, faults = _REPLACEMENTS * plan.workers, list[Unwritable]()
    while True:
        crew = Crew(partial(_work, plan, study, faults), plan.workers)
        try:
            while crew.working():
                view.update(study.trials())
                time.sleep(_POLL_SECONDS)
        finally:
            crew.stop()
            view.update(study.trials())
        if faults:
            raise faults[0]
        for report in crew.lost:
            print(report, file=sys.stderr)
        if not crew.lost or (replacements := replacements - len(crew.lost)) < 0:
            return


def _conclude(plan: Plan, study: Study, view: View, *, interrupted: bool) -> int:
    if not interrupted:
        try:
            _compare_speeds(plan, study)
            _measure_test_accuracy(plan, study, front(results(study)))
            study.note("references", _references(plan, study))
        except KeyboardInterrupt:
            interrupted = True
    trials = results(study)
    report = write_report(study, plan.output)
    if not interrupted:
        rows = trial_rows(trials, tests(study)).astype(object).where(lambda frame: frame.notna(), None)
        tracker = Tracker(plan.tracking, plan.study, plan.output)
        _track_stopped(tracker, study, trials)
        curve = progress(trials, study.stretches()).to_dict("records")
        tracker.study_run(rows.to_dict("records"), plan.output / "front.png", curve)
    ended = study.notes.get("ended", "")
    unfinished = interrupted or (not ended and len(finished(trials)) < plan.trials)
    go_on = plan.command if unfinished else None
    view.conclude(trials, tests(study), report, ended=ended, go_on=go_on)
    if interrupted:
        return 130
    return 0 if any(trial.status == COMPLETE for trial in trials) else 1


def _track_stopped(tracker: Tracker, study: Study, trials: Sequence[Trial]) -> None:
    """Write the runs of the candidates that were stopped, once: until now they might have gone on."""
    written = set(study.notes.get("tracked", []))
    stopped = [trial for trial in trials if trial.status == STOPPED and trial.row not in written]
    for trial in stopped:
        tracker.write(trial, trial.evaluation)
    study.note("tracked", sorted(written | {trial.row for trial in stopped}))


def _compare_speeds(plan: Plan, study: Study) -> None:
    """Measure those that compete for the front again, all together, and once for the same ones.

    The comparison may bring others into reach of the front, which are compared then as well. One that it leaves out,
    because it cannot be compiled, keeps the speed it has.
    """
    trials, known, left_out = study.trials(), compared(study), set(study.notes.get("left_out", ()))
    competing = {trial.number: trial for trial in rivals(trials)}
    while not competing.keys() <= known.keys() | left_out:
        candidates = {number: _candidate(plan, one) for number, one in competing.items()}
        batch_sizes = {number: batch_size(one) for number, one in competing.items()}
        interval = next(iter(candidates.values())).cost.interval
        try:
            _refuse_other_machines(competing.values(), next(iter(candidates.values())))
            print(f"Comparing the speeds of {len(competing)} trials", file=sys.stderr)
            known = decided(time_together(candidates, batch_sizes), batch_sizes, interval)
        except (ValueError, RuntimeError, MemoryError) as error:
            # The result is worth more than its last digit.
            print(f"explore: speeds are not compared: {str(error).splitlines()[0]}", file=sys.stderr)
            return
        left_out = competing.keys() - known.keys()
        study.note("left_out", sorted(left_out))
        study.note("speeds", {str(number): asdict(one) for number, one in known.items()})
        found = {trial.number: trial for trial in rivals(with_speeds(trials, known)) if trial.number not in competing}
        if not found:
            return
        originals = {trial.number: trial for trial in trials}
        competing |= {number: originals[number] for number in found}


def _candidate(plan: Plan, trial: Trial) -> Candidate:
    return vary(plan.base, trial.proposal.overrides, plan.space).candidate


def _refuse_other_machines(trials: Iterable[Trial], candidate: Candidate) -> None:
    here = this_machine(candidate)
    for trial in trials:
        if (there := measured_on(trial)) != here:
            raise ValueError(f"trial {trial.number} was measured on {_written(there)}, this is {_written(here)}")


def _written(machine: Iterable[str | None]) -> str:
    return ", ".join(word for word in machine if word)


def tests(study: Study) -> dict[int, float]:
    """Test accuracy, as a fraction, of the trials for which it was measured."""
    return {int(number): value for number, value in study.notes.get("test_accuracy", {}).items()}


def _measure_test_accuracy(plan: Plan, study: Study, members: Sequence[Trial]) -> None:
    """Touch the test images once, for those members of the front that have no figure yet."""
    known = tests(study)
    for trial in members:
        if trial.number not in known:
            try:
                known[trial.number] = test_accuracy(_candidate(plan, trial), plan.output / trial.folder)
            except ValueError as error:
                print(f"explore: trial {trial.number} is not tested: {error}: {trial.command}", file=sys.stderr)
    study.note("test_accuracy", {str(number): value for number, value in known.items()})


def _references(plan: Plan, study: Study) -> list[dict[str, Any]]:
    """The speed of published networks on these images and this device, to compare the front with."""
    known = {reference["name"]: reference for reference in study.notes.get("references", [])}
    config = compose(plan.base)
    dataset = load(config.data)
    for name in plan.references:
        if name not in known:
            known[name] = time_published(name, dataset, config.cost)
    return [known[name] for name in plan.references]
