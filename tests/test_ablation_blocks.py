"""Seeds of an arm are trained at once where that pays, whoever works on them, nothing is lost for its sake, and people
are told what it brought."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from filled_studies import curve
from four_arms import ARMS, DESIGN, FACTORS, evaluate, never, new_study

from explore.ablation.design import Design
from explore.ablation.schedule import Paired
from explore.ablation.together import said_of_together
from explore.evaluation import (
    BLOCK_LOST,
    BLOCK_STOPPED,
    COMPLETE,
    FAILED,
    IN_BLOCK,
    INTERRUPTED,
    Evaluation,
    Pace,
    Report,
    ReportOf,
)
from explore.search.study import SILENT, Study
from explore.search.trial import Trial
from explore.search.worker import Stopped, Worker

LONG = replace(DESIGN, looks=(5, 9), options=replace(DESIGN.options, seeds=5, max_seeds=9))
FAST, SLOW = Pace(seeds=3, alone=2.0, together=1.0), Pace(seeds=3, alone=1.0, together=0.9)


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
    assert sum(IN_BLOCK in trial.evaluation.seconds for trial in trials) == 16
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
    assert all(list(trial.evaluation.seconds) == [BLOCK_STOPPED] for trial in left)
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
    reasons = [trial.evaluation.reason for trial in study.trials() if BLOCK_LOST in trial.evaluation.seconds]
    assert reasons == ["not trained with others: RuntimeError: no kernel"] * 8
    assert not any(IN_BLOCK in trial.evaluation.seconds for trial in study.trials())


def test_those_whose_block_came_to_nothing_are_left_to_anyone() -> None:
    study = new_study()
    blocks, evaluated = Blocks(lambda: Evaluation(status=FAILED, reason="no room")), list[Path]()

    def noting(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        evaluated.append(folder)
        return paced(overrides, folder, report, until)

    with pytest.raises(Stopped):
        pairs(study, blocks, evaluator=noting, leave=lambda: bool(blocks.seen)).run()
    assert len(evaluated) == sum(trial.status == COMPLETE for trial in study.trials())
    left = [trial for trial in study.trials() if trial.status == INTERRUPTED]
    assert [trial.proposal.values["training.seed"] for trial in left] == [4, 5, 6, 7]
    assert {(one.evaluation.reason, *one.evaluation.seconds) for one in left} == {
        ("not trained with others: no room", BLOCK_LOST)
    }
    pairs(study, blocks).run()
    assert blocks.seen == [block("s2 + mlp", 4, 4), block("s2 + swiglu", 4, 4)]  # once for each arm
    ended = {trial.number: trial.evaluation for trial in study.trials()}
    assert all(ended[one.number].reason == "not trained with others: no room" for one in left)
    assert "8 runs of s2 + mlp, s2 + swiglu went on alone after 0 s in blocks that failed" in said_of_together(
        LONG, study.trials()
    )


def test_the_pace_of_an_arm_is_asked_for_once_and_no_training_is_lost_for_its_sake() -> None:
    study, asked = new_study(), list[str]()

    def pace(overrides: Sequence[str], folder: Path) -> Evaluation:
        asked.append(" ".join((overrides[0], overrides[1])))
        if "token_mixing=s2" in overrides:
            return Evaluation(status=COMPLETE, pace=FAST)
        if "channel_mixing=mlp" in overrides:
            return Evaluation(status=FAILED, reason="its process was killed")
        raise OSError("no process")

    blocks = Blocks()
    pairs(study, blocks, evaluator=evaluate, pace=pace).run()
    trials = study.trials()
    assert [trial.status for trial in trials] == [COMPLETE] * 36
    assert len(asked) == len(set(asked)) == 4
    assert [len(one) for one in blocks.seen] == [4, 4, 4, 4]
    found = [trial.evaluation.pace for trial in trials if trial.evaluation.pace]
    killed, raised = (
        "that could not be measured: its process was killed",
        "that could not be measured: OSError: no process",
    )
    assert found == [Pace(refusal=killed), Pace(refusal=raised), FAST, FAST]
    assert all("pace" in trial.evaluation.seconds for trial in trials if trial.evaluation.pace)


def test_a_run_that_is_stopped_while_its_pace_is_measured_has_it_measured_later() -> None:
    study = new_study()

    def stop(overrides: Sequence[str], folder: Path) -> Evaluation:
        raise Stopped

    with pytest.raises(Stopped):
        pairs(study, Blocks(), evaluator=evaluate, pace=stop).run()
    assert [trial.status for trial in study.trials()] == [INTERRUPTED]
    pairs(study, Blocks(), evaluator=evaluate, pace=lambda *_: Evaluation(status=COMPLETE, pace=SLOW)).run()
    assert study.trials()[0].evaluation.pace == SLOW


def test_those_that_wait_for_the_evaluation_of_others_are_told_to_be_in_good_hands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study, now = new_study(), 0.0
    monkeypatch.setattr("explore.search.worker.time", SimpleNamespace(monotonic=lambda: now, sleep=None))
    beats: dict[int, list[float]] = {}
    beat = study.beat

    def noting(trial: Trial) -> None:
        beats.setdefault(trial.row, []).append(now)
        beat(trial)

    def slow(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        nonlocal now
        for _ in range(2):
            now += 7.0
            working.check_in()
        return paced(overrides, folder, report, until)

    monkeypatch.setattr(study, "beat", noting)
    working = pairs(study, Blocks(), evaluator=slow)
    working.run()
    last = max(trial.row for trial in study.trials() if IN_BLOCK in trial.evaluation.seconds)
    assert [later - earlier for earlier, later in pairwise(beats[last])] == [21.0]


def test_what_one_after_the_other_would_take_is_that_of_steps_timed_in_turn() -> None:
    def seed(number: int, seconds: float, **parts: float) -> Trial:
        trial = next(one for one in study.trials() if one.proposal.values == DESIGN.values(ARMS[0], number))
        epochs = tuple(replace(epoch, seconds=seconds) for epoch in trial.evaluation.curve)
        return replace(trial, evaluation=replace(trial.evaluation, curve=epochs, seconds=parts, pace=FAST))

    study = new_study()
    pairs(study, Blocks(), evaluator=evaluate).run()
    # The first waited while the machine measured.
    runs = [seed(3, 70.0, train=1.0), seed(4, 1.0, block=10.0), seed(5, 50.0, block_stopped=1.0)]
    runs += [seed(6, 90.0, block_lost=1.0)]
    assert "in 10 s where one after the other would have taken about 20 s: 10 s saved" in said_of_together(LONG, runs)


def test_it_is_said_what_was_saved_and_what_was_tried() -> None:
    study = new_study()
    assert said_of_together(LONG, study.trials()) == ""
    pairs(study, Blocks()).run()
    trials = study.trials()
    assert said_of_together(LONG, trials) == (
        "16 of 36 runs were trained together with others of their arm, in 0 s where one after the other would have "
        "taken about 0 s: 0 s saved. Of each arm 3 at once were 1.11 to 2.00 times as fast as alone, in steps timed in "
        "turn."
    )
    alone = [trial for trial in trials if IN_BLOCK not in trial.evaluation.seconds]
    assert said_of_together(LONG, alone) == (
        "No complete run was trained together with others: 3 at once were 1.11 to 2.00 times as fast as alone, in "
        "steps timed in turn."
    )
    assert said_of_together(replace(LONG, options=replace(LONG.options, together="off")), trials) == ""
    refused = [
        replace(trial, evaluation=replace(trial.evaluation, pace=Pace(seeds=3, refusal="because")))
        for trial in trials
        if trial.proposal.values["token_mixing"] == "s2"
    ]
    slow = [trial for trial in trials if trial.proposal.values["token_mixing"] == "mlp"]
    assert said_of_together(LONG, [*slow, *[one for one in refused if IN_BLOCK not in one.evaluation.seconds]]) == (
        "Seeds were trained one by one: 3 at once were 1.11 times as fast as alone, in steps timed in turn (1.25 is "
        "worth it). Not together: s2 + mlp, s2 + swiglu (because)."
    )
