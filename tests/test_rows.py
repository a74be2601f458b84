"""What is read again and again is what one would read anew: rows, the last stretch of each trial, and their columns."""

import gc
from tempfile import TemporaryDirectory

import pytest
from filled_studies import cost, curve
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial

from explore.evaluation import COMPLETE, DIVERGED, INTERRUPTED, RUNNING, STOPPED, Evaluation
from explore.search.columns import Known, columns_of
from explore.search.remembered import Database, behind, trials_from
from explore.search.storage import open_storage
from explore.search.study import Study, create_study
from explore.search.trial import Proposal, Trial, read

# What a worker does next: with which of those that could be taken, and how it ends.
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "go on", "withdraw", "end", "end", "give up"]),
        st.integers(0, 50),
        st.sampled_from([COMPLETE, STOPPED, DIVERGED, INTERRUPTED]),
    ),
    max_size=30,
)


def evaluation(status: str, which: int) -> Evaluation:
    learned = curve(0.5 + which / 200) if status == COMPLETE or which % 2 else ()
    return Evaluation(status=status, cost=cost(100.0 + which) if learned else None, curve=learned)


def act(study: Study, kind: str, which: int, status: str, claimed: int) -> None:
    trials = study.trials()
    running = [trial for trial in trials if trial.status == RUNNING]
    resting = [trial for trial in trials if trial.status in (STOPPED, INTERRUPTED)]
    if kind == "end" and running:
        study.finish(running[which % len(running)], evaluation(status, which))
    elif kind == "give up" and resting:
        study.give_up(resting[which % len(resting)])
    elif kind in ("begin", "go on", "withdraw"):
        taken = resting[which % len(resting)] if resting and kind == "go on" else None
        values = taken.proposal.values if taken else {"x": claimed}
        proposal = Proposal(values=values, distributions={"x": IntDistribution(0, 999)}, overrides=[])
        study.claim(proposal, command="", target=0 if kind == "withdraw" else 999, continues=taken)


def naive(rows: list[Trial]) -> list[int]:
    continued = {row.continues for row in rows}
    return [row.row for row in sorted(rows, key=lambda row: row.number) if row.row not in continued]


@given(actions=ACTIONS)
def test_a_study_that_grows_reads_what_one_opened_anew_reads(actions: list[tuple[str, int, str]]) -> None:
    assert_reads_the_same(InMemoryStorage(), actions)


@settings(max_examples=10)
@given(actions=ACTIONS)
def test_so_does_one_in_a_database(actions: list[tuple[str, int, str]]) -> None:
    with TemporaryDirectory() as folder:
        storage = open_storage(f"sqlite:///{folder}/study.db")
        assert_reads_the_same(storage, actions)
        assert isinstance(storage, Database)
        assert_lacks_nothing(storage, open_storage(f"sqlite:///{folder}/study.db"))
        storage._backend.engine.dispose()


def assert_lacks_nothing(storage: Database, anew: BaseStorage) -> None:
    """Whoever knows the trials up to some row, but for some of them, is told just what Optuna would tell."""
    everyone = anew.get_all_trials(1)
    for last in (-1, *(trial._trial_id for trial in everyone)):
        assert trials_from(storage, 1, last + 1) == everyone[last + 1 :]
        for unfinished in ([], [trial._trial_id for trial in everyone][::2]):
            lacking = [one for one in everyone if one._trial_id > last or one._trial_id in unfinished]
            assert storage.news(1, last, unfinished) == lacking


def assert_reads_the_same(storage: BaseStorage, actions: list[tuple[str, int, str]]) -> None:
    known = Known()
    study = create_study(storage, "s", {"space": {}})
    for claimed, (kind, which, status) in enumerate(actions):
        act(study, kind, which, status, claimed)
        trials = study.trials()
        assert trials == Study(storage, "s").trials()
        assert [trial.row for trial in trials] == naive(study.stretches())
        for key in {trial.proposal.key for trial in trials}:
            alike = [trial.row for trial in trials if trial.proposal.key == key]
            assert sorted(trial.row for trial in study._rows.alike(key)) == sorted(alike)
        assert str(known.columns(trials).tolist()) == str(columns_of(trials).tolist())
        assert known.keys == [trial.proposal.key for trial in trials]
    ended = [trial for trial in study.trials() if trial.status not in (RUNNING, INTERRUPTED)]
    assert all(before is now for before, now in zip(study.trials(), study.trials(), strict=True) if before in ended)


@pytest.mark.parametrize(("many", "frozen"), [(5, True), (6, False)])
def test_a_long_study_is_not_looked_through_for_garbage(
    many: int, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it is read nor afterwards; what is made meanwhile by others is looked through again."""
    monkeypatch.setattr("explore.search.rows._MANY", many)
    asked: list[bool] = []
    monkeypatch.setattr("explore.search.rows.read", lambda one: (asked.append(gc.isenabled()), read(one))[1])
    storage = InMemoryStorage()
    study = create_study(storage, "s", {"space": {}})
    for number in range(5):
        act(study, "begin", 0, COMPLETE, number)
        act(study, "end", 0, COMPLETE, number)
    asked.clear()
    gc.unfreeze()
    try:
        assert len(Study(storage, "s").trials()) == 5
        assert (gc.get_freeze_count() > 0) == frozen
    finally:
        gc.unfreeze()
    assert asked == [False] * 5
    assert gc.isenabled()


def test_whoever_ends_the_reading_of_a_study_reads_it_again_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C, after which a search still looks at it."""
    storage = InMemoryStorage()
    study = create_study(storage, "s", {"space": {}})
    for number in range(6):
        act(study, "begin", 0, COMPLETE, number)
        act(study, "end", 0, COMPLETE, number)
    anew, left = Study(storage, "s"), [4]

    def interrupted(frozen: FrozenTrial) -> Trial:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return read(frozen)

    monkeypatch.setattr("explore.search.rows.read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        anew.trials()
    assert anew.trials() == study.trials()
    assert anew.stretches() == study.stretches()


def test_one_that_another_thread_made_before_those_below_were_read_is_left_for_the_next_time() -> None:
    assert behind({0: "a", 1: "b", 3: "d"}, 1) == ["b"]  # type: ignore[dict-item]
    assert behind({0: "a", 1: "b", 2: "c"}, 1) == ["b", "c"]  # type: ignore[dict-item]
