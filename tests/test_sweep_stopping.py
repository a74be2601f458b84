"""A real search that stops early: what it saved, what it may grow to, the disk it takes, and when it ends by itself.

python -m pytest tests/test_sweep_stopping.py -m slow
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from small_sweeps import sweep, trials_of

from explore.evaluation import COMPLETE, STOPPED
from explore.search import worker
from explore.search.checkpoints import Sizes
from explore.search.study import Study
from explore.search.trial import Trial, candidates, finished

pytestmark = pytest.mark.slow


def test_a_search_that_stops_early_says_what_it_saved_and_can_grow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["training.epochs=4", "search.startup=4", "search.stop=off"]
    assert sweep(tmp_path, *command, "trials=5", "search.tolerance=0.3") == 0
    assert "epochs were trained" in capsys.readouterr().out
    before = trials_of(tmp_path)
    assert len(candidates(before)) == 5
    assert {trial.status for trial in before} == {COMPLETE, STOPPED}
    assert {trial.evaluation.epochs for trial in before} <= {0, 1, 3, 4}
    assert "epochs were trained" in (tmp_path / "smoke" / "report.html").read_text()
    runs = list((tmp_path / "smoke" / "wandb").glob("offline-run-*"))
    assert len(runs) == len(before) + 1  # each once, and that of the study
    assert sweep(tmp_path, *command, "trials=6", "search.tolerance=0.0") == 0
    after = trials_of(tmp_path)
    assert len(candidates(after)) == 6
    assert len({trial.proposal.key for trial in after}) == len(after)
    assert sum(trial.evaluation.epochs for trial in after) > sum(trial.evaluation.epochs for trial in before)


def test_a_search_ends_by_itself_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fewest, trials = 6, 20
    options = ["training.epochs=3", "search.startup=3", f"search.fewest={fewest}", "search.tolerance=0.3"]
    command = [*options, f"trials={trials}"]
    assert sweep(tmp_path, *command) == 0
    shown, found = capsys.readouterr().out, trials_of(tmp_path)
    assert fewest <= len(candidates(found)) < trials
    why = f"It ended after {len(candidates(found))} candidates: none was expected to add 30.0% to the hypervolume"
    assert why in " ".join(shown.split())
    assert "Go on:" not in shown
    assert why in (tmp_path / "smoke" / "report.html").read_text()
    assert sweep(tmp_path, *command, "format=json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["go_on"], again["ended"][: len(why)]) == (None, why)
    assert trials_of(tmp_path) == found


def test_the_disk_is_kept_within_its_limit_and_no_result_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, calls = 140_000, []  # bytes: three of these checkpoints, so that all that wait are neighbours in speed

    def size(trials: Sequence[Trial]) -> int:
        folders = [tmp_path / "smoke" / trial.folder for trial in trials]
        return sum(file.stat().st_size for folder in folders for file in folder.glob("*.ckpt"))

    def noted(study: Study, output: Path, allowed: float, known: Sizes) -> list[Trial]:
        """`make_room`, and who had a checkpoint before and after; nobody else claims a trial meanwhile."""
        waiting = [one for one in study.trials() if one.status == STOPPED and size([one])]
        gone = make_room(study, output, allowed, known)
        calls.append((waiting, {one.number for one in gone}, size(waiting)))
        return gone

    make_room = worker.make_room
    monkeypatch.setattr(worker, "make_room", noted)
    rungs = ["sampler=random", "training.epochs=4", "space.model.width=choice(16)", "space.model.depth=choice(1)"]
    assert sweep(tmp_path, *rungs, "trials=12", "workers=1", f"stopping.disk={limit / 1e9}") == 0
    trials, output = trials_of(tmp_path), tmp_path / "smoke"
    stopped = [trial for trial in trials if trial.status == STOPPED]
    assert size(stopped) <= limit
    assert any(gone for _, gone, _ in calls)
    for waiting, gone, left in calls:
        assert left <= limit
        kept = [one for one in waiting if one.number not in gone]
        assert not [
            (one.number, other.number) for one in waiting if one.number in gone for other in kept if worse(other, one)
        ]
    given_up = {number for _, gone, _ in calls for number in gone}
    assert {trial.number for trial in trials if trial.given_up} == given_up
    for trial in stopped:
        assert trial.given_up is not (output / trial.folder / "last.ckpt").exists()
    assert len(finished(trials)) == 12
    table = pd.read_csv(output / "trials.csv").set_index("trial")
    for trial in trials:
        assert trial.evaluation.epochs in (1, 3, 4)
        assert (trial.evaluation.epochs == 4) is (trial.status == COMPLETE)
        row = table.loc[trial.number]
        assert (row.epochs, row.val_accuracy) == (trial.evaluation.epochs, pytest.approx(trial.accuracy))
        assert row.throughput > 0


def worse(one: Trial, other: Trial) -> bool:
    """Whether a trial promises less beyond doubt: fewer epochs, or as many and beaten in accuracy and speed at once."""
    if one.evaluation.epochs != other.evaluation.epochs:
        return one.evaluation.epochs < other.evaluation.epochs
    return (one.accuracy or 0) < (other.accuracy or 0) and (one.throughput or 0) < (other.throughput or 0)
