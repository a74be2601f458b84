"""A veto puts off who is unlikely to come to the front, and changes its mind when curves do. It neither ends a search
sooner nor keeps a worker waiting.

python -m pytest tests/test_veto.py
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from scipy.special import expit
from test_search_replay import TABLE
from test_stopping import RUNGS, trial

from benchmarks.search_replay import replay, sampled
from benchmarks.search_rows import Rows
from explore.checks import check_options
from explore.config import compose
from explore.evaluation import COMPLETE, STOPPED, Evaluation, Report
from explore.search.options import Stopping
from explore.search.proposals import Proposer
from explore.search.savings import savings
from explore.search.schedule import Rungs, Scheduler, Step
from explore.search.space import parse_space
from explore.search.stopping import Ladder
from explore.search.study import Study, create_study
from explore.search.trial import Trial
from explore.search.veto import Veto, to_beat
from explore.search.worker import Worker

SPACE = {"width": "range(1, 41)", "mixing": "choice(good, bad, late)"}
# Logits of the accuracy after the first epoch, and how far they rise.
LEVEL, RISE = {"good": 1.0, "bad": -1.0, "late": -2.0}, {"good": 1.0, "bad": 1.0, "late": 6.0}
points = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=12)


def veto(below: float = 0.05) -> Veto:
    return Veto(parse_space(SPACE), last=RUNGS[-1], classes=10, smallest=1e-3, below=below)


def learned(width: int, mixing: str, epochs: int = RUNGS[-1]) -> Trial:
    """A trial whose number is its width: wide is slow and accurate."""
    rising = np.log(np.arange(1, epochs + 1)) / np.log(RUNGS[-1])
    accuracies = expit(LEVEL[mixing] + width / 20 + RISE[mixing] * rising).tolist()
    found = trial(width, 1000 / width, *accuracies, status=COMPLETE if epochs == RUNGS[-1] else STOPPED)
    return replace(found, proposal=parse_space(SPACE).proposal({"width": width, "mixing": mixing}))


DONE = [learned(width, "bad" if width % 4 == 0 else "good") for width in range(8, 24, 2)]


@given(points, points)
def test_to_beat_is_the_best_of_those_at_least_as_fast(
    one: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    ends, speeds = np.array(one, float).T
    speed = np.array(asked, float)[:, 1]
    by_hand = [max((end for end, other in one if other >= mine), default=-np.inf) for mine in speed]
    assert to_beat(speed, speeds, ends).tolist() == by_hand


def test_with_nothing_complete_it_says_nothing() -> None:
    waiting = [learned(3, "bad", 1), learned(4, "good", 1)]
    assert veto(0.99).first(waiting, waiting) == (waiting[0], None)
    assert veto(0.99).first([], waiting) is None


def test_who_is_unlikely_to_be_the_best_of_its_speed_waits_and_who_is_faster_than_all_goes_on() -> None:
    hopeless, hopeful, fastest = learned(13, "bad", 1), learned(24, "good", 1), learned(3, "bad", 1)
    trials = [*DONE, hopeless, hopeful, fastest]
    assert veto().first([hopeless], trials) is None
    for others in ([hopeful, fastest], [fastest, hopeful]):
        found = veto().first([hopeless, *others], trials)
        assert found is not None
        assert found[0] is others[0]
    expected = found[1]
    assert expected == pytest.approx(learned(3, "bad").accuracy, abs=0.05)


def test_it_changes_its_mind_when_others_like_it_turn_out_better() -> None:
    waits = learned(38, "late", 1)
    assert veto().first([waits], [*DONE, waits]) is None
    late = [learned(width, "late") for width in (5, 15, 25)]
    found = veto().first([waits], [*DONE, waits, *late])
    assert found is not None
    assert found[0] is waits


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(LEVEL)), st.booleans()), min_size=2, max_size=30), st.randoms())
def test_the_more_it_asks_the_later_is_who_goes_on(found: list[tuple[str, bool]], random) -> None:
    trials = [learned(width, mixing, RUNGS[-1] if ended else 1) for width, (mixing, ended) in enumerate(found, 1)]
    waiting = [one for one in trials if one.status == STOPPED]
    random.shuffle(waiting)
    places = []
    for below in (1e-9, 0.05, 0.5, 0.95):
        first = veto(below).first(waiting, trials)
        places.append(waiting.index(first[0]) if first else len(waiting))
    assert places == sorted(places)


class Trainings:
    """What training would find."""

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        values = dict(one.split("=") for one in overrides)
        return learned(int(values["width"]), values["mixing"], until).evaluation


def searched(target: int, below: float | None, study: Study | None = None) -> tuple[Study, list[str]]:
    """A search, and what was done in each step of it."""
    study, done = study or create_study(InMemoryStorage(), "veto", {}), list[str]()
    against = veto(below) if below else None
    scheduler = Rungs(Proposer(space=parse_space(SPACE), sampler="random", seed=1), RUNGS, 3, against)
    decide = scheduler.next

    def noted(trials: Sequence[Trial], *, room: bool) -> Step | None:
        step = decide(trials, room=room)
        done.append("nothing" if step is None else "goes on" if step.continues else "begins")
        return step

    scheduler.next = noted  # type: ignore[method-assign]
    Worker(study=study, scheduler=scheduler, evaluate=Trainings(), target=target, output=Path("out")).run()
    return study, done


@pytest.mark.parametrize("below", [None, 0.05, 0.999])
@pytest.mark.parametrize("target", [1, 18, 120])
def test_a_search_with_it_ends_when_nobody_may_go_on(target: int, below: float | None) -> None:
    """Also where it is against all, and where the space has no more."""
    study, done = searched(target, below)
    trials = study.trials()
    assert done.index("nothing") == len(done) - 1
    assert done.count("begins") == len(trials) == target
    assert Ladder(RUNGS, 3).promotable(trials) == []


def test_others_are_begun_before_those_that_are_unlikely_to_come_to_the_front() -> None:
    plain, put_off = searched(60, None)[1], searched(60, 0.05)[1]
    last = [len(done) - 1 - done[::-1].index("begins") for done in (plain, put_off)]
    assert last[1] < last[0]


def test_how_well_the_end_was_foreseen_is_known() -> None:
    saved = savings(searched(60, 0.05)[0].trials())
    assert saved is not None
    assert saved.predictions
    assert saved.foreseen is not None
    assert saved.foreseen < 0.05


def test_workers_decide_alike_from_the_study_alone() -> None:
    """Whoever comes anew, and whoever has seen it grow."""
    study, _ = searched(40, 0.05)
    trials = study.trials()
    kept = veto()
    for count in range(10, 41, 5):
        waiting = [one for one in trials[:count] if one.status == STOPPED]
        seen, anew = kept.first(waiting, trials[:count]), veto().first(waiting, trials[:count])
        assert (seen and seen[0].number) == (anew and anew[0].number)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("below", [0.05, 0.999])
def test_no_worker_waits_for_ever(workers: int, below: float) -> None:
    def scheduler(rows: Rows) -> Scheduler:
        return sampled(rows, "random", 0, 6, (1, 3, 9, 27), below=below)

    finishes = replay(TABLE, scheduler, workers, enough=lambda finishes: False)
    assert 0 < len(finishes) < len(TABLE.overrides)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5.0, "stopping.veto must be a probability below 1, got 5; try 0.05"),
        (1.0, "stopping.veto must be a probability below 1, got 1; try 0.05"),
        (0.0, "stopping.veto must be a probability above 0, or null for no veto, got 0; try 0.05"),
        (-0.1, "stopping.veto must be a probability above 0, or null for no veto, got -0.1; try 0.05"),
    ],
)
def test_what_is_no_probability_is_refused(given: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stopping(veto=given).check()
    Stopping(veto=0.05).check()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [],
            "stopping.veto has an effect where ranks decide at the rungs, got 0.05 and sampler=speed_aware, which "
            "decides by a model of its own; leave it out, or take sampler=tpe",
        ),
        (
            ["sampler=tpe", "stopping.rule=off"],
            "stopping.veto needs candidates that wait at a rung, got 0.05 and stopping.rule=off; leave it out, or have "
            "them wait",
        ),
        (
            ["sampler=tpe", "training.epochs=1"],
            "stopping.veto needs candidates that wait at a rung, got 0.05 and stopping.min_epochs=1 of "
            "training.epochs=1; leave it out, or have them wait",
        ),
        (["sampler=paired"], "an ablation trains every arm to the end with the same seeds, got stopping.veto=0.05"),
    ],
)
def test_a_veto_without_effect_is_refused(overrides: list[str], message: str) -> None:
    given = ["+sweep=smoke", "training.epochs=9", "stopping.veto=0.05", *overrides]
    with pytest.raises(ValueError, match=re.escape(message)):
        check_options(compose(given), given)
    if overrides != ["sampler=paired"]:
        without = [*given, "stopping.veto=null"]
        check_options(compose(without), without)


def test_a_veto_with_an_effect_is_not_refused() -> None:
    for sampler in ("random", "tpe", "nsga2", "grid"):
        given = ["+sweep=smoke", "training.epochs=9", "stopping.veto=0.1", f"sampler={sampler}"]
        check_options(compose(given), given)
