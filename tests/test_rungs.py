"""A checkpoint is written at each rung, and what is known of a run is never trained again.

python -m pytest tests/test_rungs.py
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import SHORT, Stopped, batches, comparable, network, train

from explore.data.loader import Batches
from explore.training.checkpoint import CHECKPOINT
from explore.training.fit import fit
from explore.training.module import Diverged


def test_checkpoints_are_written_at_each_rung_and_at_the_end(tmp_path: Path) -> None:
    written: list[int | None] = []

    def look(record: Mapping[str, float]) -> None:
        checkpoint = tmp_path / CHECKPOINT
        written.append(torch.load(checkpoint, weights_only=True)["epoch"] if checkpoint.exists() else None)

    train(tmp_path, replace(SHORT, epochs=5, rung=2), report=look)
    assert written == [None, 1, 1, 3, 4]  # Lightning counts epochs from 0
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize(("seconds", "written"), [(1e9, [3, 3, 3, 3]), (0.0, [0, 1, 2, 3])], ids=["short", "long"])
def test_without_rungs_a_checkpoint_waits_for_its_second_and_no_epoch_is_known_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, written: list[int]
) -> None:
    monkeypatch.setattr("explore.training.fit._RUNG_SECONDS", seconds)
    seen: list[tuple[float, int]] = []

    def look(record: Mapping[str, float]) -> None:
        seen.append((record["epoch"], torch.load(tmp_path / CHECKPOINT, weights_only=True)["epoch"]))

    recipe = replace(SHORT, epochs=6, rung=None)
    train(tmp_path, recipe, report=look, until=4)
    assert seen == list(zip([1, 2, 3, 4], written, strict=True))
    seen.clear()
    train(tmp_path, recipe, report=look)
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4, 5, 6]


def test_epochs_that_no_checkpoint_has_are_known_when_a_run_diverges(tmp_path: Path) -> None:
    recipe = replace(SHORT, rung=None)
    train_loader, validation = batches(recipe)
    broken, seen = network(), list[float]()

    class Breaking(Batches):
        def set_epoch(self, epoch: int) -> None:
            super().set_epoch(epoch)
            if epoch == 2:
                next(broken.parameters()).data.fill_(torch.nan)

    train_loader.__class__ = Breaking
    with pytest.raises(Diverged):
        fit(broken, train_loader, validation, recipe, tmp_path, lambda record: seen.append(record["epoch"]))
    assert seen == [1, 2]
    assert not (tmp_path / CHECKPOINT).exists()


def test_run_stopped_between_rungs_loses_only_what_came_after_the_last(tmp_path: Path) -> None:
    recipe = replace(SHORT, epochs=4, rung=2)
    seen: list[float] = []

    def stopper(record: Mapping[str, float]) -> None:
        seen.append(record["epoch"])
        if record["epoch"] == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path / "parts", recipe, report=stopper)
    curve = train(tmp_path / "parts", recipe)
    assert comparable(curve) == comparable(train(tmp_path / "whole", recipe))
