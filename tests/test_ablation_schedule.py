"""An ablation trains every arm with the same seeds, adds seeds only while something is not told, and goes on where it
stopped, whoever works on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from filled_studies import cost, curve
from optuna.distributions import CategoricalDistribution
from optuna.storages import InMemoryStorage
from rich.console import Console

from explore.ablation.arms import Arm
from explore.ablation.design import NOTE, Design, design_of
from explore.ablation.options import Ablation
from explore.ablation.records import Scores
from explore.ablation.runs import representatives, run_rows
from explore.ablation.schedule import Paired
from explore.ablation.together import said_of_together
from explore.evaluation import (
    COMPLETE,
    DIVERGED,
    FAILED,
    INTERRUPTED,
    LOST,
    TOGETHER,
    Evaluation,
    Pace,
    Report,
    ReportOf,
)
from explore.search.study import SILENT, Study, create_study
from explore.search.worker import Stopped, Worker
from explore.view import LiveView

FACTORS = {
    "token_mixing": CategoricalDistribution(["mlp", "s2"]),
    "channel_mixing": CategoricalDistribution(["mlp", "swiglu"]),
}
ARMS = tuple(
    Arm(name=f"{token} + {channel}", levels={"token_mixing": token, "channel_mixing": channel}, free=8 + index)
    for index, (token, channel) in enumerate(
        (token, channel) for token in ("mlp", "s2") for channel in ("mlp", "swiglu")
    )
)
DESIGN = Design(
    factors=tuple(FACTORS),
    arms=ARMS,
    options=Ablation(by="model.width", seeds=2, max_seeds=6),
    first_seed=3,
    looks=(2, 4, 6),
)


def never(scores: Scores) -> bool:
    return False


def evaluate(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
    given = dict(one.split("=") for one in overrides)
    accuracy = 0.9 + 0.01 * (given["token_mixing"] == "s2") + 1e-4 * int(given["training.seed"])
    return Evaluation(status=COMPLETE, cost=cost(1000 * float(given["model.width"])), curve=curve(accuracy))


def new_study() -> Study:
    study = create_study(InMemoryStorage(), "ablation", {})
    study.note(NOTE, DESIGN.to_dict())
    return study


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


LONG = replace(DESIGN, looks=(5, 9), options=replace(DESIGN.options, seeds=5, max_seeds=9))
FAST, SLOW = Pace(seeds=3, alone=2.0, together=1.0), Pace(seeds=3, alone=1.0, together=0.9)
EPOCH_SECONDS = 1.0


def paced(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
    """The arms with s2 are faster together, those with mlp are not."""
    pace = FAST if "token_mixing=s2" in overrides else SLOW
    return replace(evaluate(overrides, folder, report, until), pace=pace)


@dataclass
class Blocks:
    """Trains several at once: writes down which, says that their first epoch is done, and then does `ending`."""

    ending: Callable[[], Evaluation] = lambda: Evaluation(status=COMPLETE)
    seen: list[list[str]] = field(default_factory=list)

    def __call__(self, each: Sequence[Sequence[str]], folders: Sequence[Path], report: ReportOf) -> Evaluation:
        self.seen.append([f"{one[0]} {one[1]} {one[3]}" for one in each])
        for place in range(len(each)):
            report((place, curve(0.5)[0]))
        return self.ending()


def pairs(study: Study, blocks: Blocks, workers: int = 1, design: Design = LONG, evaluator=paced, **more) -> Worker:  # type: ignore[no-untyped-def]
    scheduler = Paired(design, FACTORS, 3, never, workers)
    return Worker(
        study=study, scheduler=scheduler, evaluate=evaluator, target=36, output=Path("out"), together=blocks, **more
    )


def block(arm: str, first: int, count: int) -> list[str]:
    token, channel = arm.split(" + ")
    seeds = range(first, first + count)
    return [f"token_mixing={token} channel_mixing={channel} training.seed={seed}" for seed in seeds]


def test_seeds_of_an_arm_are_trained_together_where_that_pays() -> None:
    study, blocks = new_study(), Blocks()
    assert pairs(study, blocks).run() == 36
    assert blocks.seen == [
        block("s2 + mlp", 4, 4),
        block("s2 + swiglu", 4, 4),
        block("s2 + mlp", 8, 4),
        block("s2 + swiglu", 8, 4),
    ]
    trials = study.trials()
    assert [trial.status for trial in trials] == [COMPLETE] * 36
    assert len({trial.proposal.key for trial in trials}) == 36
    assert sum(TOGETHER in trial.evaluation.seconds for trial in trials) == 16
    assert all(trial.accuracy != 0.5 for trial in trials)


@pytest.mark.parametrize(("workers", "counts"), [(3, [4, 4, 4, 4]), (4, [4, 3, 4, 3]), (8, []), (100, [])])
def test_no_worker_is_left_without_work_for_the_sake_of_a_block(workers: int, counts: list[int]) -> None:
    blocks = Blocks()
    pairs(new_study(), blocks, workers).run()
    assert [len(one) for one in blocks.seen] == counts


def test_nothing_is_trained_together_where_nobody_wants_it() -> None:
    blocks = Blocks()
    off = replace(LONG, options=replace(LONG.options, together="off"))
    pairs(new_study(), blocks, design=off).run()
    assert not blocks.seen
    assert off.tried_together == 0
    assert LONG.tried_together == 3
    assert DESIGN.tried_together == 0  # two seeds are added at most


def test_a_block_that_is_stopped_leaves_all_its_seeds_to_go_on_with() -> None:
    study = new_study()

    def stop() -> Evaluation:
        raise Stopped

    with pytest.raises(Stopped):
        pairs(study, Blocks(stop)).run()
    left = [trial for trial in study.trials() if trial.status == INTERRUPTED]
    assert [trial.proposal.values["training.seed"] for trial in left] == [4, 5, 6, 7]
    assert {(trial.evaluation.reason, trial.evaluation.epochs) for trial in left} == {("stopped from outside", 1)}
    blocks = Blocks()
    pairs(study, blocks).run()
    assert [len(one) for one in blocks.seen] == [4, 4, 4]  # the first four went on alone
    assert [trial.status for trial in study.trials()] == [COMPLETE] * 36
    assert len(study.stretches()) == 40


def test_one_of_a_block_that_stops_the_worker_leaves_those_behind_it() -> None:
    study = new_study()

    def second(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        if "token_mixing=s2" in overrides and "training.seed=5" in overrides:
            raise KeyboardInterrupt
        return paced(overrides, folder, report, until)

    with pytest.raises(KeyboardInterrupt):
        pairs(study, Blocks(), evaluator=second).run()
    found = {trial.proposal.values["training.seed"]: trial.status for trial in study.trials()[-4:]}
    assert found == {4: COMPLETE, 5: INTERRUPTED, 6: INTERRUPTED, 7: INTERRUPTED}


def test_one_of_a_block_that_was_taken_over_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explore.search.worker.HEARTBEAT_SECONDS", -1.0)
    study = new_study()

    def given_up() -> Evaluation:
        lost = next(trial for trial in study.trials() if trial.proposal.values["training.seed"] == 6)
        study.finish(lost, Evaluation(status=INTERRUPTED, reason=SILENT))
        working.check_in()
        return Evaluation(status=COMPLETE)

    evaluated = list[str]()

    def noting(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        evaluated.append(f"{folder.name} {overrides[3]}")
        return paced(overrides, folder, report, until)

    blocks = Blocks(given_up)
    working = pairs(study, blocks, evaluator=noting)
    blocks.ending = lambda: given_up() if len(blocks.seen) == 1 else Evaluation(status=COMPLETE)
    working.run()
    again = [one for one in evaluated if one.endswith("training.seed=6")]
    assert len(again) == 4  # once for each arm
    assert [trial.status for trial in study.trials()] == [COMPLETE] * 36
    taken = next(trial for trial in study.stretches() if trial.evaluation.reason == SILENT)
    assert f"{taken.folder.removeprefix('trials/')} training.seed=6" not in again  # but in a folder of its own


def test_a_block_that_fails_is_no_loss() -> None:
    study = new_study()

    def fail() -> Evaluation:
        raise RuntimeError("no kernel")

    blocks = Blocks(fail)
    pairs(study, blocks).run()
    assert [len(one) for one in blocks.seen] == [4, 4]  # once for each arm
    assert [trial.status for trial in study.trials()] == [COMPLETE] * 36
    reasons = [trial.evaluation.reason for trial in study.trials() if LOST in trial.evaluation.seconds]
    assert reasons == ["went on alone: RuntimeError: no kernel"] * 8
    assert not any(TOGETHER in trial.evaluation.seconds for trial in study.trials())


def test_it_is_said_what_was_saved_and_what_was_tried() -> None:
    study = new_study()

    def timed(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        found = paced(overrides, folder, report, until)
        return replace(found, curve=tuple(replace(epoch, seconds=EPOCH_SECONDS) for epoch in found.curve))

    assert said_of_together(LONG, study.trials()) == ""
    pairs(study, Blocks(), evaluator=timed).run()
    trials = study.trials()
    epochs = trials[0].evaluation.epochs
    assert said_of_together(LONG, trials) == (
        "16 of 36 runs were trained together with others of their arm, in 0 s where one after the other would have "
        f"taken about {16 * epochs} s: {16 * epochs} s saved. Of each arm 3 at once were 1.11 to 2.00 times as fast as "
        "alone, in steps timed in turn."
    )
    alone = [trial for trial in trials if TOGETHER not in trial.evaluation.seconds]
    assert said_of_together(LONG, alone) == (
        "Seeds were trained one by one, as several workers shared them, or after a stop: 3 at once were 1.11 to 2.00 "
        "times as fast as alone, in steps timed in turn."
    )
    refused = [
        replace(trial, evaluation=replace(trial.evaluation, pace=Pace(seeds=3, refusal="because")))
        for trial in trials
        if trial.proposal.values["token_mixing"] == "s2"
    ]
    slow = [trial for trial in trials if trial.proposal.values["token_mixing"] == "mlp"]
    assert said_of_together(LONG, [*slow, *[one for one in refused if TOGETHER not in one.evaluation.seconds]]) == (
        "Seeds were trained one by one: 3 at once were 1.11 times as fast as alone, in steps timed in turn (1.25 is "
        "worth it). Not together: s2 + mlp, s2 + swiglu (because)."
    )
