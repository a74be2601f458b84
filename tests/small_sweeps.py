"""Real searches of a few seconds, in this process or as the command that people type."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from explore.cluster.isolation import start_server
from explore.command import _run
from explore.evaluation import RUNNING
from explore.search.storage import find_study, open_study
from explore.search.study import Study
from explore.search.trial import Trial
from explore.sweep import main

SMOKE = ["+sweep=smoke", "workers=2", "references=[]"]
WHOLE = ["sampler=tpe", "stopping.rule=off"]  # every trial to its last epoch


def sweep(folder: Path, *overrides: str) -> int:
    """Run the command in this process, and return its exit status."""
    start_server()
    return _run(main, [*SMOKE, f"outputs={folder}", *overrides])


def study_of(folder: Path, name: str = "smoke") -> Study:
    return open_study(f"sqlite:///{folder}/{name}/study.db", name)


def trials_of(folder: Path, name: str = "smoke") -> list[Trial]:
    return study_of(folder, name).trials()


def run_command(overrides: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(overrides, folder), capture_output=True, text=True, timeout=900)


def start_command(overrides: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start the command as the leader of its own group, as a shell does."""
    return subprocess.Popen(
        _command(overrides, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def killed_after(overrides: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, of which all processes are killed at once in the end."""
    process = start_command(overrides, folder)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _command(overrides: Sequence[str], folder: Path) -> list[str]:
    return [sys.executable, "-m", "explore.sweep", "+sweep=smoke", *overrides, "references=[]", f"outputs={folder}"]


def wait_until(holds: Callable[[Sequence[Trial]], bool], folder: Path) -> None:
    """Wait until something holds of the trials of a command that was started."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        study = find_study(f"sqlite:///{folder}/smoke/study.db", "smoke")
        if study and holds(study.trials()):
            return
        time.sleep(0.2)
    raise TimeoutError("no trial got that far")


def wait_for_epochs(folder: Path, count: int) -> None:
    """Wait until the running trials have `count` epochs between them."""
    wait_until(
        lambda trials: sum(len(one.evaluation.curve) for one in trials if one.status == RUNNING) >= count, folder
    )


def wait_for_work_of(pid: int, folder: Path) -> None:
    """Wait until a command has a trial of its own."""
    wait_until(lambda trials: any(one.status == RUNNING and one.owner["pid"] == pid for one in trials), folder)


def children_of(folder: Path) -> list[str]:
    """Process numbers of those that work for this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in os.readlink(process / "fd" / "1"):
                found.append(process.name)
        except OSError:
            continue
    return found
