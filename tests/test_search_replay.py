"""A replay is the real search on a simulated clock: it counts every epoch once, is judged by test accuracy, and many
workers take less time for the same work."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filled_studies import add, new_study
from test_stopping import trial

from benchmarks.search import bars, far_end
from benchmarks.search_judge import SCALES, Finish, Table, reached
from benchmarks.search_replay import replay, sampled, soonest, speed_aware
from benchmarks.search_rows import Rows
from benchmarks.search_table import space_of
from explore.evaluation import COMPLETE, STOPPED
from explore.search.options import Search
from explore.search.savings import in_words, savings
from explore.search.space import to_overrides

EPOCHS = 27


def table(count: int = 24) -> Table:
    """Made up: wide networks are accurate, slow, and slow to learn."""
    generator, space = np.random.default_rng(0), space_of("digits")
    drawn = {tuple(to_overrides(values)): values for values in space.draw(generator, [{}] * (3 * count))}
    overrides = list(drawn)[:count]
    width = np.array([float(drawn[one]["model.width"]) for one in overrides])
    best = 0.6 + 0.08 * np.log2(width / 8) + 0.01 * generator.random(count)
    learned = 1 - np.exp(-np.arange(1, EPOCHS + 1)[None] / (2 + width[:, None] / 16))
    return Table(
        data="digits",
        overrides=overrides,
        throughput=1e6 / width * (1 + 0.1 * generator.random(count)),
        cost_seconds=np.full(count, 1.0),
        epoch_seconds=width / 50,
        validation=best[:, None] * learned,
        test=best * learned[:, -1],
        smallest_error=0.5 / 359,
    )


TABLE = table()


def searched(name: str, workers: int = 1, rungs: tuple[int, ...] = (1, 3, 9, 27)) -> list[Finish]:
    def scheduler(rows: Rows):  # type: ignore[no-untyped-def]
        return speed_aware(rows, 0, rungs) if name == "speed_aware" else sampled(rows, name, 0, 6, rungs)

    return replay(TABLE, scheduler, workers, enough=lambda finishes: len(finishes) >= 3)


def test_without_rungs_every_finish_costs_its_epochs() -> None:
    finishes = searched("random", rungs=(EPOCHS,))
    assert [one.epochs for one in finishes] == [EPOCHS * (place + 1) for place in range(3)]
    assert len({one.configuration for one in finishes}) == 3


@pytest.mark.slow
def test_many_workers_take_less_time() -> None:
    alone, together = searched("speed_aware"), searched("speed_aware", workers=4)
    assert together[2].seconds < alone[2].seconds
    for finishes in (alone, together):
        assert len({one.configuration for one in finishes}) == len(finishes)
        seconds = [one.seconds for one in finishes]
        assert seconds == sorted(seconds)


@pytest.mark.slow
def test_a_replay_repeats_itself() -> None:
    assert searched("speed_aware", workers=3) == searched("speed_aware", workers=3)


def test_the_whole_table_has_the_whole_hypervolume() -> None:
    finishes = [Finish(row, row + 1, float(row)) for row in range(len(TABLE.overrides))]
    for scale in SCALES:
        progress = TABLE.progress([one.configuration for one in finishes], scale)
        assert (np.diff(progress) >= 0).all()
        assert progress[-1] == pytest.approx(1)
        end = reached(TABLE, finishes, scale, 0.9)
        assert end is not None
        assert progress[end.configuration] >= 0.9
        assert reached(TABLE, finishes[:0], scale, 0.9) is None


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_no_search_is_sooner_than_a_worker_for_each_candidate(share: float) -> None:
    finishes = searched("random", workers=len(TABLE.overrides), rungs=(EPOCHS,))
    for scale in SCALES:
        end = reached(TABLE, finishes, scale, share)
        assert end is None or soonest(TABLE, scale, share) <= end.seconds + 1e-6
        known = TABLE.cost_seconds + 0.1 + EPOCHS * TABLE.epoch_seconds
        in_time = [row for row in range(len(known)) if known[row] <= soonest(TABLE, scale, share)]
        sooner = [row for row in in_time if known[row] < soonest(TABLE, scale, share)]
        assert TABLE.progress(in_time, scale)[-1] >= share
        assert not sooner or TABLE.progress(sooner, scale)[-1] < share


def test_bars_are_ratios_of_medians() -> None:
    def row(method: str, epochs: float) -> dict[str, object]:
        question = {"data": "digits", "scale": "plain", "share": 0.95, "workers": 1}
        return question | {"method": method, "epochs": epochs, "all": [epochs] * 8}

    fast, slow = bars([row("speed_aware", 50), row("tpe", 250), row("gp", 90)])
    assert (fast["value"], fast["bar"], fast["holds"]) == (5.0, 4.0, True)
    assert (slow["value"], slow["bar"], slow["holds"]) == (1.8, 2.0, False)


def test_at_the_far_end_ours_is_held_against_the_best_of_the_others() -> None:
    def row(method: str, epochs: float) -> dict[str, object]:
        return {"data": "digits", "method": method, "scale": "plain", "share": 0.99, "epochs": epochs}

    [held] = far_end([row("speed_aware", 50), row("tpe", 250), row("gp", 90), row("speed_aware, no rungs", 10)])
    assert (held["value"], held["holds"]) == (1.8, True)
    [missed] = far_end([row("speed_aware", 100), row("tpe", np.inf), row("gp", 90)])
    assert (missed["value"], missed["holds"]) == (0.9, False)
    [never] = far_end([row("speed_aware", np.inf), row("tpe", np.inf)])
    assert never["holds"] is False
    assert far_end([row("speed_aware", 50), row("random, rungs", 40)]) == []


def test_any_method_can_be_held_against() -> None:
    """Bars are for ours alone; means are of those pairs that both arrived."""

    def row(method: str, epochs: list[float]) -> dict[str, object]:
        question = {"data": "digits", "scale": "plain", "share": 0.95, "workers": 1}
        return question | {"method": method, "epochs": float(np.median(epochs)), "all": epochs}

    plain, other = row("tpe", [100.0] * 9), row("gp", [50.0] * 4 + [200.0] * 4 + [np.inf])
    [compared] = bars([plain, other], "tpe")
    assert (compared["value"], compared["bar"], compared["holds"], compared["arrived"]) == (2.0, None, None, 8)
    assert compared["mean"] == pytest.approx(1.0)
    assert compared["name"] == "digits, plain: epochs to 95 % by gp / tpe"


def test_what_was_saved_is_counted() -> None:
    whole = trial(0, 100.0, *[0.9] * 9, status=COMPLETE)
    trials = [whole, trial(1, 90.0, 0.4), trial(2, 80.0, 0.5, 0.6, 0.7), trial(3, 70.0)]
    saved = savings(trials)
    assert saved is not None
    assert (saved.epochs, saved.epochs_saved, saved.seconds_saved) == (13, 8 + 6, 14.0)
    assert saved.stopped == {0: 1, 1: 1, 3: 1}
    assert "13 of 27 epochs were trained, 52% saved (about 14 s)" in in_words(saved)
    assert "stopped: 1 before training, 1 after 1 epoch, 1 after 3 epochs" in in_words(saved)
    assert savings([whole]) is None


def test_before_anybody_is_complete_it_is_said_what_was_trained_and_who_was_stopped() -> None:
    saved = savings([trial(0, 100.0, 0.4), trial(1, 90.0, 0.4, 0.5, 0.6), trial(2, 80.0)])
    assert saved is not None
    assert (saved.epochs, saved.epochs_saved, saved.seconds_saved) == (4, None, None)
    assert in_words(saved) == "4 epochs were trained; stopped: 1 before training, 1 after 1 epoch, 1 after 3 epochs."
    alone = savings([trial(0, 100.0, 0.4)])
    assert alone is not None
    assert in_words(alone) == "1 epoch was trained; stopped: 1 after 1 epoch."


def test_who_was_given_up_for_lack_of_room_is_counted() -> None:
    def said(*given_up: bool) -> str:
        saved = savings([trial(number, 100.0, 0.4, given_up=one) for number, one in enumerate(given_up)])
        assert saved is not None
        assert saved.given_up == sum(given_up)
        return in_words(saved)

    assert said(False, False) == "2 epochs were trained; stopped: 2 after 1 epoch."
    assert said(True, False).endswith(" 1 of them gave up its checkpoint for stopping.disk and cannot go on.")
    assert said(True, True).endswith(" 2 of them gave up their checkpoints for stopping.disk and cannot go on.")


def test_one_prediction_is_of_one_candidate() -> None:
    whole = replace(trial(0, 100.0, *[0.9] * 3, status=COMPLETE), expected=0.8)
    saved = savings([whole, trial(1, 90.0, 0.4)])
    assert saved is not None
    assert "was foreseen within 10.0 points, for one candidate when its last stretch began." in in_words(saved)


def test_nothing_is_said_of_a_study_where_nobody_was_stopped(tmp_path: Path) -> None:
    study = new_study()
    add(study, 0.9, 1000.0)
    assert {one.status for one in study.trials()} & {STOPPED} == set()
    assert savings(study.trials()) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stop": "never"}, "search.stop must be one of auto, off, got 'never'"),
        ({"startup": 1}, "search.startup must be at least 2, got 1"),
        ({"fewest": 0}, "search.fewest must be at least 1, got 0"),
        ({"tolerance": -0.1}, "search.tolerance must be at least 0, got -0.1"),
    ],
)
def test_a_search_that_cannot_be_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**change).check()  # type: ignore[arg-type]
