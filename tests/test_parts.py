"""Batches that are worked on in parts train the same curve as whole ones, and a run goes on as it was.

python -m pytest tests/test_parts.py
"""

from dataclasses import replace
from pathlib import Path

import pytest
from test_training import SHORT, batches, network, train

from explore.data.options import Augmentation
from explore.training.fit import fit


@pytest.mark.parametrize("parts", [2, 7])
def test_batches_in_parts_train_the_same_curve(tmp_path: Path, parts: int) -> None:
    recipe, augmentation = replace(SHORT, epochs=1), Augmentation(mixup=0.3, shift=1)
    whole = train(tmp_path / "whole", recipe, augmentation=augmentation)
    seen: list[int] = []
    net = network()
    net.register_forward_hook(lambda *given: seen.append(len(given[1][0])) if net.training else None)
    loaders = batches(recipe, augmentation)
    curve = fit(net, *loaders, recipe, tmp_path, lambda record: None, parts=parts)
    assert max(seen) == -(-recipe.batch_size // parts)
    assert sum(seen) == len(loaders[0]) * recipe.batch_size
    for one, other in zip(curve, whole, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)


def test_a_run_in_parts_goes_on_in_parts(tmp_path: Path) -> None:
    loaders = batches(SHORT)
    fit(network(), *loaders, SHORT, tmp_path, lambda record: None, until=1, parts=4)
    seen: list[int] = []
    net = network()
    net.register_forward_hook(lambda *given: seen.append(len(given[1][0])) if net.training else None)
    fit(net, *loaders, SHORT, tmp_path, lambda record: None, until=2)
    assert max(seen) == SHORT.batch_size // 4
