"""A checkpoint with most tensors in one: in a file of many small ones, each takes longer than all their numbers.

Two are kept in the folder of a training until it has come to its end, the last and the one before. Each appears whole
or not at all.
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CHECKPOINT, BEFORE = "last.ckpt", "before.ckpt"
_NUMBERS = "numbers"
_WEIGHTS = "state_dict"  # as Lightning writes them, for whoever reads the file


def newest(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """The last checkpoint in a folder that is whole; those that are not are removed, and `tell` is told.

    Whole is what has its checksums. Raises OSError for a file that cannot be read at this moment: it may be whole.
    """
    damaged, whole = [], None
    for path in (folder / CHECKPOINT, folder / BEFORE):
        if whole or not path.exists():
            continue
        if wrong := damage(path):
            path.unlink(missing_ok=True)  # each process of a team looks
            damaged.append(f"{path.name} was damaged ({wrong})")
        else:
            whole = path
    if damaged:
        tell(f"{' and '.join(damaged)}, so that it " + (f"went on from {whole.name}" if whole else "began again"))
    return whole


def epochs_of(checkpoint: Path) -> int:
    """How many epochs a checkpoint has behind it."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return int(state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def put(partial: Path, folder: Path, *, keep: bool) -> None:
    """Make a file the last checkpoint of a folder; `keep` the one that was the last.

    It takes the place of a file, which ext4 and others let happen only when its content is on the disk. That is cheaper
    than to wait for the disk, and where it is not so and the power fails, there is the one before.
    """
    last, before = folder / CHECKPOINT, folder / BEFORE
    if keep and last.exists():
        before.unlink(missing_ok=True)
        try:
            os.link(last, before)
        except OSError:  # not every file system has links
            os.replace(last, before)
    os.replace(partial, last)
    if not keep:
        before.unlink(missing_ok=True)


def damage(path: Path) -> str:
    """What is wrong with a checkpoint, by its checksums; empty where nothing is."""
    if not path.exists():
        return "it does not exist"
    if not path.stat().st_size:
        return "it is empty"
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except OSError:
        raise
    except Exception as error:  # what a damaged file raises is up to its reader
        return str(error).lower() or type(error).__name__
    return f"the checksum of {broken} is wrong" if broken else ""


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


def write(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write all float32 tensors but the weights as one, with their sizes in their places; other tensors stay."""
    parts = [torch.empty(0)]  # there may be no others
    sizes: dict[torch.Size, torch.Size] = {}  # the same object for equal sizes is pickled once

    def size(leaf: Any) -> Any:
        if type(leaf) is not Tensor or leaf.dtype != torch.float32 or not leaf.is_contiguous():
            return leaf
        parts.append(leaf.flatten().cpu())
        return sizes.setdefault(leaf.shape, leaf.shape)

    others = {key: value if key == _WEIGHTS else _changed(value, size) for key, value in checkpoint.items()}
    with Path(path).open("wb") as file:  # given a path, torch does not say that a disk is full
        torch.save({**others, _NUMBERS: torch.cat(parts)}, file)


def _changed(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Dictionaries, lists and tuples again, with what they hold changed; torch's own is slower than the pickling."""
    if isinstance(tree, dict):
        return {key: _changed(value, change) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_changed(value, change) for value in tree)
    return change(tree)
