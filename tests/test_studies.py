"""Studies that were really run say how, and the smallest gives the same numbers when it is run again."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import torch

from explore.command import _run
from explore.cost.device import device_name
from explore.train import main

SWEEPS = Path(__file__).parents[1] / "sweeps"
STUDIES = sorted(folder for folder in SWEEPS.iterdir() if folder.is_dir())
_DEVIATIONS = 5  # another machine rounds otherwise, and training takes another course, as it does with another seed


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_a_study_says_what_was_asked_how_and_what_came_of_it(folder: Path) -> None:
    words = (folder / "README.md").read_text()
    for part in ("**Question.**", "**Command.**", "**Run.**", "**Answer.**", "**What it does not say.**"):
        assert part in words
    assert re.search(r"ommit [0-9a-f]{7,12}", words)
    assert re.search(r"20\d\d-\d\d-\d\d", words)
    assert re.search(r"\d+ min", words)
    assert list(folder.glob("*.png"))
    table = pd.read_csv(next(folder / name for name in ("front.csv", "arms.csv") if (folder / name).exists()))
    assert len(table) > 1
    pictures = re.findall(r"\]\(([\w.-]+\.(?:png|csv))\)", words)
    assert pictures
    assert all((folder / name).exists() for name in pictures)


@pytest.mark.slow
def test_the_smallest_gives_the_same_numbers_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first seed of every arm, by the commands in its table."""
    tables = {folder: pd.read_csv(folder / "runs.csv") for folder in STUDIES if (folder / "runs.csv").exists()}
    folder, runs = min(tables.items(), key=lambda item: item[1].epochs.sum())
    again = runs[runs.seed == runs.seed.min()]
    same_machine = device_name(torch.device("cpu")) in (folder / "README.md").read_text()
    for number, row in enumerate(again.itertuples()):
        overrides = shlex.split(str(row.command))[3:]
        given = [*overrides, f"outputs={tmp_path / str(number)}", "throughput=off", "tracking.mode=disabled"]
        assert _run(main, given) == 0
        found = float(re.findall(r"val accuracy +([\d.]+) %", capsys.readouterr().out)[-1]) / 100
        of_arm = runs.val_accuracy[runs.arm == row.arm]
        expected = (row.val_accuracy, 6e-5) if same_machine else (of_arm.mean(), _DEVIATIONS * of_arm.std())
        assert found == pytest.approx(expected[0], abs=expected[1]), row.command
