"""A checkpoint with most tensors in one: in a file of many small ones, each takes longer than all their numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

_NUMBERS = "numbers"
_WEIGHTS = "state_dict"  # as Lightning writes them, for whoever reads the file


def read(path: str | Path) -> dict[str, Any]:
    """The checkpoint in a file, on the processor, as it was given to be written; also one of Lightning's own."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if _NUMBERS not in checkpoint:
        return checkpoint
    numbers: Tensor = checkpoint.pop(_NUMBERS)
    taken = 0

    def tensor(leaf: Any) -> Any:
        nonlocal taken
        if not isinstance(leaf, torch.Size):
            return leaf
        first, taken = taken, taken + leaf.numel()
        return numbers[first:taken].clone().view(leaf)  # a view would keep all the others in memory

    whole: dict[str, Any] = _changed(checkpoint, tensor)
    return whole


class OneTensor(TorchCheckpointIO):
    """Writes all float32 tensors but the weights as one, with their sizes in their places; other tensors stay."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        parts = [torch.empty(0)]  # there may be no others

        def size(leaf: Any) -> Any:
            if type(leaf) is not Tensor or leaf.dtype != torch.float32 or not leaf.is_contiguous():
                return leaf
            parts.append(leaf.flatten().cpu())
            return leaf.shape

        sizes = {key: value if key == _WEIGHTS else _changed(value, size) for key, value in checkpoint.items()}
        torch.save({**sizes, _NUMBERS: torch.cat(parts)}, path)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """The checkpoint as it was given to `save_checkpoint`."""
        return read(path)


def _changed(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Dictionaries, lists and tuples again, with what they hold changed; torch's own is slower than the pickling."""
    if isinstance(tree, dict):
        return {key: _changed(value, change) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_changed(value, change) for value in tree)
    return change(tree)
