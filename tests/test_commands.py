"""The commands answer as a person expects: help at once, results in two formats, one sentence for bad input.

python -m pytest tests/test_commands.py
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from explore import measure, train
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.command import _run
from explore.config import as_yaml, compose
from explore.evaluation import Evaluation
from explore.evaluator import TrainingEvaluator
from explore.training.checkpoint import CHECKPOINT

COMMANDS = ("sweep", "train", "measure", "report")
TINY = (
    "data=digits",
    "model.patch_size=2",
    "model.width=8",
    "model.depth=1",
    "training.epochs=2",
    "training.batch_size=256",
    "training.threads=1",
    "cost.batch_size=4",
    "cost.max_seconds=0.01",
    "cost.warmup=0",
    "cost.block_seconds=0.001",
)
# A command, and the files of all modules that it loaded.
LOADED = """
import json, runpy, sys
command, *sys.argv = sys.argv[1], *sys.argv[1:]
try:
    runpy.run_module(command, run_name="__main__")
finally:
    files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    sys.stderr.write(json.dumps(files))
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, in an empty folder; gives exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(command: Any, *arguments: str) -> tuple[int, str, str]:
        status = _run(command.main, list(arguments))
        return status, *capsys.readouterr()

    return call


def shell(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_nothing_but_python(command: str, tmp_path: Path) -> None:
    shown = shell("-m", f"explore.{command}", "--help", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"python -m explore.{command} ")
    assert "token_mixing=    attention, axial_shift, convolution, cycle, dynamic, " in shown.stdout
    assert "sampler=         gp, grid, nsga2, nsga3, paired, random, speed_aware, tpe" in shown.stdout
    assert "mixer_{s32,s16,b32,b16,l32,l16,h14}" in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 120
    loaded = json.loads(shell("-c", LOADED, f"explore.{command}", "-h", folder=tmp_path).stderr)
    assert "explore.command" in loaded
    installed = {name.partition(".")[0] for name, file in loaded.items() if "site-packages" in file}
    # What the installer starts in every Python of an environment is not ours.
    assert not {name for name in installed if not name.startswith(("__editable__", "_distutils_hack", "coverage"))}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_that_a_help_text_names_exists(command: str) -> None:
    text = (Path(train.__file__).parent / f"{command}.py").read_text().split('"""')[1]
    groups = yaml.safe_load(as_yaml(["data=folder"]))
    named = re.findall(r"(?<![\w.])(data|model|training|cost|limits|storage|tracking)\.([a-z_]+)", text)
    assert named
    assert all(key in groups[group] for group, key in named)
    assert set(re.findall(r"^  ([a-z_]+)=", text, re.MULTILINE)) <= set(groups)


def test_example_of_a_space_on_the_command_line_works() -> None:
    assert "'space.model.width=choice(16, 32)'" in Path(train.__file__).with_name("sweep.py").read_text()
    assert compose(["+sweep=pareto", "space.model.width=choice(16, 32)"]).space["model.width"] == "choice(16, 32)"


def test_measure_gives_the_published_figures(run: Run, tmp_path: Path) -> None:
    status, out, err = run(measure, "model=mixer_b16", "throughput=off", "format=json")
    result = json.loads(out)
    assert (status, err) == (0, "")
    assert (result["name"], result["image_size"], result["classes"]) == ("mixer_b16", 224, 1000)
    assert result["params"] == result["published"]["params"] == 59_880_472
    assert result["macs"] == pytest.approx(result["published"]["macs"], rel=0.01)
    assert result["flops"] == 2 * result["macs"]
    assert result["throughput"] is None
    assert result["latency_ms"] is None
    assert result["memory_bytes"] > 4 * result["params"] / 2
    assert result["protocol"]["batch_size"] == 8
    assert result["protocol"]["precision"] in ("32-true", "bf16-mixed")
    assert list(tmp_path.iterdir()) == []


def test_measure_prints_a_table(run: Run) -> None:
    status, out, err = run(measure, *TINY)
    assert (status, err) == (0, "")
    for words in ("network, 8 × 8 pixels, 10 classes", "parameters", "multiply-adds (MACs)", "images/s", "latency"):
        assert words in out
    assert "published" not in out


@pytest.mark.parametrize(
    ("passes", "shown"), [(5, ["median"]), (20, ["median", "90 %"]), (100, ["median", "90 %", "99 %"])]
)
def test_measure_prints_no_percentile_of_too_few_passes(
    run: Run, monkeypatch: pytest.MonkeyPatch, passes: int, shown: list[str]
) -> None:
    monkeypatch.setattr("explore.cost.session.Alone.latencies", lambda self, forward, seconds: [1e-3] * passes)
    status, out, err = run(measure, *TINY)
    assert (status, err) == (0, "")
    assert re.findall(r"latency, batch 1, (\w+(?: %)?)", out) == shown


def test_changed_published_model_is_not_compared_with_the_published_one(run: Run) -> None:
    _, out, _ = run(measure, "model=mixer_s32", "model.depth=1", "throughput=off", "format=json")
    result = json.loads(out)
    assert (result["image_size"], result["published"]) == (224, None)


def test_measure_times_what_it_is_asked_to(run: Run) -> None:
    _, out, _ = run(measure, *TINY, "format=json", "cost.precision=32-true")
    result = json.loads(out)
    assert result["throughput_low"] <= result["throughput"] <= result["throughput_high"]
    assert result["latency_ms"] > 0
    assert (result["protocol"]["batch_size"], result["protocol"]["precision"]) == (4, "32-true")


def test_train_trains_and_goes_on_where_it_stopped(run: Run, tmp_path: Path) -> None:
    status, out, err = run(train, *TINY, "format=json", "outputs=results")
    result = json.loads(out)
    folder = Path(result["folder"])
    assert status == 0
    assert result["status"] == "complete"
    assert [epoch["epoch"] for epoch in result["curve"]] == [1, 2]
    assert folder.parent == Path("results/train")
    assert [line.split()[0] for line in err.splitlines()] == [f"{result['cost']['params']:,}", "epoch", "epoch"]
    assert (tmp_path / folder / CHECKPOINT).exists()
    assert yaml.safe_load((tmp_path / folder / "config.yaml").read_text())["model"]["width"] == 8
    assert list((tmp_path / folder / "wandb").glob("offline-run-*"))
    assert result["command"].startswith("python -m explore.train data=digits ")

    status, out, err = run(train, *TINY, "outputs=results", "tracking.mode=disabled")
    assert (status, err) == (0, "")
    assert out.endswith(f"; checkpoint and configuration in {folder}\n"), "there is no run in W&B"
    assert f"complete, validation accuracy {100 * result['curve'][-1]['val_accuracy']:.2f} %" in out
    assert [path.name for path in (tmp_path / "results" / "train").iterdir()] == [folder.name]


def test_train_computes_with_no_more_threads_than_its_container_may_use(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def evaluated(self: TrainingEvaluator, *arguments: object) -> Evaluation:
        used.append(self.base[-1])
        return Evaluation(status="complete")

    monkeypatch.setattr(TrainingEvaluator, "__call__", evaluated)
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    monkeypatch.setattr("explore.cluster.local.cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS")
    options = [one for one in TINY if not one.startswith("training.threads")] + ["tracking.mode=disabled"]
    for more in ([], ["training.devices=2"], ["training.threads=9"]):
        assert run(train, *options, *more)[0] == 0
    assert used == ["training.threads=4", "training.threads=2", "training.threads=9"]


def test_train_of_a_refused_candidate_fails_with_its_reason(run: Run) -> None:
    status, out, _ = run(train, *TINY, "limits.params=10", "tracking.mode=disabled")
    assert status == 1
    assert "refused: params" in out.splitlines()[-1]


def pictures(folder: Path, *classes: str) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(10):
            shade = np.random.default_rng([index, len(name)]).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(shade).save(folder / name / f"{index}.png")


BAD = [
    (["data=digits", "model.patch_size=3"], "patch_size must divide image_size, got 3 and 8; try 1, 2, 4, 8"),
    (
        ["data=digits", "token_mixing=attention", "token_mixing.heads=5"],
        "heads must divide width, got 5 and 64; try 1, 2, 4, 8, 16, 32, 64",
    ),
    (["data=folder", "data.path=empty"], "data.path must have a subfolder of images for each of at least 2 classes"),
    (["data=folder", "data.path=one"], "of at least 2 classes, got only 'boots'"),
    (["data=folder", "data.path=missing"], "got 'missing', which does not exist"),
    (["data=folder", "data.path=corrupt"], "boots/3.png"),
    (["data=folder", "data.path=corrupt", "data.on_corrupt=x"], "data.on_corrupt must be one of raise, skip, got 'x'"),
    (["data=hub", "data.name=uoft-cs/cifar10"], "data.name='uoft-cs/cifar10' could not be reached"),
    (["model.dpth=3"], "unknown key model.dpth"),
    (["+nothing=3"], "unknown key nothing"),
    (["token_mixing=mpl"], "did you mean mlp?"),
    (["training.lr=fast"], "training.lr must be a number, got fast"),
    (["--bogus"], "a setting must be written KEY=VALUE, got --bogus"),
    (["-m", "training.lr=1,2"], "a setting must be written KEY=VALUE, got -m"),
    (["data=digits", "cost.device=tpu"], "device must be one of auto, cpu"),
    (["data=digits", "cost.dispatch=fast"], "cost.dispatch must be one of auto, eager, graph, compiled, got 'fast'"),
    (["data=digits", "cost.device=cpu", "cost.dispatch=graph"], "cost.dispatch=graph must have a GPU, got cpu; try"),
    (["data=digits", "cost.precision=fp8"], "precision must be one of auto, 32-true, bf16-mixed, got 'fp8'"),
]


@pytest.mark.parametrize("command", [train, measure], ids=["train", "measure"])
@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_gets_one_message_and_leaves_the_disk_alone(
    run: Run, tmp_path: Path, command: Any, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    pictures(tmp_path / "one", "boots")
    pictures(tmp_path / "corrupt", "boots", "sandals")
    (tmp_path / "corrupt" / "boots" / "3.png").write_bytes(b"no picture")
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run(command, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("explore: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


BAD_TRAINING = [
    (["outputs=a_file"], "outputs must be a folder that can be written to, got a_file"),
    (["tracking.mode=maybe"], "tracking.mode must be one of offline, online, disabled, got 'maybe'"),
    (["training.epochs=0"], "training.epochs must be at least 1, got 0"),
    (["limits.params=0"], "limits.params must be above 0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_TRAINING)
def test_bad_training_gets_one_message(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "a_file").touch()
    status, out, err = run(train, *TINY, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


def test_corrupt_images_can_be_skipped(run: Run, tmp_path: Path) -> None:
    pictures(tmp_path / "corrupt", "boots", "sandals")
    (tmp_path / "corrupt" / "boots" / "3.png").write_bytes(b"no picture")
    given = ("data=folder", "data.path=corrupt", "data.on_corrupt=skip", "throughput=off", "format=json")
    status, out, _ = run(measure, *given)
    assert (status, json.loads(out)["classes"]) == (0, 2)


def test_machines_get_the_message_as_json(run: Run) -> None:
    status, out, err = run(train, "model.dpth=3", "format=json")
    assert status == 2
    assert err == f"explore: {json.loads(out)['error']}\n"


def test_bad_input_in_a_shell_shows_no_traceback(tmp_path: Path) -> None:
    done = shell("-m", "explore.train", "data=digits", "model.patch_size=5", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "explore: patch_size must divide image_size, got 5 and 8; try 1, 2, 4, 8\n"
    assert list(tmp_path.iterdir()) == []


def test_configuration_is_shown(run: Run, tmp_path: Path) -> None:
    status, out, err = run(train, "--cfg", "job", "data=digits", "space.model.depth=range(1, 3)")
    assert (status, err) == (0, "")
    shown = yaml.safe_load(out)
    assert shown["training"]["lr"] == 0.002
    assert shown["space"] == {"model.depth": "range(1, 3)"}
    assert list(tmp_path.iterdir()) == []
    assert run(train, "--cfg", "job", "model.dpth=3")[0] == 2


@pytest.mark.slow
def test_tab_completes_names_and_keys(tmp_path: Path) -> None:
    script = f"""
python() {{ {sys.executable} "$@"; }}
eval "$(python -m explore.train -sc install=bash)"
COMP_LINE="python -m explore.train token_mixing=" COMP_WORDS=(python -m explore.train token_mixing=) COMP_CWORD=3
_explore_complete; echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    offered = {f"token_mixing={name}" for name in TOKEN_MIXINGS}
    assert set(done.stdout.split()) >= offered
    assert list(tmp_path.iterdir()) == []


def test_interrupted_training_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("explore.evaluator.TrainingEvaluator.__call__", interrupt)
    status, _, err = run(train, *TINY, "outputs=x")
    assert status == 130
    assert err.startswith(
        "explore: stopped; the same command goes on from the last checkpoint: python -m explore.train "
    )
    assert err.endswith(" outputs=x\n")


@pytest.mark.slow
def test_interrupted_training_in_a_shell_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = [*TINY, "training.epochs=100000", "tracking.mode=disabled"]
    process = subprocess.Popen(
        [sys.executable, "-m", "explore.train", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("epoch   2"):
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.startswith(
        "explore: stopped; the same command goes on from the last checkpoint: python -m explore.train "
    )
    assert "Traceback" not in err
