"""At a rung the best third of each speed goes on, however many are there and in whatever order they came; what waits
is never lost, and what was trained is never trained again."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from filled_studies import TEMPLATE, cost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna.storages import InMemoryStorage

from explore.checks import check_options
from explore.config import compose
from explore.evaluation import COMPLETE, FAILED, RUNNING, STOPPED, Epoch, Evaluation, Report
from explore.search.checkpoints import Sizes, make_room
from explore.search.front import hypervolume, losses, non_dominated
from explore.search.options import Stopping
from explore.search.proposals import Proposer
from explore.search.schedule import Rungs
from explore.search.space import parse_space
from explore.search.stopping import Ladder, Standing, next_rung, places
from explore.search.study import Study, create_study
from explore.search.trial import Trial
from explore.search.worker import Worker

RUNGS = (1, 3, 9)
points = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=40)


def curve(*accuracies: float) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(epoch=epoch, train_loss=1, val_loss=1, val_accuracy=one, lr=1e-3, seconds=1.0)
        for epoch, one in enumerate(accuracies, 1)
    )


def trial(number: int, speed: float, *accuracies: float, status: str = STOPPED, given_up: bool = False) -> Trial:
    evaluation = Evaluation(status=status, cost=cost(speed), curve=curve(*accuracies))
    return replace(TEMPLATE, number=number, evaluation=evaluation, given_up=given_up)


def ranks_of(rows: Sequence[tuple[float, float]], eta: int) -> NDArray[np.float64]:
    """Of accuracies and speeds."""
    found = losses([accuracy for accuracy, _ in rows], [float(speed) for _, speed in rows])
    return Standing(eta).ranks(found)


@settings(max_examples=30)
@given(points, st.integers(2, 4))
def test_a_third_of_the_neighbours_goes_on(found: list[tuple[int, int]], eta: int) -> None:
    ranks = ranks_of([(one[0] / 50, one[1]) for one in found], eta)
    assert ((ranks >= 0) & (ranks <= 1)).all()
    if len(found) < eta:
        assert (ranks == 1).all()
    elif len(found) <= 3 * eta + 1:  # all are neighbours of each other
        assert (ranks < 1 / eta).sum() == -(-len(found) // eta)


@settings(max_examples=30)
@given(points, st.randoms())
def test_the_order_of_arrival_does_not_matter(found: list[tuple[int, int]], random) -> None:
    unique = list({speed: (accuracy, speed) for accuracy, speed in found}.values())
    mixed = random.sample(unique, len(unique))

    def rank_of(rows: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
        ranks = ranks_of([(one[0] / 50, one[1]) for one in rows], 3)
        return dict(zip(rows, ranks.tolist(), strict=True))

    before, after = rank_of(unique), rank_of(mixed)
    # Equal accuracies at neighbouring speeds may change places among themselves, never with another.
    assert sorted(before.values()) == sorted(after.values())


@settings(max_examples=30)
@given(points)
def test_who_is_beaten_in_both_comes_behind(found: list[tuple[int, int]]) -> None:
    order = places(losses([one[0] / 50 for one in found], [float(one[1]) for one in found]))
    assert sorted(order) == list(range(len(found)))
    for place, one in zip(order, found, strict=True):
        assert all(place > other for other, better in zip(order, found, strict=True) if dominates(better, one))


@settings(max_examples=30)
@given(points)
def test_fronts_come_one_after_the_other_and_in_each_who_adds_most(found: list[tuple[int, int]]) -> None:
    rows = losses([one[0] / 50 for one in found], [float(one[1]) for one in found])
    corner = (1.001, rows[:, 1].max() + np.log(2))
    left = sorted(range(len(rows)), key=places(rows).__getitem__)
    while left:
        on_front = non_dominated(rows[left])
        members, left = left[: on_front.sum()], left[on_front.sum() :]
        assert on_front[: len(members)].all()
        whole = hypervolume(rows[members], corner)
        added = [whole - hypervolume(np.delete(rows[members], one, 0), corner) for one in range(len(members))]
        assert all(one >= other - 1e-9 for one, other in pairwise(added))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=60))
def test_what_is_kept_between_decisions_changes_none(steps: list[tuple[int, int, int]]) -> None:
    """Trials come, go on to the next rung, and lose their checkpoints: who saw it all decides as one who comes anew."""
    trials: list[Trial] = []
    kept = Ladder(RUNGS, 3)
    for what, accuracy, speed in steps:
        if what < 6 or not trials:
            trials.append(trial(len(trials), speed, accuracy / 20))
        else:
            place = accuracy % len(trials)
            before = trials[place]
            epochs = next_rung(RUNGS, before.epochs)
            more = trial(place, before.throughput or 1.0, *[speed / 20] * epochs)
            trials[place] = replace(before, given_up=True) if what == 9 else more
        decided = [one.number for one in kept.promotable(trials)]
        assert decided == [one.number for one in Ladder(RUNGS, 3).promotable(trials)]


@settings(max_examples=60)
@given(points, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(1, 50)), max_size=8))
def test_ranks_that_are_kept_are_those_of_anew(
    found: list[tuple[int, int]], changes: list[tuple[int, int, int]]
) -> None:
    standing, rows = Standing(2), [(one[0] / 50, one[1]) for one in found]
    standing.ranks(losses([one[0] for one in rows], [float(one[1]) for one in rows]))
    for place, accuracy, speed in changes:
        # One comes, one is another than before, or one is gone.
        rows[place : place + accuracy % 2] = [(accuracy / 50, speed)] if accuracy % 3 or len(rows) < 2 else []
        now = losses([one[0] for one in rows], [float(one[1]) for one in rows])
        assert standing.ranks(now).tolist() == Standing(2).ranks(now).tolist()


def dominates(better: tuple[int, int], one: tuple[int, int]) -> bool:
    return better != one and better[0] >= one[0] and better[1] >= one[1]


def test_who_is_beaten_at_its_own_speed_waits() -> None:
    slow = [(0.9, 100.0), (0.5, 101.0), (0.4, 102.0), (0.3, 103.0)]
    fast = [(0.2, 1000.0), (0.1, 1001.0), (0.1, 1002.0), (0.1, 1003.0)]
    far = [(0.3 + 0.01 * place, 10.0 + place) for place in range(8)]
    rows = [*slow, *fast, *far]
    ranks = ranks_of(rows, 2)
    goes_on = {rows[place] for place in np.flatnonzero(ranks < 1 / 2)}
    assert (0.9, 100.0) in goes_on
    assert (0.2, 1000.0) in goes_on  # less accurate than all slow ones, and the best of its speed
    assert (0.3, 103.0) not in goes_on


def test_the_highest_rung_comes_first_and_only_who_waits_there() -> None:
    trials = [
        trial(0, 100.0, 0.5),
        trial(1, 110.0, 0.6),
        trial(2, 120.0, 0.7, 0.7, 0.8),
        trial(3, 130.0, 0.6, 0.7, 0.7),
        trial(4, 140.0, 0.6, 0.7, 0.6, status=RUNNING),
    ]
    assert [one.number for one in Ladder(RUNGS, 3).promotable(trials)] == [2]
    gone = [*trials[:2], trial(2, 120.0, 0.7, 0.7, 0.8, given_up=True), *trials[3:]]
    assert [one.number for one in Ladder(RUNGS, 3).promotable(gone)] == []


def test_a_stopped_decision_is_taken_back_when_others_turn_out_worse() -> None:
    first, second, third = trial(0, 100.0, 0.5), trial(1, 100.0, 0.6), trial(2, 100.0, 0.4)
    assert Ladder(RUNGS, 3).promotable([first]) == []
    assert [one.number for one in Ladder(RUNGS, 3).promotable([first, second, third])] == [1]
    more = [trial(number, 100.0, 0.3) for number in range(3, 6)]
    went_on = trial(1, 100.0, 0.6, 0.6, 0.6)
    assert [one.number for one in Ladder(RUNGS, 3).promotable([first, went_on, third, *more])] == [0]


def test_one_that_was_interrupted_behind_its_last_epoch_is_taken_up_to_be_ended() -> None:
    assert [next_rung(RUNGS, epochs) for epochs in (0, 1, 2, 3, 8, 9)] == [1, 3, 3, 9, 9, 9]


def test_rungs() -> None:
    assert Stopping().rungs(27) == (1, 3, 9, 27)
    assert Stopping().rungs(20) == (1, 3, 9, 20)
    assert Stopping(min_epochs=5, eta=2).rungs(12) == (5, 10, 12)
    assert Stopping(rule="off").rungs(27) == (27,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "maybe"}, "stopping.rule must be one of rungs, off, got 'maybe'"),
        ({"eta": 1}, "stopping.eta must be at least 2, got 1"),
        ({"min_epochs": 0}, "stopping.min_epochs must be at least 1, got 0"),
        ({"disk": 0.0}, "stopping.disk must be above 0 GB, or inf for no limit, got 0"),
        ({"disk": -1.0}, "stopping.disk must be above 0 GB, or inf for no limit, got -1"),
        ({"disk": float("nan")}, "stopping.disk must be above 0 GB, or inf for no limit, got nan"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stopping(**change).check()  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [9, 30])
@pytest.mark.parametrize("sampler", ["tpe", "speed_aware"])
def test_a_first_rung_behind_the_end_is_refused(first: int, sampler: str) -> None:
    given = ["+sweep=smoke", "training.epochs=9", f"sampler={sampler}"]
    asked = [*given, f"stopping.min_epochs={first}"]
    message = (
        f"stopping.min_epochs must be below training.epochs, got {first} and training.epochs=9: nobody would wait at a "
        "rung; set fewer, or stopping.rule=off in its place, which trains all to the end"
    )
    with pytest.raises(ValueError, match=message):
        check_options(compose(asked), asked)
    for fine in ([*asked, "stopping.rule=off"], [*given, "stopping.min_epochs=8"], [*given, "training.epochs=1"]):
        check_options(compose(fine), fine)


class Trainings:
    """What training would find, and a note of every epoch that was trained."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, int]] = []
        self.folders: dict[str, set[Path]] = {}

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        name, width = str(overrides), int(overrides[0].partition("=")[2])
        before = max((epoch for other, epoch in self.epochs if other == name), default=0)
        self.epochs += [(name, epoch) for epoch in range(before + 1, until + 1)]
        self.folders.setdefault(name, set()).add(folder)
        found = curve(*((1 - 1 / epoch) * width / 20 for epoch in range(1, until + 1)))
        status = COMPLETE if until == RUNGS[-1] else STOPPED
        return Evaluation(status=status, cost=cost(1000 / width), curve=found, seconds={"train": until - before})


def searched(target: int) -> tuple[Study, Trainings]:
    space = {"width": "range(1, 19)"}
    study, trainings = create_study(InMemoryStorage(), "rungs", space), Trainings()
    proposer = Proposer(space=parse_space(space), sampler="random", seed=1)
    scheduler = Rungs(proposer, RUNGS, eta=3)
    Worker(study=study, scheduler=scheduler, evaluate=trainings, target=target, output=Path("out")).run()
    return study, trainings


def test_nothing_is_trained_twice_and_a_candidate_keeps_its_number_folder_and_seconds() -> None:
    study, trainings = searched(18)
    trials = study.trials()
    assert len(set(trainings.epochs)) == len(trainings.epochs)
    assert all(len(folders) == 1 for folders in trainings.folders.values())
    assert len(trials) == len({one.number for one in trials}) == len({one.proposal.key for one in trials}) == 18
    assert {one.status for one in trials} == {COMPLETE, STOPPED}
    assert all(one.evaluation.epochs in RUNGS for one in trials)
    assert all(one.evaluation.seconds["train"] == one.evaluation.epochs for one in trials)
    # Much is left out even where everybody would end on the front.
    assert len(trainings.epochs) == sum(one.evaluation.epochs for one in trials) < 0.6 * 18 * RUNGS[-1]
    assert Ladder(RUNGS, 3).promotable(trials) == []
    went_on = [one for one in trials if one.row != one.number]
    assert went_on
    assert all(one.folder == f"trials/{one.number:04d}" for one in went_on)


@pytest.mark.parametrize("target", [1, 2, 4, 30])
def test_a_search_ends_with_a_front_however_small_and_nobody_waits_who_is_unbeaten(target: int) -> None:
    study, trainings = searched(target)
    trials = study.trials()
    assert len(trials) == min(target, 18)  # the space has no more
    whole = [one for one in trials if one.status == COMPLETE]
    assert whole
    for one in trials:
        farther = [other for other in trials if other.epochs > one.epochs]
        assert one.status == COMPLETE or any(beats(other, one) for other in farther)
    assert len(trainings.epochs) == sum(one.evaluation.epochs for one in trials)


def beats(other: Trial, one: Trial) -> bool:
    return (other.accuracy or 0) >= (one.accuracy or 0) and (other.throughput or 0) >= (one.throughput or 0)


def test_the_last_go_on_from_the_highest_rung_the_slowest_first_and_nobody_while_others_run() -> None:
    accurate, fast, beaten = trial(0, 100.0, 0.6), trial(1, 200.0, 0.5), trial(2, 90.0, 0.4)
    ladder = Ladder(RUNGS, 4)

    def goes_on(*trials: Trial) -> int | None:
        found = ladder.unbeaten(trials)
        return found.number if found else None

    assert goes_on(accurate, fast, beaten) == 0
    assert goes_on(accurate, fast, beaten, trial(3, 50.0, status=RUNNING)) is None
    farther = trial(0, 100.0, 0.6, 0.6, 0.7)
    assert goes_on(farther, fast, beaten) == 0
    whole = trial(0, 100.0, *[0.7] * 9, status=COMPLETE)
    assert goes_on(whole, fast, beaten) == 1
    assert goes_on(whole, trial(1, 200.0, *[0.6] * 9, status=COMPLETE), beaten) is None
    # Who cannot go on any more keeps nobody from it.
    gone = [trial(0, 100.0, 0.6, given_up=True), trial(1, 200.0, 0.6, 0.6, 0.6, 0.6, status=FAILED)]
    assert goes_on(*gone, beaten) == 2
    assert goes_on(trial(0, 100.0), trial(1, 50.0, status=FAILED)) is None


def with_one_that_waits() -> tuple[Study, Trial]:
    space = {"width": "range(1, 19)"}
    study = create_study(InMemoryStorage(), "rungs", space)
    proposal = Proposer(space=parse_space(space)).propose([])
    assert proposal
    begun = study.claim(proposal, command="", target=1)
    assert begun
    study.finish(begun, Trainings()(proposal.overrides, Path(), lambda item: None, RUNGS[0]))
    [waiting] = study.trials()
    return study, waiting


def test_two_workers_never_go_on_with_the_same() -> None:
    study, waiting = with_one_that_waits()
    first = study.claim(waiting.proposal, command="", target=1, continues=waiting)
    second = study.claim(waiting.proposal, command="", target=1, continues=waiting)
    assert first is not None
    assert second is None
    assert [one.row for one in study.trials()] == [first.row]


def test_the_disk_has_a_limit_and_the_least_promising_are_given_up_for_it(tmp_path: Path) -> None:
    study, _ = searched(18)
    stopped = [one for one in study.trials() if one.status == STOPPED]
    for one in stopped:
        (tmp_path / one.folder).mkdir(parents=True)
        (tmp_path / one.folder / "last.ckpt").write_bytes(bytes(100))
    known: Sizes = {}
    assert make_room(study, tmp_path, 100 * len(stopped), known) == []
    gone = make_room(study, tmp_path, 100 * len(stopped) - 150, known)
    assert [one.evaluation.epochs for one in gone] == [1, 1]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.ckpt")) == 100 * len(stopped) - 200
    again = study.trials()
    assert {one.number for one in again if one.given_up} == {one.number for one in gone}
    assert make_room(study, tmp_path, 100 * len(stopped) - 150, known) == []
    assert make_room(study, tmp_path, 100 * len(stopped) - 150, {}) == []


def test_what_was_given_up_is_remembered() -> None:
    study, waiting = with_one_that_waits()
    study.give_up(waiting)
    assert [one.given_up for one in study.trials()] == [True]
