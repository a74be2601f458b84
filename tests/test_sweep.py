"""The main job, end to end: a search that trains, resumes, and refuses bad input.

python -m pytest tests/test_sweep.py
"""

import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_sweeps import SMOKE, WHOLE, sweep, trials_of

from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.command import _run
from explore.evaluation import FAILED
from explore.search.rivals import compared
from explore.search.storage import open_study
from explore.sweep import main

BROKEN = """
from explore.architecture.layers import TokenMixing
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

class Broken(TokenMixing):
    def __init__(self, grid, width, *, at_all: bool = True):
        super().__init__()

    def forward(self, x):
        if self.training:
            raise RuntimeError("no such luck")
        return x

TOKEN_MIXINGS["broken"] = Broken
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a search of four trials."""
    folder = tmp_path_factory.mktemp("outputs")
    assert sweep(folder, *WHOLE, "trials=4") == 0
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
    assert sweep(searched, *WHOLE, "trials=4", "format=json") == 0
    result = json.loads(capsys.readouterr().out)
    assert trials_of(searched) == before
    assert result["trials"] == {"complete": 4}
    assert (result["go_on"], result["ended"]) == (None, "The study is full: 4 of 4 trials are done.")
    assert result["ended"] in (searched / "smoke" / "report.html").read_text()
    assert sweep(searched, *WHOLE, "trials=5", "workers=1") == 0
    after = trials_of(searched)
    assert [trial.number for trial in after] == [0, 1, 2, 3, 4]
    assert len({trial.proposal.key for trial in after}) == 5


def test_a_space_that_is_exhausted_ends_a_search_that_cannot_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = [f"space.{key}=choice({value})" for key, value in {"model.depth": 1, "token_mixing": "mlp"}.items()]
    small = [*fixed, "space.model.patch_size=choice(4)", "space.training.lr=choice(0.005)", "training.epochs=1"]
    assert sweep(tmp_path, *WHOLE, *small, "trials=9") == 0
    shown = capsys.readouterr().out
    why = "The space is exhausted: all 2 possible configurations were tried."
    assert len(trials_of(tmp_path)) == 2
    assert why in shown
    assert "Go on:" not in shown
    assert why in (tmp_path / "smoke" / "report.html").read_text()


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
        (["training.num_nodes=2", "training.batch_size=64"], "training.num_nodes must be 1 in a search, got 2"),
        (["space.training.devices=choice(1, 2)"], "space.training.devices cannot be a dimension"),
        (["stopping.max_minutes=0"], "stopping.max_minutes must be above 0, or null for no limit, got 0.0"),
        (["study=a/b"], "study must be a name of letters, digits"),
        (["model.patch_size=2", "study=smoke"], "model.patch_size must not be given where it is searched"),
        (["model.norm=rms", "study=smoke"], "model.norm: the study has 'layer', you ask for 'rms'"),
        (
            ["space.model.depth=range(1, 9)"],
            "space.model.depth: the study has 'range(1, 3)', you ask for 'range(1, 9)'",
        ),
        (["space.model.depth=choice(a, b)"], "space.model.depth: model.depth"),
        (["space.model.dept=choice(1, 2)"], "did you mean model.depth?"),
        (["space.model.patch_size=choice(3, 5)"], "patch_size must divide image_size"),
        (
            ["space.token_mixing.heads=choice(1, 2)"],
            "none of token_mixing=mlp, pooling has this option",
        ),
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
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixing of a user's that raises in training; nothing could be evaluated, so the exit status says so."""
    (tmp_path / "broken_mixing.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["imports=[broken_mixing]", "space.token_mixing=choice(broken)", "trials=2", "workers=1"]
    try:
        assert sweep(tmp_path, *WHOLE, *options) == 1
    finally:
        TOKEN_MIXINGS.pop("broken", None)
        sys.modules.pop("broken_mixing", None)
    trials = trials_of(tmp_path)
    assert [trial.status for trial in trials] == [FAILED, FAILED]
    assert all(trial.evaluation.reason == "RuntimeError: no such luck" for trial in trials)
    assert "no such luck" in (tmp_path / "smoke" / trials[0].folder / "log.txt").read_text()
    assert "RuntimeError: no such luck" in capsys.readouterr().out
