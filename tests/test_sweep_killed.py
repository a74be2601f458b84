"""A search survives what kills it: the command, whole or with all its processes, a trial, Ctrl-C, another command.

python -m pytest tests/test_sweep_killed.py -m slow
"""

import os
import pty
import random
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_sweeps import (
    SMOKE,
    WHOLE,
    children_of,
    killed_after,
    run_command,
    start_command,
    study_of,
    trials_of,
    wait_for_epochs,
    wait_for_work_of,
    wait_until,
)

from explore.evaluation import COMPLETE, INTERRUPTED, STOPPED
from explore.search.trial import Trial, candidates, finished

pytestmark = pytest.mark.slow


def test_killed_at_any_moment_the_same_command_goes_on(tmp_path: Path) -> None:
    """`kill -9` of the command, again and again: exactly N trials, no configuration twice, none left running."""
    epochs = 60  # take some seconds; a running trial is written down once a second
    command = [*WHOLE, "trials=6", "workers=2", f"training.epochs={epochs}"]
    for round_ in range(4):
        process = start_command(command, tmp_path)
        wait_for_epochs(tmp_path, 1 + round_)
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 60
    while children_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not children_of(tmp_path), "trials outlived their command"
    done = run_command(command, tmp_path)
    assert done.returncode == 0, done.stderr
    trials = trials_of(tmp_path)
    assert [trial.status for trial in finished(trials)] == [COMPLETE] * 6
    assert all(trial.status in (COMPLETE, INTERRUPTED) for trial in trials)
    assert len({trial.proposal.key for trial in finished(trials)}) == 6
    successors = [trial for trial in trials if trial.continues is not None]
    assert successors
    for trial in finished(trials):
        assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, epochs + 1))
    stretches = {one.row: one for one in study_of(tmp_path).stretches()}
    for trial in successors:
        before = stretches[trial.continues]
        kept = before.evaluation.curve[: len(before.evaluation.curve) - 1]
        assert trial.folder == before.folder
        assert trial.evaluation.curve[: len(kept)] == tuple(kept), "epochs before the last rung were trained again"


def test_ctrl_c_finishes_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [*WHOLE, "trials=3", "workers=2", "training.epochs=90"]
    process = start_command(command, tmp_path)
    wait_for_epochs(tmp_path, 3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Go on:  python -m explore.sweep +sweep=smoke sampler=tpe stopping.rule=off trials=3" in out
    assert {trial.status for trial in trials_of(tmp_path)} <= {INTERRUPTED, COMPLETE}
    assert not children_of(tmp_path)
    done = run_command([*WHOLE, "trials=3", "workers=2", "training.epochs=90"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert [trial.status for trial in finished(trials_of(tmp_path))] == [COMPLETE] * 3


def test_two_commands_share_a_study_and_say_so(tmp_path: Path) -> None:
    """Typed in the same second."""
    processes = [start_command([*WHOLE, "trials=6", "workers=1"], tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    trials = trials_of(tmp_path)
    assert [trial.status for trial in trials] == [COMPLETE] * 6
    assert len({trial.proposal.key for trial in trials}) == 6
    assert {trial.owner["pid"] for trial in trials} == {process.pid for process in processes}
    for (_, err), other in zip(said, reversed(processes), strict=True):
        assert f"process {other.pid} on {socket.gethostname()} works on study smoke as well" in err


def test_two_studies_at_once_keep_out_of_each_other(tmp_path: Path) -> None:
    names = ("sneakers", "sandals")
    processes = [start_command([*WHOLE, "trials=3", f"study={name}"], tmp_path) for name in names]
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
        assert "as well" not in err
    for name, process in zip(names, processes, strict=True):
        trials = trials_of(tmp_path, name)
        assert [trial.status for trial in trials] == [COMPLETE] * 3
        assert {trial.owner["pid"] for trial in trials} == {process.pid}
        assert sorted(path.name for path in (tmp_path / name / "trials").iterdir()) == ["0000", "0001", "0002"]
        assert (tmp_path / name / "report.html").exists()


def test_killed_between_rungs_everybody_goes_on_from_where_it_was(tmp_path: Path) -> None:
    """`kill -9` of all processes at once, at moments drawn at random, in a search that stops and takes up again.

    Without a tolerance it ends when nobody waits any more.
    """
    moments, command = random.Random(0), ["trials=4", "workers=2", "training.epochs=27", "search.tolerance=0"]
    seen: list[Trial] = []
    for _ in range(2):
        with killed_after(command, tmp_path) as process:
            wait_for_work_of(process.pid, tmp_path)
            wait_until(lambda trials: any(one.evaluation.epochs for one in trials), tmp_path)
            time.sleep(moments.uniform(0, 3))
        seen += trials_of(tmp_path)
    done = run_command(command, tmp_path)
    assert done.returncode == 0, done.stderr
    trials = {trial.number: trial for trial in trials_of(tmp_path)}
    assert len(finished(list(trials.values()))) == 4
    assert {trial.status for trial in candidates(list(trials.values()))} == {COMPLETE}
    assert len({trial.proposal.key for trial in trials.values()}) == len(trials)
    for before in seen:
        after = trials[before.number]
        # What was written down is found again with its seconds: nobody trained it twice. Of the last epoch of one that
        # was running, the checkpoint may not have been written yet.
        kept = before.evaluation.curve if before.status in (COMPLETE, STOPPED) else before.evaluation.curve[:-1]
        assert after.evaluation.curve[: len(kept)] == tuple(kept)
        assert after.folder == before.folder
    for trial in trials.values():
        assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, trial.evaluation.epochs + 1))
        assert trial.evaluation.epochs in (0, 27)
    assert any(0 < one.evaluation.epochs < 27 for one in seen), "nobody was killed between rungs"


def in_terminal(overrides: Sequence[str], folder: Path, seconds: float) -> tuple[int, str]:
    """Status and output of the command in a terminal of its own, where Ctrl-C is typed after so many seconds."""
    command = [sys.executable, "-m", "explore.sweep", *SMOKE, f"outputs={folder}", *overrides]
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, command)
    output, typed, begun = b"", False, time.monotonic()
    while True:
        if not typed and time.monotonic() - begun > seconds:
            typed = bool(os.write(terminal, b"\x03"))
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                output += os.read(terminal, 4096)
            except OSError:  # everybody has closed it
                break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), output.decode(errors="replace")


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 3.5])
def test_ctrl_c_in_a_terminal_while_everything_is_imported_is_silent(tmp_path: Path, seconds: float) -> None:
    """It reaches all processes of the command, the server from which trials are forked among them."""
    status, output = in_terminal(["trials=40", "training.epochs=50"], tmp_path, seconds)
    # On a busy machine the signal may come before Python has begun, or after it has ended; a shell says 130 of both.
    assert status in (130, -signal.SIGINT), output
    assert "Traceback" not in output
    assert not children_of(tmp_path)
