"""The main job, end to end: a search that trains, resumes, survives what kills it, and refuses bad input.

python -m pytest tests/test_sweep.py                # what runs every day
python -m pytest tests/test_sweep.py -m slow        # real kills
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

from explore.cluster.isolation import start_server
from explore.command import _run
from explore.evaluation import COMPLETE, FAILED, INTERRUPTED, STOPPED
from explore.search.rivals import compared
from explore.search.storage import find_study, open_study
from explore.search.study import Trial, candidates, finished
from explore.sweep import main

SMOKE = ["+sweep=smoke", "workers=2", "references=[]"]
WHOLE = ["sampler=tpe", "stopping.rule=off"]  # every trial to its last epoch


def sweep(folder: Path, *overrides: str) -> int:
    """Run the command in this process."""
    start_server()
    return _run(main, [*SMOKE, *WHOLE, f"outputs={folder}", *overrides])


def trials_of(folder: Path, study: str = "smoke") -> list[Trial]:
    return open_study(f"sqlite:///{folder}/{study}/study.db", study).trials()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a search of four trials."""
    folder = tmp_path_factory.mktemp("outputs")
    assert sweep(folder, "trials=4") == 0
    return folder


def test_a_search_leaves_a_front_a_page_and_every_trial(searched: Path) -> None:
    output = searched / "smoke"
    front, trials = pd.read_csv(output / "front.csv"), pd.read_csv(output / "trials.csv")
    assert (trials.status == "complete").all()
    assert len(trials) == 4
    assert set(front.trial) <= set(trials.trial)
    assert set(front.trial) <= set(compared(open_study(f"sqlite:///{output}/study.db", "smoke")))
    assert front.throughput.is_monotonic_decreasing
    assert front.val_accuracy.is_monotonic_increasing
    assert front.test_accuracy.between(0, 1).all()
    assert trials[~trials.trial.isin(front.trial)].test_accuracy.isna().all()
    assert {"macs", "params", "command", "model.patch_size", "token_mixing"} <= set(trials)
    assert (output / "front.png").stat().st_size > 10_000
    assert "explore.train +sweep=smoke" in (output / "report.html").read_text()
    for number in trials.trial:
        folder = output / "trials" / f"{number:04d}"
        assert {"config.yaml", "last.ckpt", "log.txt"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_a_search_that_stops_early_says_what_it_saved_and_can_grow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_server()
    command = [*SMOKE, f"outputs={tmp_path}", "training.epochs=4", "search.startup=4", "search.stop=off"]
    assert _run(main, [*command, "trials=5", "search.tolerance=0.3"]) == 0
    assert "epochs were trained" in capsys.readouterr().out
    before = trials_of(tmp_path)
    assert len(candidates(before)) == 5
    assert {trial.status for trial in before} == {COMPLETE, STOPPED}
    assert {trial.evaluation.epochs for trial in before} <= {0, 1, 3, 4}
    assert "epochs were trained" in (tmp_path / "smoke" / "report.html").read_text()
    runs = list((tmp_path / "smoke" / "wandb").glob("offline-run-*"))
    assert len(runs) == len(before) + 1  # each once, and that of the study
    assert _run(main, [*command, "trials=6", "search.tolerance=0.0"]) == 0
    after = trials_of(tmp_path)
    assert len(candidates(after)) == 6
    assert len({trial.proposal.key for trial in after}) == len(after)
    assert sum(trial.evaluation.epochs for trial in after) > sum(trial.evaluation.epochs for trial in before)


def test_the_command_of_a_trial_trains_the_same_curve(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from explore.train import main as train

    trial = trials_of(searched)[0]
    arguments = trial.command.split()[3:]
    assert _run(train, [*arguments, f"outputs={tmp_path}", "format=json", "throughput=off"]) == 0
    again = json.loads(capsys.readouterr().out)
    curve = [(epoch.train_loss, epoch.val_accuracy) for epoch in trial.evaluation.curve]
    assert [(epoch["train_loss"], epoch["val_accuracy"]) for epoch in again["curve"]] == curve
    written = yaml.safe_load((searched / "smoke" / trial.folder / "config.yaml").read_text())
    assert written == yaml.safe_load((Path(again["folder"]) / "config.yaml").read_text())


def test_a_full_study_is_not_searched_again_and_grows_when_asked(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trials_of(searched)
    assert sweep(searched, "trials=4", "format=json") == 0
    result = json.loads(capsys.readouterr().out)
    assert trials_of(searched) == before
    assert result["trials"] == {"complete": 4}
    assert result["go_on"] is None
    assert sweep(searched, "trials=5", "workers=1") == 0
    after = trials_of(searched)
    assert [trial.number for trial in after] == [0, 1, 2, 3, 4]
    assert len({trial.proposal.key for trial in after}) == 5


def test_the_report_is_made_again_from_the_study_alone(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from explore.report import main as report

    page = searched / "smoke" / "report.html"
    page.unlink()
    assert _run(report, ["study=smoke", f"outputs={searched}", "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(page)
    assert page.exists()
    assert _run(report, ["study=other", f"outputs={searched}"]) == 2
    assert "run python -m explore.sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trials=0"], "trials must be at least 1, got 0"),
        (["workers=0"], "workers must be at least 1, got 0"),
        (["sampler=nsga4"], "sampler must be one of gp, grid, nsga2"),
        (["throughput=off"], "a search needs throughput=on"),
        (["study=a/b"], "study must be a name of letters, digits"),
        (["model.patch_size=2", "study=smoke"], "model.patch_size: the study has 4, you ask for 2"),
        (
            ["space.model.depth=range(1, 9)"],
            "space.model.depth: the study has 'range(1, 3)', you ask for 'range(1, 9)'",
        ),
        (["space.model.depth=choice(a, b)"], "space.model.depth: model.depth"),
        (["space.model.dept=choice(1, 2)"], "did you mean model.depth?"),
        (["space.model.patch_size=choice(3, 5)"], "patch_size must divide image_size"),
        (["space.token_mixing.heads=choice(1, 2)"], "has this option"),
        (["storage.url=nowhere"], "storage.url must be an SQLAlchemy URL"),
        (["storage.url=sqlite:////no/such/folder/x.db"], "storage.url must name a database that answers"),
        (["storage.url=mysql://bob:secret@127.0.0.1:1/x"], "mysql://bob:***@127.0.0.1:1/x"),
        (["tracking.mode=maybe"], "tracking.mode must be one of offline, online, disabled"),
        (["references=[resnet50]"], "references must be one of"),
        (
            ["data=mnist", "references=[asmlp_t]"],
            "references must fit the images, got asmlp_t: the grid must be even before each",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(
    searched: Path, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def snapshot() -> dict[str, int]:
        found = {}
        for folder, folders, files in os.walk(searched):
            # W&B's own process goes on writing its logs for a while after a run was finished.
            folders[:] = [name for name in folders if name != "wandb"]
            found |= {str(path): path.stat().st_mtime_ns for path in (Path(folder, name) for name in files)}
        return found

    before = snapshot()
    assert _run(main, [*SMOKE, f"outputs={searched}", *overrides]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert "secret" not in error
    assert snapshot() == before


def test_an_output_folder_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nowhere")):
        assert _run(main, [*SMOKE, f"outputs={folder}"]) == 2
        assert "outputs must be a folder that can be written to" in capsys.readouterr().err


def test_trials_that_fail_are_kept_with_their_reason_and_the_search_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mixing of a user's that raises in training; nothing could be evaluated, so the exit status says so."""
    broken = tmp_path / "broken_mixing.py"
    broken.write_text(
        "from explore.architecture.layers import TokenMixing\n"
        "from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS\n"
        "class Broken(TokenMixing):\n"
        "    def __init__(self, grid, width, *, at_all: bool = True):\n"
        "        super().__init__()\n"
        "    def forward(self, x):\n"
        "        if self.training:\n"
        "            raise RuntimeError('no such luck')\n"
        "        return x\n"
        "TOKEN_MIXINGS['broken'] = Broken\n"
    )
    options = ["imports=[broken_mixing]", "space.token_mixing=choice(broken)", "trials=2", "workers=1"]
    command = ["+sweep=smoke", *WHOLE, *options]
    done = run_command(command, tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    trials = trials_of(tmp_path)
    assert [trial.status for trial in trials] == [FAILED, FAILED]
    assert all(trial.evaluation.reason == "RuntimeError: no such luck" for trial in trials)
    assert "no such luck" in (tmp_path / "smoke" / trials[0].folder / "log.txt").read_text()
    assert "RuntimeError: no such luck" in done.stdout


def run_command(
    overrides: Sequence[str], folder: Path, *, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "explore.sweep", *overrides, "references=[]", f"outputs={folder}"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(environment or {})},
    )


def start_command(overrides: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start the command as the leader of its own group, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "explore.sweep", *overrides, "references=[]", f"outputs={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_epochs(folder: Path, count: int) -> list[Trial]:
    """Wait until the running trials have `count` epochs between them."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        study = find_study(f"sqlite:///{folder}/smoke/study.db", "smoke")
        trials = study.trials() if study else []
        if sum(len(trial.evaluation.curve) for trial in trials if trial.status == "running") >= count:
            return trials
        time.sleep(0.2)
    raise TimeoutError("no trial got that far")


def children_of(folder: Path) -> list[str]:
    """Command lines of processes that work for this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in os.readlink(process / "fd" / "1"):
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_goes_on(tmp_path: Path) -> None:
    """`kill -9` of the command, again and again: exactly N trials, no configuration twice, none left running."""
    epochs = 60  # take some seconds; a running trial is written down once a second
    command = ["+sweep=smoke", *WHOLE, "trials=6", "workers=2", f"training.epochs={epochs}"]
    for round_ in range(4):
        process = start_command(command, tmp_path)
        wait_for_epochs(tmp_path, 1 + round_)
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 10
    while children_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not children_of(tmp_path), "trials outlived their command"
    done = run_command(command, tmp_path)
    assert done.returncode == 0, done.stderr
    trials = trials_of(tmp_path)
    assert [trial.status for trial in finished(trials)] == [COMPLETE] * 6
    assert all(trial.status in (COMPLETE, INTERRUPTED) for trial in trials)
    assert len({trial.proposal.key for trial in finished(trials)}) == 6
    successors = [trial for trial in trials if trial.continues is not None]
    assert successors
    for trial in finished(trials):
        assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, epochs + 1))
    for trial in successors:
        before = trials[[other.number for other in trials].index(trial.continues)]
        kept = before.evaluation.curve[: len(before.evaluation.curve) - 1]
        assert trial.folder == before.folder
        assert trial.evaluation.curve[: len(kept)] == tuple(kept), "epochs before the last rung were trained again"


@pytest.mark.slow
def test_ctrl_c_finishes_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = ["+sweep=smoke", *WHOLE, "trials=3", "workers=2", "training.epochs=30"]
    process = start_command(command, tmp_path)
    wait_for_epochs(tmp_path, 3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Go on:  python -m explore.sweep +sweep=smoke sampler=tpe stopping.rule=off trials=3" in out
    assert {trial.status for trial in trials_of(tmp_path)} <= {INTERRUPTED, COMPLETE}
    assert not children_of(tmp_path)
    done = run_command(["+sweep=smoke", *WHOLE, "trials=3", "workers=2", "training.epochs=30"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert [trial.status for trial in finished(trials_of(tmp_path))] == [COMPLETE] * 3


@pytest.mark.slow
def test_a_killed_trial_costs_one_trial(tmp_path: Path) -> None:
    process = start_command(["+sweep=smoke", *WHOLE, "trials=3", "workers=1", "training.epochs=30"], tmp_path)
    wait_for_epochs(tmp_path, 2)
    (victim,) = children_of(tmp_path)
    os.kill(int(victim), signal.SIGKILL)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    statuses = [trial.status for trial in trials_of(tmp_path)]
    assert sorted(statuses) == [COMPLETE, COMPLETE, FAILED]
    (failed,) = [trial for trial in trials_of(tmp_path) if trial.status == FAILED]
    assert "killed by SIGKILL" in failed.evaluation.reason
    assert failed.evaluation.curve, "what was known of it is kept"


@pytest.mark.slow
def test_two_commands_share_a_study(tmp_path: Path) -> None:
    command = ["+sweep=smoke", *WHOLE, "trials=6", "workers=1"]
    processes = [start_command(command, tmp_path) for _ in range(2)]
    outcomes = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    trials = trials_of(tmp_path)
    assert len(finished(trials)) == 6
    assert len({trial.proposal.key for trial in trials}) == 6
