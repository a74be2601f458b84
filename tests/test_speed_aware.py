"""The search that knows speed proposes nothing twice and nothing impossible, trains nobody that cannot reach the front,
counts what others are training, ends by itself, and finds a front with fewer epochs than chance."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filled_studies import cost
from optuna.storages import InMemoryStorage
from test_stopping import curve

from explore.evaluation import COMPLETE, DIVERGED, MEMORY, REFUSED, RUNNING, STOPPED, Evaluation, Report
from explore.search import checkpoints, speed_aware
from explore.search.columns import columns_of
from explore.search.encoding import Encoding
from explore.search.front import hypervolume as area
from explore.search.front import losses
from explore.search.improvement import expected_gain
from explore.search.space import Space, Values, parse_space, to_overrides
from explore.search.speed_aware import _MOST_WAITING, SpeedAware, _Choice, _considered
from explore.search.study import Study, create_study
from explore.search.trial import Trial, candidates
from explore.search.worker import Worker

SPACE = {
    "width": "choice(8, 16, 32, 64, 128)",
    "depth": "range(1, 9)",
    "mixing": "choice(mlp, shift, none)",
    "mixing.size": "choice(3, 5)",
    "lr": "tag(log, interval(1e-3, 1e-1))",
}
RUNGS = (1, 3, 9)


def space() -> Space:
    return parse_space(SPACE, lambda key, values: key != "mixing.size" or values.get("mixing") == "shift")


def trained(overrides: Sequence[str], epochs: int) -> Evaluation:
    """Wide and deep is accurate, slow, and slow to learn."""
    values = dict(one.split("=") for one in overrides)
    size = np.log2(float(values["width"])) * float(values["depth"]) ** 0.5
    best = 1 - 0.5 * np.exp(-size / 8) - 0.2 * (values["mixing"] == "none")
    found = [best * (1 - np.exp(-epoch / (1 + size / 8))) for epoch in range(1, epochs + 1)]
    status = COMPLETE if epochs == RUNGS[-1] else STOPPED
    return Evaluation(status=status, cost=cost(1e5 / size**2), curve=curve(*found))


def speed_of(evaluation: Evaluation) -> float:
    assert evaluation.cost
    assert evaluation.cost.throughput
    return evaluation.cost.throughput.images_per_second


class Trainings:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        self.seen.append((str(overrides), until))
        return trained(overrides, until)


def scheduler(**more: object) -> SpeedAware:
    given = {"classes": 10, "smallest": 1e-3, "startup": 4} | more
    return SpeedAware(space=space(), rungs=RUNGS, **given)  # type: ignore[arg-type]


def searched(target: int, given: Trainings | None = None, **more: object) -> tuple[Study, Trainings]:
    study, trainings = create_study(InMemoryStorage(), "aware", SPACE), given or Trainings()
    output = Path("out")
    worker = Worker(study, scheduler(**more), trainings, target=target, output=output, wait=lambda: None)
    worker.run()
    return study, trainings


def hypervolume(trials: Sequence[Trial]) -> float:
    complete = [one for one in trials if one.status == COMPLETE]
    return area(losses([one.accuracy or 0 for one in complete], [one.throughput or 1 for one in complete]), (0.9, -5.0))


def test_a_candidate_is_measured_then_trained_from_rung_to_rung() -> None:
    study, trainings = searched(10, tolerance=1e-3)
    for name in {name for name, _ in trainings.seen}:
        steps = [until for other, until in trainings.seen if other == name]
        assert steps == [0, *RUNGS][: len(steps)]
    trials = study.trials()
    assert len({one.proposal.key for one in trials}) == len(trials)
    assert len(candidates(trials)) == 10
    assert {COMPLETE, STOPPED} == {one.status for one in trials}


def test_a_checkpoint_is_looked_at_once_however_often_a_worker_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[Path]()
    monkeypatch.setattr(checkpoints, "_size", lambda folder: looked.append(folder) or 1)
    study, trainings = create_study(InMemoryStorage(), "aware", SPACE), Trainings()
    Worker(study, scheduler(), trainings, target=8, output=Path("out"), disk=1e9, wait=lambda: None).run()
    stops = [until for _, until in trainings.seen if 0 < until < RUNGS[-1]]
    assert len(looked) == len(stops) > 8  # no checkpoint is left by a measurement


def test_nobody_waits_while_others_measure_the_first() -> None:
    """Of many workers all measure, and then train, before there is anything to learn from."""
    study, aware, workers = create_study(InMemoryStorage(), "aware", SPACE), scheduler(), 3 * 4
    claimed: list[Trial] = []
    for _ in range(workers):
        step = aware.next(study.trials(), room=True)
        assert step
        assert step.until == 0
        trial = study.claim(step.proposal, command="", target=100)
        assert trial
        claimed.append(trial)
    for trial in claimed:
        study.finish(trial, trained(trial.proposal.overrides, 0))
    for _ in range(workers):
        step = aware.next(study.trials(), room=True)
        assert step
        assert step.until == RUNGS[0]
        assert step.continues
        assert study.claim(step.proposal, command="", target=100, continues=step.continues)
    assert aware.next([], room=False) is None


@pytest.mark.slow
def test_the_front_is_found_with_fewer_epochs_than_by_chance() -> None:
    study, _ = searched(16)
    spent = sum(one.evaluation.epochs for one in study.trials())
    generator, chance = np.random.default_rng(0), []
    for _ in range(20):
        drawn = space().draw(generator, [{}] * -(-spent // RUNGS[-1]))
        rows = [trained([f"{key}={value}" for key, value in values.items()], RUNGS[-1]) for values in drawn]
        losses_of = [(1 - (row.accuracy or 0), -np.log(row.cost.throughput.images_per_second)) for row in rows]  # type: ignore[union-attr]
        chance.append(area(losses_of, (0.9, -5.0)))
    assert hypervolume(study.trials()) > np.median(chance)


def test_the_impossible_is_never_proposed() -> None:
    def check(overrides: Sequence[str]) -> None:
        if "mixing=none" in overrides:
            raise ValueError("mixing must not be none")

    study, _ = searched(8, check=check)
    assert "none" not in {one.proposal.values["mixing"] for one in study.trials()}


@pytest.mark.slow
@pytest.mark.parametrize(("status", "constraints"), [(DIVERGED, {}), (REFUSED, {MEMORY: 1.0})])
def test_a_region_that_diverges_or_lacks_memory_is_left(status: str, constraints: dict[str, float]) -> None:
    class Losing(Trainings):
        def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
            found = super().__call__(overrides, folder, report, until)
            lost = until > 0 and float(dict(one.split("=") for one in overrides)["lr"]) > 0.01
            return replace(found, status=status, curve=(), constraints=constraints) if lost else found

    study, _ = searched(16, Losing())
    lost = [one.status == status for one in study.trials() if one.status == status or one.evaluation.epochs]
    assert sum(lost[8:]) < sum(lost[:8])


def test_the_search_ends_by_itself_when_nothing_is_worth_its_training() -> None:
    study, _ = searched(400, fewest=8, tolerance=0.05)
    assert 8 <= len(study.trials()) < 100


def test_why_it_ended_is_said_of_the_last_decision_only() -> None:
    ours = scheduler(tolerance=1e9, fewest=1)
    study, _ = searched(6)
    trials = [one for one in study.trials() if one.status == COMPLETE]
    assert ours.next(trials, room=True) is None
    assert "none was expected to add" in ours.ended
    assert ours.next(trials, room=False) is None
    assert ours.ended == ""


def known(study: Study, values: Values, speed: float, *accuracies: float) -> Trial:
    trial = study.claim(space().proposal(values), command="", target=99)
    assert trial
    status = COMPLETE if len(accuracies) == RUNGS[-1] else STOPPED
    study.finish(trial, Evaluation(status=status, cost=cost(speed), curve=curve(*accuracies)))
    return study.trials()[-1]


def test_who_could_not_reach_the_front_even_when_perfect_is_not_trained() -> None:
    study, ours = create_study(InMemoryStorage(), "aware", SPACE), scheduler(startup=1, tolerance=0)
    one, other, fast = space().draw(np.random.default_rng(0), [{}] * 3)
    slow = known(study, one, 1000.0, 0.9)
    step = ours.next(study.trials(), room=False)
    assert step
    assert step.continues == slow
    known(study, other, 2000.0, *[1.0] * RUNGS[-1])
    assert ours.next(study.trials(), room=False) is None
    chosen = known(study, fast, 3000.0, 0.9)
    step = ours.next(study.trials(), room=False)
    assert step
    assert step.continues == chosen


def test_nor_before_there_is_a_model() -> None:
    study, ours = create_study(InMemoryStorage(), "aware", SPACE), scheduler(startup=2)
    *slow, perfect, fast = space().draw(np.random.default_rng(0), [{}] * 5)
    for values in slow:
        known(study, values, 1000.0)
    known(study, perfect, 2000.0, *[1.0] * RUNGS[-1])
    step = ours.next(study.trials(), room=True)
    assert step
    assert step.continues is None
    chosen = known(study, fast, 3000.0)
    step = ours.next(study.trials(), room=True)
    assert step
    assert step.continues == chosen


@pytest.mark.parametrize("fewest", [None, 2])
def test_a_search_in_which_everything_diverges_ends_with_its_reason(fewest: int | None) -> None:
    class Diverging(Trainings):
        def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
            found = super().__call__(overrides, folder, report, until)
            return replace(found, status=DIVERGED, curve=()) if until else found

    study = create_study(InMemoryStorage(), "aware", SPACE)
    worker = Worker(study, scheduler(fewest=fewest), Diverging(), target=6, output=Path("out"), wait=lambda: None)
    worker.run()
    assert {one.status for one in study.trials()} <= {DIVERGED, STOPPED}
    assert worker.ended


def choices(ours: SpeedAware, study: Study) -> dict[str, _Choice]:
    """What could be gone on with, by key, in the order in which it would be."""
    found = dict[str, _Choice]()

    def take(choices: Iterable[_Choice], *more: object) -> None:
        found.update((one.trial.proposal.key, one) for one in choices if one.trial)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "_first_worth_it", take)
        ours.next(study.trials(), room=False)
    return found


def test_what_others_train_counts_as_if_it_had_ended_as_expected() -> None:
    """Who is as good as one that another worker trains, and not faster, has little to add."""
    study, ours = create_study(InMemoryStorage(), "aware", SPACE), scheduler(startup=1)
    values = {"width": 64, "depth": 4, "mixing": "mlp"}
    for speed in (100.0, 5000.0):
        known(study, {"width": 8, "depth": 1, "mixing": "none", "lr": 10 / speed}, speed, *[0.3] * RUNGS[-1])
    twin = known(study, values | {"lr": 0.0101}, 1010.0, 0.5, 0.7, 0.8)
    one = known(study, values | {"lr": 0.01}, 1000.0, 0.5, 0.7, 0.8)
    alone = choices(ours, study)[one.proposal.key].gain
    assert study.claim(twin.proposal, command="", target=99, continues=twin)
    beside = choices(ours, study)[one.proposal.key].gain
    assert 0 < beside < 0.5 * alone


def test_a_gain_counts_for_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the epochs that are missing, and the root of the time of an image."""
    study, ours = create_study(InMemoryStorage(), "aware", SPACE), scheduler(startup=1)
    one, other, third = space().draw(np.random.default_rng(0), [{}] * 3)
    slow, fast = known(study, one, 1000.0, 0.5, 0.6, 0.7), known(study, other, 1200.0, 0.5)
    gains = {1000.0: 0.5, 1200.0: 0.5, 4000.0: 0.4}

    def expected(mean: object, deviation: object, speed: np.ndarray, *more: object, **named: object) -> np.ndarray:
        return np.array([gains[round(float(np.exp(each)), 1)] for each in speed])

    monkeypatch.setattr(speed_aware, "expected_gain", expected)
    assert list(choices(ours, study)) == [slow.proposal.key, fast.proposal.key], "six epochs are missing, and eight"
    fastest = known(study, third, 4000.0, 0.5, 0.6, 0.7)
    assert next(iter(choices(ours, study))) == fastest.proposal.key, "an epoch costs half as much"


def test_a_space_that_is_exhausted_is_said_to_be() -> None:
    given = {"width": "choice(8, 16, 32)", "depth": "range(1, 3)", "mixing": "choice(mlp)"}
    small = SpeedAware(space=parse_space(given), rungs=RUNGS, classes=10, smallest=1e-3, startup=4)
    study = create_study(InMemoryStorage(), "small", given)
    worker = Worker(study, small, trained, target=24, output=Path("out"))  # type: ignore[arg-type]
    worker.run()
    assert len(study.trials()) == 6
    assert worker.ended == "The space is exhausted: all 6 possible configurations were tried."


@pytest.mark.slow
def test_a_speed_that_is_asked_for_focuses_the_search() -> None:
    fast, _ = searched(10, least_throughput=5000.0)
    anyhow, _ = searched(16)

    def share(study: Study) -> float:
        learned = [one for one in study.trials() if one.evaluation.epochs]
        return float(np.mean([(one.throughput or 0) >= 5000 for one in learned[4:]]))  # behind those at random

    assert share(fast) == 1.0
    assert share(anyhow) < 1.0


class Refusing(Trainings):
    """Refuses who is slower than is asked for."""

    def __init__(self, asked: float) -> None:
        super().__init__()
        self.asked = asked

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        found = super().__call__(overrides, folder, report, until)
        beyond = replace(found, status=REFUSED, curve=(), constraints={"throughput": 1.0})
        return beyond if speed_of(found) < self.asked else found


def reached_by(share: float) -> float:
    """The speed that so many of the space have."""
    drawn = space().draw(np.random.default_rng(0), [{} for _ in range(1000)])
    return float(np.quantile([speed_of(trained(to_overrides(one), 0)) for one in drawn], 1 - share))


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_few_are_refused_where_few_are_as_fast_as_is_asked_for(share: float) -> None:
    asked = reached_by(share)
    for seed in range(3):
        study, _ = searched(24, Refusing(asked), least_throughput=asked, startup=8, fewest=20, seed=seed)
        status = [one.status for one in study.trials()]
        assert status.count(REFUSED) <= 8, "of 24 candidates; 13 to 15 where speed was not looked at before"
        assert COMPLETE in status


def test_who_was_refused_is_none_of_the_fewest() -> None:
    ours = scheduler(tolerance=1e9, fewest=3, startup=2)
    study, _ = searched(6)
    two = [one for one in study.trials() if one.status == COMPLETE][:2]
    refused = [replace(one, evaluation=replace(one.evaluation, status=REFUSED, curve=())) for one in two]
    assert ours.next([*two, *refused], room=True) is not None


def test_what_others_train_is_not_begun_again() -> None:
    study = create_study(InMemoryStorage(), "aware", SPACE)
    ours = scheduler()
    keys = []
    for _ in range(6):
        step = ours.next(study.trials(), room=True)
        assert step is not None
        assert study.claim(step.proposal, command="", target=99, continues=step.continues)
        keys.append(step.proposal.key)
    assert len(set(keys)) == 6
    assert {one.status for one in study.trials()} == {RUNNING}


def test_nothing_is_done_without_room_and_without_anybody_who_waits() -> None:
    assert scheduler().next([], room=False) is None


def test_the_gain_is_the_hypervolume_that_is_added() -> None:
    front = np.array([0.5, 0.8]), np.array([5.0, 3.0])
    sure = np.full(3, 1e-9)
    accuracy, speed = np.array([0.9, 0.6, 0.4]), np.array([2.0, 4.0, 4.5])
    gain = expected_gain(np.log(accuracy / (1 - accuracy)), sure, speed, front, worst=(0.1, 1.0), smallest=1e-3)

    def on(scale, one: int | None) -> float:  # type: ignore[no-untyped-def]
        rows = [*zip(*front, strict=True), *([(accuracy[one], speed[one])] if one is not None else [])]
        return area([(-scale(a), -s) for a, s in rows], (-scale(0.1), -1.0))

    for one in range(3):
        shares = [on(scale, one) / on(scale, None) - 1 for scale in (float, lambda a: -np.log(1 - a))]
        assert gain[one] == pytest.approx(np.mean(shares), abs=1e-6)
    assert gain[2] == pytest.approx(0, abs=1e-9)


def test_every_configuration_has_a_row_from_0_to_1_and_names_have_no_order() -> None:
    generator = np.random.default_rng(0)
    drawn = space().draw(generator, [{}] * 200)
    rows = Encoding(space())(drawn)
    assert rows.shape == (200, 1 + 1 + 3 + 1 + 1)
    assert ((rows >= 0) & (rows <= 1)).all()
    assert len({tuple(row) for row in rows.tolist()}) == len({str(values) for values in drawn})
    assert all(("mixing.size" in values) == (values["mixing"] == "shift") for values in drawn)


def test_of_very_many_that_wait_the_last_measured_are_not_forgotten() -> None:
    """They promised most, or nobody would have measured them."""
    study = create_study(InMemoryStorage(), "aware", SPACE)
    drawn = {str(values): values for values in space().draw(np.random.default_rng(0), [{}] * 600)}.values()
    *many, last = list(drawn)[: _MOST_WAITING + 50]
    for values in many:
        trial = study.claim(space().proposal(values), command="", target=9999)
        assert trial
        study.finish(trial, trained(trial.proposal.overrides, 1))
    slow = study.claim(space().proposal(last), command="", target=9999)
    assert slow
    study.finish(slow, replace(trained(slow.proposal.overrides, 0), cost=cost(1e-3)))
    columns = columns_of(study.trials())
    new = (columns["row"] > columns["row"][columns["teaches"]].max()) & (columns["epochs"] == 0)
    assert new.sum() == 1
    for seed in range(5):
        considered = _considered(list(range(len(columns))), new, columns, np.random.default_rng(seed))
        assert len(considered) == len(set(considered)) == _MOST_WAITING
        assert len(columns) - 1 in considered
    assert _considered([3, 5], new, columns, np.random.default_rng(0)) == [3, 5]
