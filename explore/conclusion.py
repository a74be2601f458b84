"""The end of a search: speeds are compared, test accuracy is measured, and the report is written.

It belongs on a machine of the workers, because it measures on their device. What draws is imported where it is used:
that takes a third of a second, and most workers conclude nothing.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from explore.ablation.runs import representatives
from explore.candidate import Candidate, test_accuracy
from explore.cluster.local import cores
from explore.config import compose, vary
from explore.data.dataset import load
from explore.evaluation import STOPPED
from explore.plan import Plan
from explore.reporting.progress import progress
from explore.reporting.tables import trial_rows
from explore.retraining import retrain
from explore.search.owner import is_here, is_running, this_process
from explore.search.rivals import batch_size, compared, decided, measured_on, results, rivals, tested, with_speeds
from explore.search.study import Study
from explore.search.trial import Trial, front
from explore.speeds import this_machine, time_published, time_together
from explore.tracking import Tracker

_SETTLING_SECONDS = 2.0  # until nobody else can be writing their name
_ABANDONED_SECONDS = 900.0  # longer than it takes to conclude


def conclude(plan: Plan, study: Study, stop: Callable[[], bool] = lambda: False) -> Path | None:
    """Find out what is only found out once, at the end, and write the report; returns where it is.

    None where it was told to leave, by `stop` or through the study, before that was done. An ablation chooses nothing,
    so that the test images stay untouched for whoever does.
    """
    from explore.reporting.report import ABLATION_PICTURES, SEARCH_PICTURES, ablation_tables, write_report

    torch.set_num_threads(min(torch.get_num_threads(), cores()))  # torch knows nothing of the quota of a container
    compare_speeds(plan, study)
    if not plan.design:
        members = front(results(study))
        _measure_test_accuracy(plan, study, members)
        if not retrain(plan, study, members, stop):
            return None
    study.note("references", _references(plan, study))
    trials = results(study)
    report = write_report(study, plan.output)
    tracker = Tracker(plan.tracking, plan.study, plan.output)
    _track_stopped(tracker, study, trials)
    if plan.design:
        tables, pictures, curve = ablation_tables(study, plan.design), ABLATION_PICTURES, pd.DataFrame()
    else:
        tables, pictures = {"trials": trial_rows(trials, tested(study))}, SEARCH_PICTURES
        curve = progress(trials, study.stretches())
    files = {name: plan.output / f"{name}.png" for name in pictures}
    tracker.study_run({name: _records(table) for name, table in tables.items()}, files, _records(curve))
    study.note("concluded", study.notes["overrides"])
    return report


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with None for what is missing."""
    whole = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in whole.to_dict("records")]


def chosen_to_conclude(study: Study) -> bool:
    """Whether this worker concludes a search where nothing is left to do; of all that ask, one does.

    Two might, if one is held up for seconds between two lines; they would measure and write the same. One that leaves
    before it was done says so by `leave_to_others`; one that died is given up for dead after a quarter of an hour, or
    at once where this machine can tell.
    """
    if study.notes.get("concluded"):
        return False
    if (other := study.notes.get("concluding")) and not _gone(other):
        return False
    here = this_process() | {"since": time.time()}
    study.note("concluding", here)
    time.sleep(_SETTLING_SECONDS)
    return bool(study.notes["concluding"] == here)


def leave_to_others(study: Study) -> None:
    """Let another worker be chosen at once."""
    study.note("concluding", "")


def _gone(worker: dict[str, Any]) -> bool:
    if is_here(worker):
        return not is_running(worker)
    return time.time() - float(worker["since"]) > _ABANDONED_SECONDS


def _track_stopped(tracker: Tracker, study: Study, trials: Sequence[Trial]) -> None:
    """Write the runs of the candidates that were stopped, once: until now they might have gone on."""
    written = set(study.notes.get("tracked", []))
    stopped = [trial for trial in trials if trial.status == STOPPED and trial.row not in written]
    for trial in stopped:
        tracker.write(trial, trial.evaluation)
    study.note("tracked", sorted(written | {trial.row for trial in stopped}))


def compare_speeds(plan: Plan, study: Study) -> None:
    """Measure those that compete for the front, or every arm, again, all together, and once for the same ones.

    The comparison may bring others into reach of the front, which are compared then as well. One that it leaves out,
    because it cannot be compiled, or not be launched as it was in its own trial, keeps the speed it has.
    """
    choose = partial(representatives, plan.design) if plan.design else rivals
    trials, known, left_out = study.trials(), compared(study), set(study.notes.get("left_out", ()))
    competing = {trial.number: trial for trial in choose(trials)}
    while not competing.keys() <= known.keys() | left_out:
        candidates = {number: _candidate(plan, one) for number, one in competing.items()}
        batch_sizes = {number: batch_size(one) for number, one in competing.items()}
        interval = next(iter(candidates.values())).cost.interval
        try:
            _refuse_other_machines(competing.values(), next(iter(candidates.values())))
            seconds = time_together(candidates, batch_sizes, plan.output, _dispatches(competing), _say)
            known = decided(seconds, batch_sizes, interval)
        except (ValueError, RuntimeError, MemoryError) as error:
            # The result is worth more than its last digit.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            print(f"explore: speeds are not compared: {reason}", file=sys.stderr)
            study.note("not_compared", reason)
            return
        study.note("not_compared", None)
        left_out = competing.keys() - known.keys()
        study.note("left_out", sorted(left_out))
        study.note("speeds", {str(number): asdict(one) for number, one in known.items()})
        found = {trial.number: trial for trial in choose(with_speeds(trials, known)) if trial.number not in competing}
        if not found:
            return
        originals = {trial.number: trial for trial in trials}
        competing |= {number: originals[number] for number in found}


def _candidate(plan: Plan, trial: Trial) -> Candidate:
    return vary(plan.base, trial.proposal.overrides, plan.keys).candidate


def _dispatches(trials: Mapping[int, Trial]) -> dict[int, str]:
    """How what was timed of each trial was launched."""
    costs = {number: trial.evaluation.cost for number, trial in trials.items()}
    return {number: cost.throughput.dispatch for number, cost in costs.items() if cost and cost.throughput}


def _say(text: str) -> None:
    print(f"Comparing speeds: {text}", file=sys.stderr)


def _refuse_other_machines(trials: Iterable[Trial], candidate: Candidate) -> None:
    here = this_machine(candidate)
    for trial in trials:
        if (there := measured_on(trial)) != here:
            raise ValueError(f"trial {trial.number} was measured on {_written(there)}, this is {_written(here)}")


def _written(machine: Iterable[str | None]) -> str:
    return ", ".join(word for word in machine if word)


def _measure_test_accuracy(plan: Plan, study: Study, members: Sequence[Trial]) -> None:
    """Touch the test images once, for those members of the front that have no figure yet."""
    known = tested(study)
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
            known[name] = time_published(name, dataset, config.cost, plan.output)
    return [known[name] for name in plan.references]
