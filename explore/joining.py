"""What a machine must have in common with a study before it works on it: the folder, the device, the storage."""

import os
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from explore.candidate import Candidate
from explore.cluster.isolation import server_context
from explore.evaluation import INTERRUPTED, RUNNING, STOPPED
from explore.search.owner import GIVEN_UP_SECONDS, is_here, is_running
from explore.search.storage import of_one_machine
from explore.search.study import Study
from explore.search.trial import Trial
from explore.speeds import this_machine

_MARK = ".study"
_MOMENT_SECONDS = 2.0
_WITH_CHECKPOINTS = (RUNNING, STOPPED, INTERRUPTED)


def mark_folder(study: Study, output: Path) -> None:
    """Leave in the output folder what tells other machines that they see the same one.

    Raises ValueError where the study has another folder, with checkpoints that trials go on from, or with somebody at
    work. Who has begun in another one and has nothing there yet is refused by `check_folder` from now on.
    """
    mark = study.notes.get("folder")
    if mark and _mark_in(output) == mark:
        return
    if mark and any(_needs_its_folder(trial) for trial in study.trials()):
        check_folder(study, output)
    if _mark_in(output) is None:
        new = output / f"{_MARK}-{uuid4().hex}"
        new.write_text(uuid4().hex)
        with suppress(FileExistsError):  # of two who begin at once the first one decides
            os.link(new, output / _MARK)
        new.unlink()
    study.note("folder", _mark_in(output))


def _needs_its_folder(trial: Trial) -> bool:
    return (trial.status in _WITH_CHECKPOINTS and trial.evaluation.epochs > 0) or _is_at_work(trial)


def _is_at_work(trial: Trial) -> bool:
    """Whether somebody trains it, as far as this machine can tell."""
    if trial.status != RUNNING:
        return False
    return is_running(trial.owner) if is_here(trial.owner) else time.time() - trial.heartbeat < GIVEN_UP_SECONDS


def check_folder(study: Study, output: Path) -> None:
    """Raise ValueError where this machine does not see the output folder of the study."""
    if _mark_in(output) != study.notes.get("folder"):
        raise ValueError(
            f"outputs must be the folder where the checkpoints of study {study.name} lie, the same on all machines, "
            f"got {output.resolve()} on {socket.gethostname()}, where they are not; mount it, or set outputs=FOLDER"
        )


def check_machine(study: Study, url: str) -> None:
    """Raise ValueError where another machine works on a study that is an SQLite file."""
    if not of_one_machine(url):
        return
    for trial in study.trials():
        if not is_here(trial.owner) and _is_at_work(trial):
            raise ValueError(
                f"an SQLite file can be worked on by one machine at a time, and {trial.owner.get('host')} works on "
                f"study {study.name}; take storage=postgres for several machines, or try again in "
                f"{GIVEN_UP_SECONDS:.0f} s if that one has died"
            )


def check_device(study: Study, candidate: Candidate) -> None:
    """Raise ValueError where this machine measures speed on another device than the study.

    The first one decides; of several that come at the same moment, one of them.
    """
    with ProcessPoolExecutor(1, mp_context=server_context()) as process:  # asking a GPU takes some of its memory
        here = process.submit(this_machine, candidate).result()[0]
    if "device" not in study.notes:
        study.note("device", next(filter(None, map(_device, study.trials())), here))
        time.sleep(_MOMENT_SECONDS)  # another one may not have seen it, and says its own now
    if (there := study.notes["device"]) != here:
        raise ValueError(
            f"all machines of a study must have the same device, or their speeds could not be compared, got {here} on "
            f"{socket.gethostname()} for a study of {there}; choose machines that are alike, or another study=NAME"
        )


def _device(trial: Trial) -> str | None:
    cost = trial.evaluation.cost
    return cost.throughput.device if cost and cost.throughput else None


def _mark_in(output: Path) -> str | None:
    try:
        return (output / _MARK).read_text()
    except OSError:
        return None
