"""python -m explore.worker study=NAME storage.url=URL [workers=N] [outputs=DIR]

Joins a study that a sweep has begun, on any machine: takes trials until nothing is left to do, and leaves. May come and
go at any time. What the study searches for is found in it; the images and the output folder must be there as well.

  python -m explore.worker study=pareto storage.url=postgresql://me@db.example.org/explore
  EXPLORE_STORAGE_URL=postgresql://... python -m explore.worker study=pareto workers=2

Often set:
  study=NAME               name of the study
  storage.url=URL          where it is kept; one with a password belongs into EXPLORE_STORAGE_URL
  workers=N                trials trained at a time (default: one per GPU, or up to 4 for images of up to 64 pixels;
                           up to 4 on a processor)
  outputs=DIR              folder of all results, shared by all machines (default: where the sweep has it)

Of a signal to end (TERM, INT) it leaves at once; its trial goes on elsewhere from its last checkpoint. The exit status
is then 128 + signal (143, 130), which tells Kubernetes and others to begin it again, and 0 where the study was stopped
or has come to its end. The last worker compares the speeds of the best, measures their test accuracy, and writes the
report.
"""

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

from explore.cluster.isolation import start_server
from explore.cluster.slurm import TIME_IS_UP, begin_again
from explore.command import refusing_bad_input, run

if TYPE_CHECKING:
    from explore.plan import Plan
    from explore.schema import Config
    from explore.search.study import Study

_POLL_SECONDS = 5.0
_ORDERS: list[int] = []  # the signals to leave that have come


def main(config: "Config", overrides: list[str]) -> int:
    """Join, work, and leave."""
    with refusing_bad_input():
        study = _find(config)
        if study.notes.get("stop"):
            print(f"explore: study {study.name} was stopped; go on with it: {study.notes['command']}")
            return 0
        plan = _join(study, overrides)
    place = f"{socket.gethostname()}, process {os.getpid()}"
    print(f"explore: {plan.workers} at a time join study {plan.study} on {place}", flush=True)
    status = _work(plan, study)
    print(f"explore: {place} leaves study {plan.study}", flush=True)
    if TIME_IS_UP in _ORDERS and "SLURM_JOB_ID" in os.environ and not study.notes.get("concluded"):
        begin_again()
        return status
    return status or _status_of_orders(study)


def _status_of_orders(study: "Study") -> int:
    """What a shell says of a process that was ended by a signal, unless nobody has to come in its place.

    A study that is full is not over: the one who left may have been the last, and somebody has to conclude.
    """
    over = study.notes.get("stop") or study.notes.get("concluded")
    return 128 + _ORDERS[0] if _ORDERS and not over else 0


def _listen() -> None:
    """Hear orders from the first moment on: the imports that follow take seconds."""

    def hear(order: int, frame: object) -> None:
        _ORDERS.append(order)

    for order in (signal.SIGTERM, signal.SIGINT, TIME_IS_UP):
        signal.signal(order, hear)
    start_server()


def _work(plan: "Plan", study: "Study") -> int:
    from explore.view import OwnView
    from explore.working import keep_working

    view = OwnView(plan.study, plan.trials)
    # Who comes while another one concludes may have been sent in its place, so it stays until that is done.
    late = bool(study.notes.get("concluding"))
    while keep_working(plan, study, lambda: view.update(study.trials()), lambda: bool(_ORDERS)):
        _conclude(plan, study)
        if not late or _told_to_leave(study) or study.notes.get("concluded"):
            return 0
        time.sleep(_POLL_SECONDS)
    return 1


def _conclude(plan: "Plan", study: "Study") -> None:
    """Conclude, if it is for this worker to do."""
    from explore.conclusion import chosen_to_conclude, conclude, leave_to_others

    if _told_to_leave(study) or not chosen_to_conclude(study):
        return
    report = None
    try:
        report = conclude(plan, study, lambda: bool(_ORDERS))
    finally:
        if not report:
            leave_to_others(study)
    if report:
        print(f"explore: nothing is left to do, report: {report}", flush=True)


def _told_to_leave(study: "Study") -> bool:
    return bool(_ORDERS or study.notes.get("stop"))


def _find(config: "Config") -> "Study":
    from explore.places import named_study

    study = named_study(config)
    if "overrides" not in study.notes:
        raise ValueError(f"study {config.study} must have been begun by explore.sweep, got one without its settings")
    return study


def _join(study: "Study", overrides: list[str]) -> "Plan":
    """Check all that can be checked before any work."""
    from explore.config import compose, vary
    from explore.joining import check_device, check_folder, check_machine
    from explore.plan import prepare
    from explore.search.study import refuse_other_settings

    known = study.notes["overrides"]
    everything = [*known, *(one for one in overrides if one not in known)]
    plan = prepare(compose(everything), everything)
    refuse_other_settings(study, plan.definition)
    check_machine(study, plan.url)
    check_folder(study, plan.output)
    check_device(study, vary(plan.base, []).candidate)
    return plan


if __name__ == "__main__":
    run(main, __doc__ or "", meanwhile=_listen)
