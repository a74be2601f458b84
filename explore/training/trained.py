"""What a training has left in its folder: weights, their curve, and how well they do on other images.

Without Lightning, which takes seconds to import: who looks at a study does not train.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explore.training.checkpoint import CHECKPOINT, damage
from explore.training.handing import Batch, Handed, Loader, Turn
from explore.training.options import Training


def accuracy(network: nn.Module, batches: Loader, recipe: Training, folder: Path, *, turn: Turn = nullcontext) -> float:
    """Accuracy, as a fraction, of the weights that `fit` left in `folder`; each batch inside `turn()`.

    `recipe.precision` must be resolved. The network ends in evaluation mode, on the device of the batches.
    """
    restore(network.eval(), folder)
    right: list[Tensor] = []
    count = 0

    def add(batch: Batch) -> None:
        nonlocal count
        images, labels = batch
        with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            logits: Tensor = network.to(images.device)(images)
        right.append((logits.argmax(1) == labels).sum())
        count += len(labels)

    with torch.no_grad():  # weights that are moved in inference mode could not be trained any more
        Handed(batches, turn, settle=True).each(add)
        return float(torch.stack(right).sum()) / count


def restore(network: nn.Module, folder: Path) -> list[dict[str, float]]:
    """Give a network the weights that `fit` left in `folder`, and return the learning curve up to them.

    Raises ValueError where the checkpoint is gone or damaged.
    """
    checkpoint = _checkpoint(folder)
    nn.ModuleDict({"network": network}).load_state_dict(checkpoint["state_dict"])
    return list(checkpoint["curve"])


def trained_weights(folder: Path) -> Mapping[str, Tensor]:
    """The evaluated weights (the moving average, where there is one) of the checkpoint in `folder`.

    Raises ValueError where it is gone or damaged.
    """
    weights: Mapping[str, Tensor] = _checkpoint(folder)["state_dict"]
    return weights


def _checkpoint(folder: Path) -> dict[str, Any]:
    path = folder / CHECKPOINT
    if wrong := damage(path):
        raise ValueError(f"the checkpoint of a trained network must be whole, got {path}: {wrong}; train it again")
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint
