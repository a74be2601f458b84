"""The benchmark of training compares the same training: a row tells its bar, and by hand it learns what a trial learns.

A loader that is too slow for the device is seen.

python -m pytest tests/test_training_benchmark.py
"""

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.result_rows import Row, row, shown
from benchmarks.training_devices import LOADER_BAR, STREAMED_BAR, Steps, _passed, streamed
from benchmarks.training_sides import BareTrial, Tutorial, network, normalised, our_trial, ours, tutorial_trial
from explore.data.dataset import Dataset, load
from explore.data.gathering import Streamed
from explore.data.loader import Batches
from explore.data.options import Mnist
from explore.training.options import Training


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load(Mnist())


@pytest.mark.parametrize(
    ("values", "bars", "holds"),
    [
        ([1.0, 1.2, 1.0], {"at_most": 1.05}, True),
        ([1.1, 1.2, 1.0], {"at_most": 1.05}, False),
        ([1.5, 1.3, 1.6], {"at_least": 1.4}, True),
        (1.3, {"at_least": 1.4}, False),
        (1.3, {}, None),
    ],
)
def test_a_row_holds_by_its_median(values: float | list[float], bars: dict[str, float], holds: bool | None) -> None:
    found = row("x", values, "×", **bars)
    assert found["holds"] is holds
    assert ("holds" if holds else "MISSED") in shown(found) or holds is None


def test_all_sides_decay_the_same_weights_at_the_same_rate(mnist: Dataset) -> None:
    recipe = Training(epochs=1, batch_size=512, precision="32-true", accelerator="cpu", weight_decay=0.3)
    optimizer = Tutorial(network("small", mnist, 0), recipe, 5).configure_optimizers()["optimizer"]
    bare = BareTrial(network("small", mnist, 0), mnist, recipe, Path()).optimizer
    for theirs, hand in zip(optimizer.param_groups, bare.param_groups, strict=True):
        assert theirs["weight_decay"] == hand["weight_decay"]
        assert [one.shape for one in theirs["params"]] == [one.shape for one in hand["params"]]


def test_a_trial_by_hand_learns_what_ours_learns(mnist: Dataset, tmp_path: Path) -> None:
    recipe = Training(epochs=2, batch_size=128, precision="32-true", accelerator="cpu")
    bare = BareTrial(network("small", mnist, 0), mnist, recipe, tmp_path)
    train, seconds = ours("small", mnist, recipe, bare.epoch)
    _, accuracy = our_trial("small", mnist, recipe)
    assert bare._validate()[1] == pytest.approx(accuracy, abs=0.04)
    assert bare.taken == 2 * len(train)
    assert len(train.seconds) == len(bare.seconds) == 2
    assert sum(train.seconds) < seconds
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 2


def test_the_tutorial_learns_what_ours_learns(mnist: Dataset) -> None:
    recipe = Training(epochs=2, batch_size=256, precision="32-true", accelerator="cpu", seed=3)
    _, ours_learnt = our_trial("small", mnist, recipe)
    _, theirs = tutorial_trial(network("small", mnist, recipe.seed), mnist, recipe)
    assert ours_learnt == pytest.approx(theirs, abs=0.005)


def test_images_by_hand_are_those_of_the_loader(mnist: Dataset) -> None:
    images, _ = normalised(mnist, mnist.train)
    assert torch.mean(images).item() == pytest.approx(0, abs=1e-4)
    assert torch.std(images).item() == pytest.approx(1, abs=1e-4)


class Slow(torch.nn.Linear):
    """A network whose step takes 40 ms, and a core almost nothing."""

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(0.04)
        return super().forward(images.flatten(1))


def streamed_rows(mnist: Dataset, monkeypatch: pytest.MonkeyPatch, gathering: float) -> list[Row]:
    """The rows of steps from disk where the loader takes so many seconds longer for a batch."""
    gather = Streamed._gather

    def slowly(own: Streamed, rows: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        time.sleep(gathering)
        return gather(own, rows)

    monkeypatch.setattr(Streamed, "_gather", slowly)
    monkeypatch.setattr("explore.data.loader.fits", lambda images, margin, device: False)
    loader = Batches(mnist.train, 8, device="cpu", mean=mnist.mean, std=mnist.std, classes=10, drop_last=True)
    rate = _passed(loader, torch.device("cpu"), most=80)
    steps = Steps(Slow(28 * 28, 10), torch.device("cpu"), "32-true")
    return list(streamed(loader, steps, rate))


def test_a_loader_slower_than_a_step_is_seen(mnist: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower than one, but faster than two, between which it would have a batch ready."""
    _, times, share = streamed_rows(mnist, monkeypatch, gathering=0.072)
    assert (times["bar"], times["holds"], share["bar"], share["holds"]) == (STREAMED_BAR, False, LOADER_BAR, False)
    assert times["value"] > 1.2
    assert share["value"] > 1.2


def test_a_loader_faster_than_a_step_costs_no_time(mnist: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    _, times, share = streamed_rows(mnist, monkeypatch, gathering=0.0)
    assert times["value"] < 1.3
    assert share["holds"]
