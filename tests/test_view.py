"""The counts that a terminal shows are right at every moment, and the count of trials never falls.

Who goes on from a rung has ended before, and is running again.
"""

import io
import json
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from filled_studies import add, new_study
from optuna.storages import InMemoryStorage
from rich.console import Console
from test_stopping import RUNGS, Trainings, trial

from explore.cost.record import Cost
from explore.evaluation import COMPLETE, FAILED, INTERRUPTED, REFUSED, RUNNING, STOPPED, Epoch, Evaluation
from explore.search import study as study_module
from explore.search.owner import start_time, this_process
from explore.search.proposals import Proposer
from explore.search.schedule import Rungs
from explore.search.space import parse_space
from explore.search.study import Study, create_study
from explore.search.trial import Trial, finished
from explore.search.worker import Worker
from explore.view import Company, JsonView, LiveView, PlainView

TARGET = 18


class Moments:
    """An observer that keeps what the study held whenever something happened."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.found: list[list[Trial]] = []

    def begin(self, trial: Trial) -> None:
        self.found.append(self.study.trials())

    def report(self, item: Cost | Epoch) -> None:
        pass

    def end(self, trial: Trial, evaluation: Evaluation) -> None:
        self.found.append(self.study.trials())


@cache
def moments() -> list[list[Trial]]:
    """A search with rungs, in which candidates are stopped and go on."""
    space = {"width": "range(1, 19)"}
    study = create_study(InMemoryStorage(), "rungs", space)
    observer, proposer = Moments(study), Proposer(space=parse_space(space), sampler="random", seed=1)
    scheduler, trainings = Rungs(proposer, RUNGS, eta=3), Trainings()
    Worker(
        study=study, scheduler=scheduler, evaluate=trainings, target=TARGET, output=Path("out"), observer=observer
    ).run()
    return observer.found


class Screen:
    """What a terminal shows after each update."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=True, color_system=None, width=200, height=60)
        self.view = LiveView("rungs", TARGET, console)

    def after(self, trials: Sequence[Trial]) -> str:
        before = len(self.file.getvalue())
        self.view.update(trials)
        return self.file.getvalue()[before:]


def test_the_live_counts_are_right_and_never_fall() -> None:
    screen, ended, shown = Screen(), set[int](), []
    found = moments()
    with screen.view:
        for trials in found:
            text = screen.after(trials)
            ended |= {one.number for one in finished(trials)}
            shown.append(int(re.search(rf"(\d+)/{TARGET}\b", text)[1]))  # type: ignore[index]
            assert shown[-1] == len(ended)
            for status in (RUNNING, STOPPED):
                count = sum(one.status == status for one in trials)
                assert re.findall(rf"(\d+) {status}", text) == ([str(count)] if count else [])
    assert shown == sorted(shown)
    assert shown[-1] == TARGET
    # Otherwise the test would prove nothing: somebody who had ended was running again.
    numbers = [len(finished(trials)) for trials in found]
    assert numbers != sorted(numbers)


def test_the_plain_count_never_falls(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView("rungs", TARGET)
    for trials in moments():
        view.update(trials)
    shown = [int(count) for count in re.findall(rf"\[(\d+)/{TARGET}\]", capsys.readouterr().out)]
    assert shown == sorted(shown)
    assert shown[-1] == TARGET


def test_a_line_says_one_epoch_and_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView("rungs", 2)
    view.update([])
    view.update([trial(0, 100.0, 0.5), replace(trial(1, 100.0, 0.4, 0.5), row=1)])
    first, second = capsys.readouterr().out.splitlines()
    assert "  1 epoch   val  50.0 %" in first
    assert "  2 epochs  val  50.0 %" in second
    assert first.index("img/s") == second.index("img/s")


def test_who_was_only_measured_is_not_counted_as_stopped() -> None:
    trials = [
        trial(0, 100.0, 0.5, 0.6, 0.7, status=COMPLETE),
        trial(1, 90.0, 0.4),
        trial(2, 80.0),
        trial(3, 70.0),
        trial(4, 60.0, status=RUNNING),
        trial(5, 50.0, 0.3, status=INTERRUPTED),
        trial(6, 40.0, status=FAILED),
    ]
    screen = Screen()
    with screen.view:
        text = screen.after(trials)
    assert f"3/{TARGET}" in text
    assert "1 running  1 stopped  2 measured  1 failed" in text


def test_the_screen_says_what_was_saved_so_far() -> None:
    screen, first = Screen(), [trial(0, 100.0, 0.5, status=RUNNING)]
    with screen.view:
        assert "trained" not in screen.after(first)
        first = [*first, replace(trial(1, 90.0, 0.4), row=1)]
        assert "2 epochs were trained; stopped: 1 after 1 epoch." in screen.after(first)
        later = [trial(0, 100.0, 0.5, 0.6, 0.7, status=COMPLETE), *first[1:]]
        saved = "4 of 6 epochs were trained, 33% saved (about 2 s); stopped: 1 after 1 epoch."
        assert saved in screen.after(later)


def test_the_end_in_json_says_what_was_saved(capsys: pytest.CaptureFixture[str]) -> None:
    def saved(*trials: Trial) -> object:
        JsonView("pareto", 5).conclude(trials, {}, Path("report.html"), ended="", go_on=None)
        return json.loads(capsys.readouterr().out)["savings"]

    whole = trial(0, 100.0, 0.5, 0.6, 0.7, status=COMPLETE)
    assert saved(whole) is None
    assert saved(whole, trial(1, 90.0, 0.4)) == {
        "epochs": 4,
        "epochs_saved": 2,
        "seconds_saved": 2.0,
        "stopped": {"1": 1},
        "given_up": 0,
        "foreseen": None,
        "predictions": 0,
    }


def test_what_waits_at_a_rung_is_not_saved_before_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [trial(0, 100.0, 0.5, 0.6, 0.7, status=COMPLETE), trial(1, 90.0, 0.4)]
    for go_on in (None, "python -m explore.sweep"):
        PlainView("pareto", 5).conclude(trials, {}, Path("report.html"), ended="", go_on=go_on)
        assert ("saved" in capsys.readouterr().out) == (go_on is None)


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        (2, COMPLETE, "2 trials are finished: there is none left to train"),
        (1, COMPLETE, "2 trials are finished, and 1 asked for: there is none left to train"),
        (3, COMPLETE, "2 of 3 trials are finished, going on"),
        (2, INTERRUPTED, "1 of 2 trials is finished, going on"),
        (1, INTERRUPTED, "1 of 1 trials is finished, going on"),
    ],
)
def test_a_study_that_is_full_already_says_so(
    target: int, status: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [trial(0, 100.0, 0.5, status=COMPLETE), replace(trial(1, 90.0, 0.4, status=status), row=1)]
    PlainView("pareto", target).update(trials)
    assert capsys.readouterr().out == f"study pareto: {said}\n"
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
    with LiveView("pareto", target, console) as live:
        live.update(trials)
    assert "2/1" not in console.file.getvalue()  # type: ignore[attr-defined]


def shown_at_the_end(study: Study, view: PlainView, capsys: pytest.CaptureFixture[str]) -> str:
    view.conclude(study.trials(), {}, Path("report.html"), ended="", go_on=None)
    return capsys.readouterr().out


def test_a_speed_that_did_not_settle_says_so_wherever_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    study, said = new_study(), "~ did not settle: its interval is wider than asked for"
    plain, screen = PlainView("pareto", 5), Screen()
    plain.update([])
    add(study, 0.9, 21_000.0, settled=True)
    add(study, 0.95, 12_000.0)  # nobody looked
    with screen.view:
        assert "~" not in screen.after(study.trials())
        assert "~" not in shown_at_the_end(study, plain, capsys)
        add(study, 0.99, 7_000.0, settled=False)
        shown = screen.after(study.trials())
    assert ("~7,000" in shown, "~12,000" in shown, "~21,000" in shown, said in shown) == (True, False, False, True)
    plain.update(study.trials())
    lines = capsys.readouterr().out
    assert ("   ~7,000 img/s" in lines, lines.count("~")) == (True, 1)
    shown = shown_at_the_end(study, plain, capsys)
    assert ("~7,000" in shown, said in shown, shown.count("~")) == (True, True, 2)
    found = json.loads(shown_at_the_end(study, JsonView("pareto", 5), capsys))
    assert [one["settled"] for one in found["front"]] == [True, None, False]


def test_speeds_that_could_not_be_told_apart_are_not_said_to_be_equal(capsys: pytest.CaptureFixture[str]) -> None:
    """After too few turns of the comparison nothing is told apart, however far the figures are from each other."""
    trials = [replace(trial(0, 1320.0, *[0.8] * 9, status=COMPLETE), alike=(1,))]
    trials += [replace(trial(1, 1000.0, *[0.9] * 9, status=COMPLETE), alike=(0,))]
    PlainView("pareto", 2).conclude(trials, {}, Path("report.html"), ended="", go_on=None)
    shown = capsys.readouterr().out
    assert "as fast as" not in shown
    assert "speed not told apart from" in " ".join(shown.split())


def test_the_end_says_why_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    study, why = new_study(), "It ended after 1 candidates: none was expected to add anything."
    add(study)
    for view in (PlainView("pareto", 5), JsonView("pareto", 5)):
        view.conclude(study.trials(), {}, Path("report.html"), ended=why, go_on=None)
        shown = capsys.readouterr().out
        assert why in shown
        assert "Go on:" not in shown


def test_the_end_says_why_nothing_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [trial(0, 100.0, status=REFUSED), trial(1, 90.0, status=REFUSED), trial(2, 80.0, status=FAILED)]
    PlainView("pareto", 3).conclude(trials, {}, Path("report.html"), ended="", go_on=None)
    said = "no trial was trained to its end (2 refused, 1 failed); loosen limits. or widen the space"
    assert said in " ".join(capsys.readouterr().out.split())


def test_the_end_says_that_nobody_could_go_on_for_lack_of_room(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [trial(0, 100.0, 0.5, given_up=True), trial(1, 90.0, 0.4, given_up=True)]
    PlainView("pareto", 2).conclude(trials, {}, Path("report.html"), ended="", go_on=None)
    said = " ".join(capsys.readouterr().out.split())
    assert "no trial was trained to its end (2 stopped); give more stopping.disk, and more trials" in said
    assert "2 of them gave up their checkpoints for stopping.disk and cannot go on." in said


def test_who_else_works_on_a_study_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = new_study()
    proposals = [replace(add(study, 0.5, 100.0).proposal, values={"model.depth": 100 + n}) for n in range(6)]

    def claim(number: int, **owner: object) -> None:
        monkeypatch.setattr(study_module, "this_process", lambda: this_process() | owner)
        assert study.claim(proposals[number], command="", target=99)

    company = Company("pareto")
    claim(0)
    claim(1, pid=os.getppid(), started=start_time(os.getppid()))
    claim(2, pid=2**22 + 1, started="1")  # left behind by one that has died
    company.update(study.trials())
    said = capsys.readouterr().err
    assert said == (
        f"explore: process {os.getppid()} on {socket.gethostname()} works on study pareto as well, "
        "and its trials count in it\n"
    )
    claim(3, pid=os.getppid(), started=start_time(os.getppid()))
    claim(4, host="elsewhere", boot="another", pid=7)
    claim(5, host="elsewhere", boot="another", pid=7)
    company.update(study.trials())
    company.update(study.trials())
    assert capsys.readouterr().err.count("explore: process 7 on elsewhere works on study pareto as well") == 1
