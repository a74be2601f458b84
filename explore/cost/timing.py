"""Timing passes again and again: warm-up, blocks of passes, the network and torch as they were afterwards."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Self

import numpy as np
import torch
from torch import nn

from explore.cost.options import Measuring

Clock = Callable[[], float]
CLOCK: Clock = time.perf_counter  # seconds, monotonic


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images per second: median over the timed blocks, lower and upper quartile."""

    images_per_second: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float], batch_size: int) -> Self:
        """The speed of passes of `batch_size` images that took so many seconds in each block."""
        low, median, high = np.quantile([batch_size / one for one in seconds], [0.25, 0.5, 0.75]).tolist()
        return cls(images_per_second=median, low=low, high=high)


class _Blocks:
    """Blocks of a pass, each about as long as the options say."""

    def __init__(
        self, forward: Callable[[], object], synchronize: Callable[[], None], options: Measuring, clock: Clock
    ) -> None:
        self.forward, self.synchronize, self.options, self.clock = forward, synchronize, options, clock
        self.passes = 1

    def warm_up(self) -> None:
        began = self.clock()
        # The first pass also pays for what torch sets up on first use, so the blocks after it correct its estimate.
        self._adjust(self.block())
        for _ in range(self.options.warmup):
            # Slow passes need little warm-up, and should leave time for more than one that counts.
            if self.clock() - began >= self.options.max_seconds / 4:
                break
            self._adjust(self.block())

    def block(self) -> float:
        """Seconds of one pass, as the mean within a block."""
        self.synchronize()
        start = self.clock()
        for _ in range(self.passes):
            self.forward()
        self.synchronize()
        return (self.clock() - start) / self.passes

    def _adjust(self, seconds: float) -> None:
        self.passes = max(1, round(self.options.block_seconds / max(seconds, 1e-6)))


def seconds_per_pass(
    forward: Callable[[], object], synchronize: Callable[[], None], options: Measuring, clock: Clock
) -> list[float]:
    """Seconds of one pass, as the mean within each timed block."""
    began, blocks = clock(), _Blocks(forward, synchronize, options, clock)
    blocks.warm_up()
    timed: list[float] = []
    while len(timed) < options.blocks and (not timed or clock() - began < options.max_seconds):
        timed.append(blocks.block())
    return timed


def seconds_in_turn(
    passes: Mapping[str, Callable[[], object]], synchronize: Callable[[], None], options: Measuring, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of one pass of each, with the blocks of all taken in turn: A B C A B C, and so on.

    What else the machine does meanwhile then meets all of them alike, so that their ratios mean something even where
    the figures themselves wander. Together they have `max_seconds` for each, and each gets as many
    blocks as the others.
    """
    blocks = {name: _Blocks(forward, synchronize, options, clock) for name, forward in passes.items()}
    began = clock()
    for one in blocks.values():
        one.warm_up()
    timed: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(options.blocks):
        if turn and clock() - began >= options.max_seconds * len(passes):
            break
        for name, one in blocks.items():
            timed[name].append(one.block())
    return timed


@contextmanager
def ready(network: nn.Module, device: torch.device) -> Iterator[None]:
    """The network on the device and in eval mode; afterwards where and how it was."""
    home = next((tensor.device for tensor in chain(network.parameters(), network.buffers())), device)
    if home.type == "meta":
        raise ValueError("a network must have weights to be timed, got one on the meta device; build it on the cpu")
    modes = {module: module.training for module in network.modules()}
    try:
        network.to(device).eval()
        yield
    finally:
        network.to(home)
        for module, training in modes.items():
            module.training = training


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Lets torch compute with so many threads on the processor; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronizer(device: torch.device) -> Callable[[], None]:
    """What waits until the device has done everything it was told to; the processor always has."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else _nothing_to_wait_for


def _nothing_to_wait_for() -> None:
    """Operators on the processor have ended when they return."""
