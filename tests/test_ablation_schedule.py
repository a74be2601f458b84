"""An ablation trains every arm with the same seeds, adds seeds only while something is not told, and goes on where it
stopped, whoever works on it."""

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from four_arms import ARMS, DESIGN, FACTORS, evaluate, never, new_study
from optuna.storages import InMemoryStorage
from rich.console import Console

from explore.ablation.design import design_of
from explore.ablation.records import Scores
from explore.ablation.runs import representatives, run_rows
from explore.ablation.schedule import Paired
from explore.evaluation import (
    COMPLETE,
    DIVERGED,
    FAILED,
    Evaluation,
    Report,
)
from explore.search.study import Study, create_study
from explore.search.worker import Stopped, Worker
from explore.view import LiveView


def worker(study: Study, enough: Callable[[Scores], bool] = never, evaluator=evaluate, **more) -> Worker:  # type: ignore[no-untyped-def]
    scheduler = Paired(DESIGN, FACTORS, 3, enough)
    return Worker(study=study, scheduler=scheduler, evaluate=evaluator, target=24, output=Path("out"), **more)


def seeds_of(study: Study) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {arm.name: [] for arm in ARMS}
    for arm, seed, run in DESIGN.runs(study.trials(), DESIGN.looks[-1]):
        found[arm.name] += [seed] if run else []
    return found


def test_every_arm_gets_the_same_seeds_in_turn() -> None:
    study = new_study()
    assert worker(study).run() == 24
    assert all(seeds == [3, 4, 5, 6, 7, 8] for seeds in seeds_of(study).values())
    order = [(trial.proposal.values["training.seed"], trial.proposal.values["model.width"]) for trial in study.trials()]
    assert order == [(seed, 8 + index) for seed in range(3, 9) for index in range(4)]
    assert study.trials()[1].proposal.overrides == [
        "token_mixing=mlp",
        "channel_mixing=swiglu",
        "model.width=9",
        "training.seed=3",
    ]


def test_no_seed_is_added_once_everything_is_told() -> None:
    study, seen = new_study(), list[tuple[int, ...]]()

    def after_four(scores: Scores) -> bool:
        seen.append(scores.accuracies.shape)
        return len(scores.accuracies) >= 4

    working = worker(study, after_four)
    assert working.run() == 16
    assert set(seen) == {(2, 4), (4, 4)}
    assert working.scheduler.ended == "every difference is told or negligible after 4 of at most 6 seeds"
    assert worker(study, after_four).run() == 0  # the same for whoever comes later


def test_it_goes_on_where_it_was_stopped() -> None:
    study, count = new_study(), 0

    def interrupted(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        nonlocal count
        count += 1
        if count == 6:
            raise Stopped
        return evaluate(overrides, folder, report, until)

    with pytest.raises(Stopped):
        worker(study, evaluator=interrupted).run()
    worker(study, evaluator=interrupted).run()
    assert count == 25
    assert [trial.status for trial in study.trials()] == [COMPLETE] * 24


def test_a_look_waits_for_runs_that_others_work_on() -> None:
    study = new_study()
    scheduler = Paired(DESIGN, FACTORS, 3, lambda scores: True)
    for _ in range(8):
        step = scheduler.next(study.trials(), room=True)
        assert step
        assert study.claim(step.proposal, command="", target=24)
    assert scheduler.next(study.trials(), room=True) is None
    assert scheduler.ended == ""


def test_an_arm_that_failed_is_left_out_of_the_comparison() -> None:
    study = new_study()

    def s2_diverges(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        if "token_mixing=s2" in overrides and "channel_mixing=mlp" in overrides and "training.seed=4" in overrides:
            return Evaluation(status=DIVERGED, reason="the loss became infinite")
        return evaluate(overrides, folder, report, until)

    worker(study, evaluator=s2_diverges).run()
    scores = DESIGN.scores(study.trials(), 6)
    assert list(scores.arms) == ["mlp + mlp", "mlp + swiglu", "s2 + swiglu"]
    assert list(scores.accuracies.index) == [3, 4, 5, 6, 7, 8]
    rows = run_rows(DESIGN, study.trials())
    assert rows.loc[rows.status == DIVERGED, "reason"].tolist() == ["the loss became infinite"]


def test_with_one_arm_left_it_ends() -> None:
    study = new_study()

    def failing(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        if "token_mixing=mlp" in overrides and "channel_mixing=mlp" in overrides:
            return evaluate(overrides, folder, report, until)
        return Evaluation(status=FAILED, reason="no")

    working = worker(study, evaluator=failing)
    assert working.run() == 8
    assert working.scheduler.ended == "fewer than two arms are left to be compared"


def test_a_study_knows_its_design() -> None:
    assert design_of(new_study()) == DESIGN
    assert design_of(create_study(InMemoryStorage(), "search", {})) is None


def test_the_table_of_runs_has_what_people_compute_with() -> None:
    study = new_study()
    worker(study).run()
    rows = run_rows(DESIGN, study.trials())
    assert len(rows) == 24
    assert list(rows.columns[:4]) == ["arm", "token_mixing", "channel_mixing", "seed"]
    assert list(rows.columns) == list(run_rows(DESIGN, []).columns)
    first = rows.iloc[0]
    assert (first.arm, first.seed, first["model.width"], first.throughput) == ("mlp + mlp", 3, 8, 8000)
    assert np.allclose(rows.val_accuracy, [one[-1] for one in rows.curve])
    assert [run.number for run in representatives(DESIGN, study.trials())] == [0, 1, 2, 3]


def test_a_terminal_follows_the_arms() -> None:
    study, text = new_study(), StringIO()
    view = LiveView("ablation", 24, Console(file=text, width=120), DESIGN)
    view.update(study.trials())
    worker(study, lambda scores: True).run()
    view.update(study.trials())
    view.console.print(view._screen(study.trials()))
    assert "After 2 whole seeds" in text.getvalue()
    assert "s2 + swiglu" in text.getvalue()
    assert "hypervolume" not in text.getvalue()
