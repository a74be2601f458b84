"""Timing a pass again and again: warm-up, blocks of passes, the network and torch as they were afterwards."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
from torch import nn

from explore.cost.options import Measuring

Clock = Callable[[], float]
CLOCK: Clock = time.perf_counter  # seconds, monotonic


def seconds_per_pass(
    forward: Callable[[], object], synchronize: Callable[[], None], options: Measuring, clock: Clock
) -> list[float]:
    """Seconds of one pass, as the mean within each timed block."""

    def block(passes: int) -> float:
        synchronize()
        start = clock()
        for _ in range(passes):
            forward()
        synchronize()
        return (clock() - start) / passes

    def passes_in_a_block(seconds: float) -> int:
        return max(1, round(options.block_seconds / max(seconds, 1e-6)))

    began = clock()
    # The first pass also pays for what torch sets up on first use, so the blocks after it correct its estimate.
    passes = passes_in_a_block(block(1))
    for _ in range(options.warmup):
        # Slow passes need little warm-up, and should leave time for more than one that counts.
        if clock() - began >= options.max_seconds / 4:
            break
        passes = passes_in_a_block(block(passes))
    timed: list[float] = []
    while len(timed) < options.blocks and (not timed or clock() - began < options.max_seconds):
        timed.append(block(passes))
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
