"""Members of the front are trained again with other seeds, whatever kills that, and the search knows nothing of it.

python -m pytest tests/test_retraining.py -m slow
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from small_sweeps import WHOLE, children_of, killed_after, run_command, start_command, study_of, sweep, trials_of

from explore.evaluation import COMPLETE, INTERRUPTED, RUNNING
from explore.search.rivals import results
from explore.search.seeds import retrainings
from explore.search.storage import find_study
from explore.search.study import Study
from explore.search.trial import Trial, finished, front
from explore.working import AT_ONCE

pytestmark = pytest.mark.slow


def beside(folder: Path) -> Study | None:
    path = folder / "smoke" / "study.db"
    return find_study(f"sqlite:///{path}", "smoke seeds") if path.exists() else None


def wait_until(holds: Callable[[list[Trial]], bool], folder: Path, command: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert command.poll() is None, command.communicate()
        if (study := beside(folder)) and holds(study.trials()):
            return
        time.sleep(0.2)
    raise TimeoutError("no training got that far")


def in_the_middle(trials: list[Trial]) -> bool:
    return any(trial.status == RUNNING and trial.evaluation.epochs > 1 for trial in trials)


def test_members_are_trained_again_and_the_search_stays_as_it_was(tmp_path: Path) -> None:
    assert sweep(tmp_path, *WHOLE, "trials=3") == 0
    before = trials_of(tmp_path)
    assert sweep(tmp_path, *WHOLE, "trials=3", "front.seeds=2") == 0
    assert trials_of(tmp_path) == before
    study, other = study_of(tmp_path), beside(tmp_path)
    assert other
    members = front(results(study))
    again = retrainings(study)
    assert set(again) == {trial.number for trial in members}
    for each in again.values():
        assert [one.seed for one in each] == [1, 2]
        assert all(one.test_accuracy and "training.seed=" in one.command for one in each)
    rows = pd.read_csv(tmp_path / "smoke" / "front.csv").set_index("trial")
    for number, each in again.items():
        assert rows.loc[number, "val_accuracy_mean"] == pytest.approx(sum(one.accuracy for one in each) / 2)
    assert not (tmp_path / "smoke" / "seeds" / "costs").exists(), "what was measured is not measured again"
    assert sweep(tmp_path, *WHOLE, "trials=3", "front.seeds=3") == 0
    assert len(other.trials()) == 3 * len(members), "only the third seed was trained"
    assert {len(each) for each in retrainings(study).values()} == {3}


def test_what_is_killed_or_stopped_in_the_middle_goes_on(tmp_path: Path) -> None:
    epochs = 150  # so many take some seconds
    command = [*WHOLE, "trials=2", "workers=2", f"training.epochs={epochs}", "front.seeds=2"]
    with killed_after(command, tmp_path) as killed:
        wait_until(in_the_middle, tmp_path, killed)
    before = trials_of(tmp_path)
    process = start_command(command, tmp_path)
    wait_until(lambda trials: in_the_middle([one for one in trials if one.continues is not None]), tmp_path, process)
    for trial in children_of(tmp_path):  # or it would be over before the order arrives
        os.kill(int(trial), signal.SIGSTOP)
    study_of(tmp_path).note("stop", AT_ONCE)
    process.communicate(timeout=900)
    assert process.returncode == 130
    done = run_command(command, tmp_path)
    assert done.returncode == 0, done.stderr
    study, other = study_of(tmp_path), beside(tmp_path)
    assert other
    assert trials_of(tmp_path) == before
    members = front(results(study))
    trials = finished(other.trials())
    assert [trial.status for trial in trials] == [COMPLETE] * 2 * len(members)
    assert len({trial.proposal.key for trial in trials}) == len(trials)
    for trial in trials:
        assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, epochs + 1))
    assert {one.evaluation.status for one in other.stretches()} == {COMPLETE, INTERRUPTED}
    assert set(retrainings(study)) == {trial.number for trial in members}
