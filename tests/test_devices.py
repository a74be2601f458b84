"""A run on several devices is the run on one: two processes with gloo on a processor, started by one command, or by
one on each of two machines.

python -m pytest tests/test_devices.py -m slow
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_machines import free_port

from explore import train
from explore.command import _run
from explore.training.checkpoint import CHECKPOINT

ROOT = Path(__file__).parents[1]
OPTIONS = ["data=digits", "training.threads=1", "training.accelerator=cpu", "throughput=off", "format=json"]


def curve(folder: Path, *overrides: str) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "explore.train", *overrides, f"outputs={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return [
        {key: epoch[key] for key in ("epoch", "train_loss", "val_accuracy")}
        for epoch in json.loads(done.stdout)["curve"]
    ]


@pytest.mark.slow
def test_two_processes_train_the_same_curve_as_one(tmp_path: Path) -> None:
    options = [*OPTIONS, "training.epochs=3"]
    alone = curve(tmp_path / "one", *options)
    together = curve(tmp_path / "two", *options, "training.devices=2", "training.strategy=ddp")
    assert [epoch["epoch"] for epoch in together] == [1, 2, 3]
    for one, two in zip(alone, together, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert two["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=0.01)
    assert len(list((tmp_path / "two").glob("train/*/wandb/offline-run-*"))) == 1, "only the first process tracks"


def documented() -> list[tuple[dict[str, str], list[str]]]:
    """The environment and the words of the command for each of two machines."""
    lines = re.findall(r"^NODE_RANK=.*", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE)
    found = []
    for words in map(shlex.split, lines):
        at = words.index("python")
        assert words[at : at + 3] == ["python", "-m", "explore.train"]
        found.append((dict(word.split("=", 1) for word in words[:at]), words[at + 3 :]))
    return found


def machine(environment: dict[str, str], command: list[str]) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "explore.train", *command]
    return subprocess.Popen(
        line, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_machines_train_what_two_devices_of_one_do(tmp_path: Path) -> None:
    tiny = [*OPTIONS, "model.patch_size=2", "model.width=16", "model.depth=1", "training.epochs=2"]
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = []
    for environment, words in documented():
        own = [word for word in words if not word.startswith("outputs=")]
        both.append(machine({**environment, **here}, [*own, *tiny, f"outputs={tmp_path / 'machines'}"]))
    try:
        (out, err), (nothing, said) = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], err + said
    assert nothing == "", "there is one curve"
    assert said == "explore: machine 1 of the run; machine 0 shows what comes of it\nexplore: complete\n"
    (folder,) = (tmp_path / "machines" / "train").iterdir()
    assert [path.name for path in folder.glob("*.ckpt")] == [CHECKPOINT]
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    together = json.loads(out)["curve"]
    assert [epoch["epoch"] for epoch in together] == [1, 2]
    devices = curve(tmp_path / "devices", *tiny, "training.devices=2", "training.strategy=ddp")
    for one, other in zip(devices, together, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert other["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=1e-3)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "training.num_nodes=2 needs NODE_RANK, MASTER_ADDR, MASTER_PORT in the environment on every machine"),
        ({"NODE_RANK": "1", "MASTER_ADDR": "alpha"}, "got no MASTER_PORT; set NODE_RANK=0 on the first, 1 on the next"),
        (
            {"NODE_RANK": "2", "MASTER_ADDR": "alpha", "MASTER_PORT": "29500"},
            "NODE_RANK must be one of 0, 1 with training.num_nodes=2, got 2",
        ),
    ],
)
def test_machines_that_could_not_meet_do_not_wait_for_one_another(
    environment: dict[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _run(train.main, ["data=digits", "training.num_nodes=2", f"outputs={tmp_path}"]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_jobs_of_slurm_know_their_place_by_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NODEID", "1")
    assert [train._machine(count) for count in (1, 2)] == [0, 1]
