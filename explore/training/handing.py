"""How batches are handed to Lightning: many at once, since what it does around a step takes as long as a small step."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
Turn = Callable[[], AbstractContextManager[None]]


class Loader(Protocol):
    """What the trainer asks of its data: batches on the device already, a length, and an order per epoch."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and augmentation of epoch `epoch` (from 0)."""


class Handed:
    """Batches that Lightning takes for one, each of which is worked on inside `turn()`."""

    def __init__(self, batches: Iterable[Batch], turn: Turn, *, settle: bool) -> None:
        self.batches = batches
        self.turn = turn
        self.settle = settle  # whether a GPU has done its work when all batches are through

    def each(self, work: Callable[[Batch], None]) -> None:
        """Call `work` for each batch, which is made in the same turn."""
        waiting, device = iter(self.batches), None
        while True:
            with self.turn():
                batch = next(waiting, None)
                if batch is None:
                    if self.settle and device is not None and device.type == "cuda":
                        # What was launched in these turns ends in the last of them.
                        torch.cuda.synchronize(device)
                    return
                work(batch)
                device = batch[0].device


class Handing:
    """What Lightning takes for a data loader: one `Handed` a pass, or one for each batch.

    Only the former is free of its overhead (0.3 to 1 ms for each), and only the latter lets it wrap the forward pass of
    every batch, as a strategy for several devices must.
    """

    def __init__(self, loader: Loader, turn: Turn, *, whole: bool) -> None:
        self.loader = loader
        self.turn = turn
        self.whole = whole

    def __len__(self) -> int:
        """How many steps Lightning takes this for."""
        return 1 if self.whole else len(self.loader)

    def __iter__(self) -> Iterator[Handed]:
        if self.whole:
            yield Handed(self.loader, self.turn, settle=True)
        else:
            for batch in self.loader:
                yield Handed([batch], self.turn, settle=False)
