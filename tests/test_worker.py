"""The search loop on a table in place of training: it evaluates exactly as many as it should, whatever the evaluator
does and however often it is stopped, alone and in company, and the same seed gives the same search."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filled_studies import cost
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from explore.cluster.local import Crew, in_turn
from explore.cost.record import Cost
from explore.evaluation import COMPLETE, FAILED, INTERRUPTED, REFUSED, RUNNING, Epoch, Evaluation, Report
from explore.faults import Unwritable
from explore.search import patience
from explore.search import worker as worker_module
from explore.search.checkpoints import bring
from explore.search.patience import patient
from explore.search.proposals import Proposer
from explore.search.schedule import Rungs
from explore.search.space import parse_space
from explore.search.storage import open_storage
from explore.search.study import SILENT, Study, create_study
from explore.search.trial import Trial
from explore.search.worker import Stopped, Worker

SPACE = {"width": "range(1, 7)", "depth": "range(1, 7)"}
Evaluate = Callable[[Sequence[str], Path, Report, int], Evaluation]


def table(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
    """What training would find: wide and deep is accurate and slow."""
    size = sum(int(override.partition("=")[2]) for override in overrides)
    found = cost(1000 / size)
    epoch = Epoch(epoch=0, train_loss=1, val_loss=1, val_accuracy=size / 20, lr=0.1, seconds=0)
    report(found)
    report(epoch)
    return Evaluation(status=COMPLETE, cost=found, curve=(epoch,))


def new_study() -> Study:
    return create_study(InMemoryStorage(), "table", SPACE)


def worker(study: Study, evaluate: Evaluate = table, *, target: int = 8, sampler: str = "nsga2", **more: Any) -> Worker:
    proposer = Proposer(space=parse_space(SPACE), sampler=sampler, seed=5, startup=4)
    scheduler = Rungs(proposer, rungs=(1,), eta=3)
    return Worker(study=study, scheduler=scheduler, evaluate=evaluate, target=target, output=Path("out"), **more)


def keys(study: Study) -> list[str]:
    return [trial.proposal.key for trial in study.trials()]


@dataclass
class Diary:
    """Writes down what it is told."""

    lines: list[str] = field(default_factory=list)

    def begin(self, trial: Trial) -> None:
        self.lines.append(f"begin {trial.number}")

    def report(self, item: Cost | Epoch) -> None:
        self.lines.append(type(item).__name__)

    def end(self, trial: Trial, evaluation: Evaluation) -> None:
        self.lines.append(f"end {trial.number} {evaluation.status}")


@dataclass
class Interrupting:
    """Raises `error` in the trial of this number, after its cost and epoch were reported."""

    error: BaseException
    number: int
    folders: list[Path] = field(default_factory=list)

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        self.folders.append(folder)
        result = table(overrides, folder, report, until)
        if len(self.folders) == self.number + 1:
            raise self.error
        return result


def test_a_study_is_filled_to_its_size_and_no_further() -> None:
    study = new_study()
    assert worker(study).run() == 8
    assert worker(study).run() == 0
    assert worker(study, target=11).run() == 3
    assert len(set(keys(study))) == len(keys(study)) == 11
    assert {trial.status for trial in study.trials()} == {COMPLETE}
    again = worker(study, target=11)
    again.run()
    assert again.ended == "The study is full: 11 of 11 trials are done."
    fewer = worker(study, target=9)
    assert fewer.run() == 0
    assert fewer.ended == "The study is full: 11 trials are done, and 9 asked for."


def test_no_trial_is_blamed_for_a_storage_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, away = InMemoryStorage(), False

    class Unreliable:
        def __getattr__(self, name: str) -> Any:
            method = getattr(memory, name)

            def call(*arguments: Any, **named: Any) -> Any:
                if away:
                    raise ConnectionError("nobody there")
                return method(*arguments, **named)

            return call

    def losing(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        nonlocal away
        away = True
        return table(overrides, folder, report, until)

    monkeypatch.setattr(patience, "_PATIENCE_SECONDS", 0)
    study = create_study(patient(Unreliable(), (ConnectionError,), str), "table", SPACE)  # type: ignore[arg-type]
    with pytest.raises(Unwritable, match="the storage does not answer: nobody there; what was found so far is kept"):
        worker(study, losing).run()
    away = False
    assert [trial.status for trial in study.trials()] == [RUNNING]


def test_an_exhausted_space_ends_the_search() -> None:
    study = new_study()
    alone = worker(study, target=100, sampler="random")
    assert alone.run() == 36
    assert len(set(keys(study))) == 36
    assert alone.ended == "The space is exhausted: all 36 possible configurations were tried."


def test_an_exception_is_recorded_with_its_reason_and_the_search_goes_on() -> None:
    study = new_study()
    assert worker(study, Interrupting(MemoryError("out of memory"), 2)).run() == 8
    failed = study.trials()[2]
    assert (failed.status, failed.evaluation.reason) == (FAILED, "MemoryError: out of memory")
    assert failed.evaluation.cost is not None
    assert len(failed.evaluation.curve) == 1
    assert sum(trial.status == COMPLETE for trial in study.trials()) == 7


def test_an_evaluation_that_says_nothing_keeps_what_was_reported() -> None:
    def killed(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        table(overrides, folder, report, until)
        return Evaluation(status=REFUSED, reason="too big", seconds={"cost": 1.0}, constraints={"params": 0.5})

    study = new_study()
    worker(study, killed, target=1).run()
    [trial] = study.trials()
    assert trial.evaluation.cost is not None
    assert trial.accuracy is not None
    assert (trial.evaluation.reason, trial.evaluation.seconds) == ("too big", {"cost": 1.0})
    assert trial.evaluation.constraints == {"params": 0.5}


@pytest.mark.parametrize("order", [Stopped(), KeyboardInterrupt()], ids=repr)
def test_a_stopped_trial_is_gone_on_with_in_its_own_folder(order: BaseException) -> None:
    study = new_study()
    stopped, second = Interrupting(order, 3), Interrupting(order, 99)
    with pytest.raises(type(order)):
        worker(study, stopped).run()
    left = study.trials()[3]
    assert (left.status, left.evaluation.reason) == (INTERRUPTED, "stopped from outside")
    assert len(left.evaluation.curve) == 1
    assert worker(study, second).run() == 5
    assert second.folders[0] == stopped.folders[3] == Path("out/trials/0003")
    successor = study.trials()[3]
    assert (successor.number, successor.row, successor.continues) == (3, 4, 3)
    assert successor.proposal.key == left.proposal.key
    complete = [trial.proposal.key for trial in study.trials() if trial.status == COMPLETE]
    assert len(set(complete)) == len(complete) == 8


def test_a_worker_that_was_told_to_leave_takes_nothing() -> None:
    study = new_study()
    with pytest.raises(Stopped):
        worker(study, stop=lambda: True).run()
    assert study.trials() == []


def test_the_same_seed_gives_the_same_search() -> None:
    one, two = new_study(), new_study()
    worker(one, target=14).run()
    worker(two, target=6).run()
    worker(two, target=14).run()
    assert keys(one) == keys(two)


def test_an_observer_is_told_everything_in_order() -> None:
    diary = Diary()
    worker(new_study(), Interrupting(ValueError("no"), 1), target=2, observer=diary).run()
    first = ["begin 0", "Cost", "Epoch", "end 0 complete"]
    assert diary.lines == [*first, "begin 1", "Cost", "Epoch", "end 1 failed"]


def test_a_fault_of_the_observer_does_not_count_against_the_candidate() -> None:
    class Broken(Diary):
        def begin(self, trial: Trial) -> None:
            raise OSError("disk full")

    study = new_study()
    with pytest.raises(OSError, match="disk full"):
        worker(study, observer=Broken()).run()
    assert [trial.status for trial in study.trials()] == [INTERRUPTED]
    assert worker(study).run() == 8


def test_the_command_of_a_trial_is_kept() -> None:
    study = new_study()
    worker(study, target=1, command_line=" ".join).run()
    [trial] = study.trials()
    assert trial.command == " ".join(trial.proposal.overrides)


@pytest.mark.parametrize(("seconds", "seen"), [(0.0, [1, 1]), (1e9, [0, 1])])
def test_short_epochs_are_recorded_together(seconds: float, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_RECORD_SECONDS", seconds)
    study, lengths = new_study(), []

    def looking(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        result = table(overrides, folder, report, until)
        [running] = study.trials()
        assert running.evaluation.cost == result.cost
        lengths.append(len(running.evaluation.curve))
        return result

    worker(study, looking, target=1).run()
    assert [*lengths, len(study.trials()[0].evaluation.curve)] == seen


def test_the_heart_beats_while_a_trial_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "HEARTBEAT_SECONDS", -1.0)
    study = new_study()
    beats = []

    def checking_in(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        before = study.trials()[0].heartbeat
        alone.check_in()
        beats.append(study.trials()[0].heartbeat - before)
        return table(overrides, folder, report, until)

    alone = worker(study, checking_in, target=1)
    alone.run()
    assert beats[0] > 0


def test_a_worker_leaves_after_the_rung_that_it_trains_for() -> None:
    study = new_study()
    orders: list[str] = []

    def told_meanwhile(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        orders.append("leave")
        return table(overrides, folder, report, until)

    with pytest.raises(Stopped):
        worker(study, told_meanwhile, leave=lambda: bool(orders)).run()
    assert [trial.status for trial in study.trials()] == [COMPLETE]


def test_a_worker_that_was_given_up_leaves_its_trial_to_others_and_takes_another_one() -> None:
    study, diary = new_study(), Diary()

    def given_up(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        if len(study.trials()) == 1:
            [mine] = study.trials()
            other = create_study(study._storage, "table", SPACE)
            other._end(mine, Evaluation(status=INTERRUPTED, reason=SILENT), TrialState.FAIL)
            successor = other.claim(mine.proposal, command="", target=2, continues=other.interrupted()[0])
            assert successor is not None
            assert (successor.number, successor.folder) == (mine.number, "trials/0001")
            other.finish(successor, table(overrides, folder, lambda item: None, until))
        return table(overrides, folder, report, until)

    assert worker(study, given_up, target=2, observer=diary).run() == 2
    first, second = study.trials()
    assert (first.status, second.status) == (COMPLETE, COMPLETE)
    assert first.row == 1
    assert diary.lines[:2] == ["begin 0", "end 0 interrupted"]


def test_a_trial_taken_from_a_silent_worker_goes_on_from_a_copy_of_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "last.ckpt").write_bytes(b"weights")
    bring(tmp_path / "before", tmp_path / "now")
    (tmp_path / "before" / "last.ckpt").write_bytes(b"written by one who was given up")
    assert {path.name: path.read_bytes() for path in (tmp_path / "now").iterdir()} == {"last.ckpt": b"weights"}


def test_what_was_known_stays_known_while_somebody_goes_on_and_dies_of_it() -> None:
    """Who goes on reports the epochs before once more, and may not come to it."""
    study, proposal = new_study(), Proposer(space=parse_space(SPACE)).propose([])
    assert proposal
    epochs = [Epoch(epoch=n, train_loss=1, val_loss=1, val_accuracy=n / 9, lr=0.1, seconds=n) for n in (1, 2, 3)]
    before = Evaluation(status=INTERRUPTED, cost=cost(7.0), curve=tuple(epochs), seconds={"train": 6.0})
    trial = study.claim(proposal, command="", target=1)
    assert trial
    study.finish(trial, before)
    seen: list[Evaluation] = []

    def dying(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        seen.append(study.trials()[0].evaluation)
        report(cost(8.0))
        report(epochs[0])
        seen.append(study.trials()[0].evaluation)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker(study, dying, target=1).run()
    [left] = study.interrupted()
    assert seen == [replace(before, status=RUNNING), replace(before, status=RUNNING, cost=cost(8.0))]
    assert left.evaluation == replace(before, cost=cost(8.0), reason="stopped from outside")


def test_who_was_interrupted_and_does_not_fit_in_any_more_waits_without_a_trace() -> None:
    storage = InMemoryStorage()
    study = create_study(storage, "table", SPACE)
    with pytest.raises(KeyboardInterrupt):
        worker(study, Interrupting(KeyboardInterrupt(), 2), target=3).run()
    assert worker(study, target=2).run() == 0
    everything = storage.get_all_trials(storage.get_study_id_from_name("table"))
    assert len(everything) == 3, "nobody tried to claim it"
    assert [trial.status for trial in study.trials()] == [COMPLETE, COMPLETE, INTERRUPTED]
    assert worker(study, target=3).run() == 1


def work(url: str, turn: Path, place: int, stop: Callable[[], bool] = lambda: False) -> None:
    study = create_study(open_storage(url), "table", SPACE)
    worker(study, target=12, turn=lambda: in_turn(turn), stop=stop).run()


def assert_filled(storage: BaseStorage) -> None:
    study = create_study(storage, "table", SPACE)
    assert len(set(keys(study))) == len(keys(study)) == 12
    assert {trial.status for trial in study.trials()} == {COMPLETE}


def test_workers_in_processes_fill_one_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    context = multiprocessing.get_context("fork")
    # A turn for each, so that nothing but the study itself keeps them apart.
    processes = [context.Process(target=work, args=(url, tmp_path / f"{number}.turn", number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert_filled(open_storage(url))


def test_a_crew_of_threads_fills_one_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    crew = Crew(partial(work, url, tmp_path / ".turn"), 3)
    while crew.working():
        time.sleep(0.05)
    assert crew.lost == []
    assert_filled(open_storage(url))
    withdrawn = [trial for trial in open_storage(url).get_all_trials(1) if "withdrawn" in str(trial.user_attrs)]
    assert withdrawn == []
