"""One search from its plan to its report: start workers, follow them, conclude."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from explore.cluster.job import Elsewhere, Job
from explore.cluster.local import in_turn
from explore.cluster.options import CLUSTERS, Local
from explore.command import INTERRUPTED
from explore.conclusion import conclude
from explore.evaluation import COMPLETE
from explore.plan import Plan
from explore.search.options import URL_VARIABLE
from explore.search.rivals import results, tested
from explore.search.study import Study
from explore.search.trial import finished
from explore.verdict import show_verdict
from explore.view import Company, View
from explore.working import keep_working

_POLL_SECONDS = 2.0
_QUEUE_SECONDS = 10.0
# What drivers and W&B read, where workers do not inherit the environment of this command.
_SECRETS = ("PGPASSWORD", "PGPASSFILE", "WANDB_API_KEY")


def submit(plan: Plan, study: Study) -> list[str]:
    """Start the workers elsewhere that are missing; the names of all. Raises ValueError in the cluster's words."""
    if isinstance(plan.cluster, Local) or _is_concluded(plan, study):
        return []
    with in_turn(plan.output / ".begin"):  # of two who begin at once the second one finds the workers of the first
        _begin_anew(study)
        return _submit(plan, plan.cluster, study)


def search(plan: Plan, study: Study, view: View, jobs: Sequence[str]) -> int:
    """Search until the study is full, here or by `jobs` elsewhere; goes on where it stopped.

    Returns the exit status for the shell.
    """
    if isinstance(plan.cluster, Local):
        return _search_here(plan, study, view)
    return _search_elsewhere(plan, plan.cluster, jobs, study, view)


def _search_here(plan: Plan, study: Study, view: View) -> int:
    _begin_anew(study)
    company = Company(plan.study)

    def watch() -> None:
        trials = study.trials()
        view.update(trials)
        company.update(trials)

    try:
        with view:
            keep_working(plan, study, watch, stop=lambda: False)
        if not study.notes.get("stop") and (report := conclude(plan, study)):
            return _show(plan, study, view, report, interrupted=False)
        return _show(plan, study, view, _report(plan, study), interrupted=True)
    except KeyboardInterrupt:
        return _show(plan, study, view, _report(plan, study), interrupted=True)


def _search_elsewhere(plan: Plan, cluster: Elsewhere, names: Sequence[str], study: Study, view: View) -> int:
    if not cluster.follow:
        print(f"Follow it: {_follow_command(plan)}\nStop it:   {_stop_command(plan)}", flush=True)
        return 0
    try:
        with view:
            _follow(cluster, names, study, view)
    except KeyboardInterrupt:
        print(f"The workers go on. Follow them again: {_follow_command(plan)}", file=sys.stderr)
        print(f"Stop them: {_stop_command(plan)}", file=sys.stderr)
        return INTERRUPTED
    for reason in cluster.unable(names):
        print(f"explore: a worker could not begin: {reason}", file=sys.stderr)
    if study.notes.get("concluded"):
        cluster.cancel(names, waiting=True)
    else:
        print(f"explore: the workers have left before the search had ended; see {_logs(plan)}", file=sys.stderr)
    return _show(plan, study, view, _report(plan, study), interrupted=not study.notes.get("concluded"))


def _is_concluded(plan: Plan, study: Study) -> bool:
    return bool(study.notes.get("concluded") == plan.notes["overrides"])


def _begin_anew(study: Study) -> None:
    for order in ("ended", "stop", "concluding", "concluded"):
        study.note(order, "")


def _submit(plan: Plan, cluster: Elsewhere, study: Study) -> list[str]:
    """Start the workers that are missing; all their names."""
    kind = next(name for name, options in CLUSTERS.items() if type(cluster) is options)
    before = [one for one in study.notes.get("jobs", []) if one["kind"] == kind]
    names = [name for one in before for name in one["names"]]
    at_work = cluster.active(names) if names else 0  # where nobody tells, none are known, either
    if at_work is None:
        raise ValueError(f"cluster={kind} must say which workers there are already, and does not answer; try again")
    if (missing := plan.workers - at_work) > 0:
        new = cluster.submit(_job(plan), missing)
        if not new:
            return names
        study.note("jobs", [*study.notes.get("jobs", []), {"kind": kind, "options": vars(cluster), "names": new}])
        names = [*names, *new]
        words = f"{missing} worker{'s are' if missing != 1 else ' is'} in the queue"
        print(f"{words} ({kind} {', '.join(new)}); logs: {_logs(plan)}", file=sys.stderr)
    return names


def _job(plan: Plan) -> Job:
    where = [place for place in plan.places if place.startswith("storage")]
    return Job(
        name=f"explore-{plan.study}",
        command=[sys.executable, "-m", "explore.worker", f"study={plan.study}", *where],
        folder=Path.cwd(),
        secrets={URL_VARIABLE: plan.url, **{name: os.environ[name] for name in _SECRETS if name in os.environ}},
        logs=_logs(plan),
    )


def _follow(cluster: Elsewhere, names: Sequence[str], study: Study, view: View) -> None:
    """Show the search until it was concluded or no worker is left."""
    asked = time.monotonic()
    while not study.notes.get("concluded"):
        view.update(study.trials())
        if time.monotonic() - asked > _QUEUE_SECONDS:
            asked = time.monotonic()
            if cluster.active(names) == 0:
                break
        time.sleep(_POLL_SECONDS)
    view.update(study.trials())


def _report(plan: Plan, study: Study) -> Path:
    """Write the report as far as the search has come."""
    from explore.reporting.report import write_report  # as in `conclusion`

    return write_report(study, plan.output)


def _logs(plan: Plan) -> Path:
    return plan.output.resolve() / "workers"


def _follow_command(plan: Plan) -> str:
    return shlex.join(word for word in shlex.split(plan.command) if not word.startswith("cluster.follow="))


def _stop_command(plan: Plan) -> str:
    return shlex.join(["python", "-m", "explore.stop", f"study={plan.study}", *plan.places])


def _show(plan: Plan, study: Study, view: View, report: Path, *, interrupted: bool) -> int:
    trials = results(study)
    ended = study.notes.get("ended", "")
    unfinished = interrupted or (not ended and len(finished(trials)) < plan.trials)
    go_on = plan.command if unfinished else None
    if plan.design:
        show_verdict(study, plan.design, report, view.style, ended=ended, go_on=go_on)
    else:
        view.conclude(trials, tested(study), report, ended=ended, go_on=go_on)
    if interrupted:
        return INTERRUPTED
    return 0 if any(trial.status == COMPLETE for trial in trials) else 1
