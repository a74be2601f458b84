"""python -m explore.stop study=NAME [storage.url=URL] [cluster.grace=SECONDS]

Ends the workers of a study, wherever they are. They are told to leave after the rung that they train for; after
cluster.grace seconds (default: 600) to leave at once, and then jobs that are still there are cancelled. Nothing is
lost: explore.sweep goes on with the study.

  python -m explore.stop study=pareto
  python -m explore.stop study=pareto storage.url=postgresql://me@db.example.org/explore cluster.grace=0
"""

import sys
import time
from typing import TYPE_CHECKING, Any

from explore.command import print_json, refusing_bad_input, run

if TYPE_CHECKING:
    from explore.schema import Config
    from explore.search.study import Study

_POLL_SECONDS = 1.0
_AT_ONCE_SECONDS = 60.0  # four heartbeats: workers ask for orders as often


def main(config: "Config", overrides: list[str]) -> int:
    """Tell the workers, and see to it that they go."""
    from explore.places import named_study
    from explore.working import AFTER_THE_RUNG, AT_ONCE

    with refusing_bad_input():
        if not config.cluster.grace >= 0:
            raise ValueError(f"cluster.grace must be at least 0 seconds, got {config.cluster.grace}")
        study = named_study(config)
    jobs = study.notes.get("jobs") or []
    left = _at_work(study)
    many = f"{left} trials are running; their workers leave after their rung"
    one = "1 trial is running; its worker leaves after its rung"
    words = many if left > 1 else one if left else "no trial is running"
    print(f"explore: {words}", file=sys.stderr)
    ended = not left and bool(study.notes.get("concluded"))
    if not ended:
        study.note("stop", AFTER_THE_RUNG)
    _cancel(jobs, waiting=True)
    if not _leave(study, config.cluster.grace):
        study.note("stop", AT_ONCE)
        _leave(study, _AT_ONCE_SECONDS)
    _cancel(jobs, waiting=False)
    study.note("jobs", [])
    left, go_on = _at_work(study), "" if ended else study.notes.get("command", "")
    if config.format == "json":
        print_json({"study": study.name, "ended": ended, "running": left, "go_on": go_on})
    elif ended:
        print(f"study {study.name} has ended, and nobody works on it: there is nothing to stop")
    else:
        many = f"{left} trials are still running, on machines that do not answer"
        one = "1 trial is still running, on a machine that does not answer"
        rest = many if left > 1 else one if left else "nobody works on it"
        print(f"study {study.name} was stopped, {rest}\nGo on:  {go_on}")
    return 1 if left else 0


def _at_work(study: "Study") -> int:
    from explore.evaluation import RUNNING

    study.interrupted()  # those of workers that have died are not at work
    return sum(trial.status == RUNNING for trial in study.trials())


def _leave(study: "Study", seconds: float) -> bool:
    """Wait for the workers to leave; whether they have."""
    end = time.monotonic() + seconds
    while left := _at_work(study):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return not left


def _cancel(jobs: list[dict[str, Any]], *, waiting: bool) -> None:
    from explore.cluster.options import CLUSTERS, Local

    for job in jobs:
        cluster = CLUSTERS[job["kind"]](**job["options"])
        assert not isinstance(cluster, Local)
        with refusing_bad_input():
            cluster.cancel(job["names"], waiting=waiting)


if __name__ == "__main__":
    run(main, __doc__ or "")
