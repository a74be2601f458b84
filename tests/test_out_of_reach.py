"""A search for more speed than its space has ends in words, and one for what few configurations have does not."""

from pathlib import Path

import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from test_speed_aware import SPACE, Refusing, known, reached_by, scheduler, space

from explore.evaluation import REFUSED
from explore.search.study import create_study
from explore.search.worker import Worker


def limited(asked: float, **more: object) -> Worker:
    """A worker that has searched for what is as fast as is asked for."""
    study = create_study(InMemoryStorage(), "aware", SPACE)
    ours = scheduler(**{"least_throughput": asked, "startup": 8, "fewest": 20} | more)
    worker = Worker(study, ours, Refusing(asked), target=24, output=Path("out"), wait=lambda: None)
    worker.run()
    return worker


def test_a_search_ends_where_nothing_seems_to_be_as_fast_as_is_asked_for() -> None:
    worker = limited(1e12)
    trials = worker.study.trials()
    assert len(trials) == 8
    fastest = max(one.throughput or 0 for one in trials)
    assert worker.ended == (
        "It ended after 8 candidates: no configuration of the space seems to reach limits.throughput="
        f"1,000,000,000,000; the fastest measured has {fastest:,.0f} images/s."
    )
    # What somebody else finds that is fast enough gives it something to do again.
    known(worker.study, space().draw(np.random.default_rng(9), [{}])[0], 2e12)
    assert worker.scheduler.next(worker.study.trials(), room=True)
    assert worker.scheduler.ended == ""


def test_nor_before_enough_were_measured_nor_where_it_may_not_end_by_itself() -> None:
    assert len(limited(1e12, startup=12).study.trials()) == 12
    assert len(limited(1e12, fewest=None).study.trials()) == 24


@pytest.mark.parametrize("share", [1 / 30, 1 / 100])
def test_it_does_not_end_where_one_in_many_is_as_fast_as_is_asked_for(share: float) -> None:
    """Nor do the first eight that are measured, all too slow, end it."""
    for seed in range(3):
        worker = limited(reached_by(share), seed=seed)
        assert {one.status for one in worker.study.trials()} != {REFUSED}
        assert "seems to reach" not in worker.ended
