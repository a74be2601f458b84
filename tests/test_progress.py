"""The anytime curve: what the front was worth never falls, and every epoch counts once, at the time when it was
trained, however often its trial was stopped, interrupted and taken up again and whoever trained beside it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from filled_studies import TEMPLATE, add, cost, fabricated, new_study
from hypothesis import given
from hypothesis import strategies as st
from test_stopping import curve

from explore.evaluation import COMPLETE, DIVERGED, INTERRUPTED, RUNNING, STOPPED, Evaluation
from explore.reporting.progress import front_hypervolume, progress
from explore.search.trial import Trial, front

BEGAN = datetime(2026, 1, 1)
points = st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(1.0, 1e6)), max_size=30)


def stretch(
    number: int, row: int, begin: float, end: float, epochs: int, status: str = STOPPED, continues: int | None = None
) -> Trial:
    """Ends with so many epochs, one a second, at the second `end`; `seconds` are those of its own work."""
    evaluation = Evaluation(
        status=status,
        cost=cost(100.0 - number),
        curve=curve(*[0.5 + number / 100] * epochs),
        seconds={"cost": 0.5, "train": float(epochs)} if status not in (INTERRUPTED, RUNNING) else {},
    )
    times = {"started": BEGAN + timedelta(seconds=begin), "ended": BEGAN + timedelta(seconds=end)}
    times |= {"ended": None} if status == RUNNING else {}
    return replace(TEMPLATE, number=number, row=row, continues=continues, evaluation=evaluation, **times)


def spent(trials: Sequence[Trial], stretches: Sequence[Trial]) -> list[tuple[int, int, float]]:
    columns = progress(trials, stretches)[["trial", "epochs", "seconds"]]
    return list(columns.itertuples(index=False, name=None))


def test_hypervolume_of_a_known_front() -> None:
    study = new_study()
    add(study, 0.5, 100.0)
    add(study, status=DIVERGED, reason="loss nan")
    add(study, 0.8, 100.0 * math.e)
    rows = progress(study.trials(), study.stretches())
    assert list(rows["hypervolume"]) == pytest.approx([0.0, 0.0, 0.8])
    assert list(rows["epochs"]) == [3, 3, 6]
    assert list(rows["seconds"]) == [4.5, 4.5, 9.0]
    assert front_hypervolume(study.trials()) == pytest.approx(0.8)


@given(points)
def test_hypervolume_never_shrinks_and_ignores_what_others_beat(found: list[tuple[float, float]]) -> None:
    trials = fabricated(found)
    volumes = list(progress(trials, trials)["hypervolume"])
    assert volumes == sorted(volumes)
    assert len(volumes) == len(found)
    assert front_hypervolume(trials) == pytest.approx(volumes[-1] if found else 0.0)
    if found:
        slowest = min(trials, key=lambda trial: trial.throughput or 0.0)
        decisive = {trial.number: trial for trial in [*front(trials), slowest]}
        assert front_hypervolume(list(decisive.values())) == pytest.approx(volumes[-1])


def test_an_empty_study_has_no_progress() -> None:
    assert progress([], []).empty
    assert front_hypervolume([]) == 0.0


def test_a_trial_that_goes_on_counts_at_the_times_when_it_was_trained() -> None:
    first = stretch(0, 0, 0, 2, 1)
    other = stretch(1, 1, 2, 12, 9, COMPLETE)
    went_on = replace(stretch(0, 2, 12, 20.5, 9, COMPLETE), continues=0)
    went_on = replace(went_on, evaluation=replace(went_on.evaluation, seconds={"cost": 1.0, "train": 9.0}))
    assert spent([went_on, other], [first, other, went_on]) == [(1, 10, 11.0), (0, 18, 19.5)]


def test_workers_beside_one_another_count_as_far_as_they_have_come() -> None:
    slow, quick = stretch(0, 0, 0, 10, 9, COMPLETE), stretch(1, 1, 1, 4, 3)
    # When the quick one ends, the slow one has three of nine epochs behind it: they ended in seconds 2, 3 and 4.
    assert spent([slow, quick], [slow, quick]) == [(1, 6, 7.0), (0, 12, 13.0)]


def test_what_was_done_again_after_an_interruption_counts_once() -> None:
    rung = stretch(0, 0, 0, 4, 3)
    silent = stretch(0, 1, 5, 6, 0, INTERRUPTED, continues=0)  # before it reported anything
    killed = stretch(0, 2, 7, 10, 5, INTERRUPTED, continues=1)
    last = stretch(0, 3, 20, 30, 9, COMPLETE, continues=2)
    assert spent([last], [rung, silent, killed, last])[0][1] == 9


def test_a_trial_that_still_runs_counts_nothing_yet() -> None:
    done, running = stretch(0, 0, 0, 4, 3, COMPLETE), stretch(1, 1, 0, 9, 2, RUNNING)
    assert spent([done, running], [done, running]) == [(0, 3, 3.5)]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=12), st.integers(1, 3))
def test_in_the_end_every_epoch_was_counted(trials: list[list[int]], workers: int) -> None:
    """Trials whose stretches have these epochs each, dealt out to workers that do one after another."""
    stretches, clocks, ended = list[Trial](), [0.0] * workers, dict[int, Trial]()
    for number, lengths in enumerate(trials):
        epochs, worker = 0, number % workers
        for length in lengths:
            epochs += length
            before = ended.get(number)
            now = stretch(number, len(stretches), clocks[worker], clocks[worker] + length + 0.5, epochs)
            clocks[worker] += length + 0.5
            ended[number] = replace(now, continues=before.row if before else None)
            stretches.append(ended[number])
    counted = progress(list(ended.values()), stretches)
    assert counted["epochs"].is_monotonic_increasing
    assert counted["epochs"].iloc[-1] == sum(map(sum, trials))
