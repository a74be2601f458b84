"""A run on several devices is the run on one: two processes with gloo on a processor.

python -m pytest tests/test_devices.py -m slow
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def curve(folder: Path, *overrides: str) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "explore.train", "data=digits", "training.epochs=3", "training.threads=1"]
    command += ["training.accelerator=cpu", "throughput=off", "format=json", f"outputs={folder}", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return [
        {key: epoch[key] for key in ("epoch", "train_loss", "val_accuracy")}
        for epoch in json.loads(done.stdout)["curve"]
    ]


@pytest.mark.slow
def test_two_processes_train_the_same_curve_as_one(tmp_path: Path) -> None:
    alone = curve(tmp_path / "one")
    together = curve(tmp_path / "two", "training.devices=2", "training.strategy=ddp")
    assert [epoch["epoch"] for epoch in together] == [1, 2, 3]
    for one, two in zip(alone, together, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert two["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=0.01)
    assert len(list((tmp_path / "two").glob("train/*/wandb/offline-run-*"))) == 1, "only the first process tracks"
