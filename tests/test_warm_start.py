"""What comes first is begun first, once, in its order, however often the search is stopped; what an earlier study found
is known from the first proposal on; numbers move to the nearest value of the space."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filled_studies import cost
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from test_speed_aware import RUNGS, Trainings, hypervolume, scheduler, searched, space

from explore.evaluation import STOPPED
from explore.search.proposals import Proposer
from explore.search.schedule import Rungs, Scheduler
from explore.search.space import parse_space
from explore.search.study import Study, create_study
from explore.search.trial import Proposal, Trial, candidates
from explore.search.warm_start import First, teaching
from explore.search.worker import Stopped, Worker

NUMBERS = {
    "width": "choice(8, 16, 32, 64, 128)",
    "factor": "choice(0.5, 1.0, 2.0)",
    "shift": "choice(-1, 0, 2)",
    "depth": "range(1, 10, 2)",
    "steps": "int(tag(log, interval(1, 64)))",
    "lr": "tag(log, interval(1e-3, 1e-1))",
}


@settings(max_examples=40)
@given(st.fixed_dictionaries(dict.fromkeys(NUMBERS, st.floats(-1e3, 1e3) | st.integers(-1000, 1000))))
def test_numbers_move_to_the_nearest_value_of_the_space(wanted: dict[str, float]) -> None:
    ours = parse_space(NUMBERS)
    found = ours.nearest(wanted)
    grid = {"width": (8, 16, 32, 64, 128), "factor": (0.5, 1.0, 2.0), "shift": (-1, 0, 2), "depth": range(1, 10, 2)}
    grid["steps"] = range(1, 65)
    for key, allowed in grid.items():
        ratio = min(allowed) > 0 and wanted[key] > 0 and key in ("width", "factor")

        def away(value: float, key: str = key, ratio: bool = ratio) -> float:
            return abs(math.log(value / wanted[key])) if ratio else abs(value - wanted[key])

        assert found[key] in allowed
        assert away(found[key]) == pytest.approx(min(map(away, allowed)))
    assert found["lr"] == min(max(wanted["lr"], 1e-3), 1e-1)
    assert ours.nearest(found) == found


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_what_is_in_the_space_stays_as_it_is(seed: int) -> None:
    (drawn,) = space().draw(np.random.default_rng(seed), [{}])
    assert space().nearest(drawn) == drawn
    assert [type(value) for value in space().nearest(drawn).values()] == [type(value) for value in drawn.values()]


def test_names_stay_and_what_has_no_place_is_refused() -> None:
    ours = parse_space({"mixing": "choice(mlp, s2)", "flag": "choice(true, false)", "depth": "range(1, 4)"})
    wanted = {"mixing": "s2", "flag": False, "depth": 9}
    assert ours.nearest(wanted) == {"mixing": "s2", "flag": False, "depth": 3}
    for other, message in (
        ({"mixing": "wave"}, "mixing must be one of mlp, s2, got wave"),
        ({"flag": 1}, "flag must be one of True, False, got 1"),
        ({"depth": "two"}, "depth must be a number, got two"),
        ({"depth": True}, "depth must be a number, got True"),
    ):
        with pytest.raises(ValueError, match=message):
            ours.nearest({**wanted, **other})
    assert ours.nearest({**wanted, "depth": None})["depth"] == 2
    with pytest.raises(ValueError, match="depth must be given, got nothing"):
        ours.nearest({"mixing": "s2", "flag": True})


def queue(count: int = 3, seed: int = 99) -> list[Proposal]:
    generator = np.random.default_rng(seed)
    return [
        space().proposal(values, origin=f"mine, line {line}")
        for line, values in enumerate(space().draw(generator, [{}] * count), 1)
    ]


def of_rungs() -> Scheduler:
    return Rungs(Proposer(space=space(), sampler="tpe", startup=4), RUNGS, 3)


def worker(study: Study, then: Scheduler, first: Sequence[Proposal], target: int, **more: Any) -> Worker:
    ours = First(first, then, RUNGS[0])
    return Worker(study, ours, Trainings(), target=target, output=Path("out"), wait=lambda: None, **more)


def begun(study: Study) -> list[str]:
    """In the order of their beginnings, without who was only measured."""
    return [trial.proposal.key for trial in study.trials() if trial.evaluation.epochs]


@pytest.mark.parametrize("then", [of_rungs, scheduler])
def test_they_are_begun_first_in_their_order_and_once(then: Any) -> None:
    study, first = create_study(InMemoryStorage(), "warm", {}), queue()
    worker(study, then(), first, 8).run()
    assert begun(study)[:3] == [one.key for one in first]
    assert [trial.proposal.origin for trial in study.trials()][:3] == ["mine, line 1", "mine, line 2", "mine, line 3"]
    assert {trial.proposal.origin for trial in study.trials()[3:]} == {""}
    assert len(candidates(study.trials())) == 8
    assert len({trial.proposal.key for trial in study.trials()}) == len(study.trials())


@pytest.mark.parametrize("then", [of_rungs, scheduler])
def test_a_search_that_is_stopped_anywhere_goes_on_as_if_it_had_not_been(then: Any) -> None:
    one, other, first = *(create_study(InMemoryStorage(), "warm", {}) for _ in range(2)), queue()
    worker(one, then(), first, 6).run()

    class Once:
        """Leaves after one trial was taken."""

        count = 0

        def __call__(self) -> bool:
            self.count += 1
            return self.count > 1

    for _ in range(100):
        try:
            worker(other, then(), first, 6, stop=Once()).run()
            break
        except Stopped:
            continue
    assert begun(other) == begun(one)


def test_no_more_are_begun_than_there_is_room_for() -> None:
    study, first = create_study(InMemoryStorage(), "warm", {}), queue(6)
    worker(study, of_rungs(), first, 4).run()
    assert begun(study) == [one.key for one in first[:4]]


def test_others_that_are_asked_for_later_come_next() -> None:
    study = create_study(InMemoryStorage(), "warm", {})
    worker(study, scheduler(), [], 4).run()
    measured = next(trial for trial in study.trials() if trial.status == STOPPED and not trial.evaluation.epochs)
    before, again = begun(study), space().proposal(measured.proposal.values)
    first = [*queue(1), again]
    ours = First(first, scheduler(), RUNGS[0])
    step = ours.next(study.trials(), room=True)
    assert step
    assert (step.proposal, step.until) == (first[0], RUNGS[0])
    worker(study, scheduler(), first, 6).run()
    assert set(begun(study)) - set(before) == {one.key for one in first}
    assert len({trial.proposal.key for trial in study.trials()}) == len(study.trials())


@cache
def lessons() -> tuple[Trial, ...]:
    trials = [trial for trial in searched(8, seed=5)[0].trials() if trial.throughput]
    return tuple(teaching(trial, trial.proposal, RUNGS[-1]) for trial in trials)


def measured_before_any_is_trained(earlier: Sequence[Trial]) -> int:
    trainings = Trainings()
    searched(4, trainings, earlier=earlier)
    return [until for _, until in trainings.seen].index(RUNGS[0])


def test_what_an_earlier_study_found_is_known_from_the_first_proposal_on() -> None:
    taught, cold = searched(4, earlier=lessons())[0], searched(4)[0]
    assert hypervolume(taught.trials()) > hypervolume(cold.trials())
    assert measured_before_any_is_trained(()) == 8
    assert measured_before_any_is_trained(lessons()) <= 4
    assert all(trial.number < 0 for trial in lessons())
    assert all(trial.number >= 0 for trial in taught.trials()), "the trials that taught it are not its own"


@pytest.mark.slow
def test_of_speeds_that_were_measured_elsewhere_only_the_accuracies_count() -> None:
    def at(trial: Trial, speed: float) -> Trial:
        return replace(trial, evaluation=replace(trial.evaluation, cost=cost(speed * (trial.throughput or 0))))

    def accuracies(factor: float) -> list[str]:
        return begun(searched(6, elsewhere=[at(trial, factor) for trial in lessons()])[0])

    assert accuracies(1.0) == accuracies(1000.0)
    assert accuracies(1.0) != begun(searched(6)[0])
