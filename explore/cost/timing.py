"""Timing passes again and again: stopwatches, blocks of passes, ratios to a reference."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
from torch import nn

Clock = Callable[[], float]
CLOCK: Clock = time.perf_counter  # seconds, monotonic
Stopwatch = Callable[[Callable[[], object], int], float]  # an action and how often to take it, to seconds in all

_BESIDE = 0.5  # length of a block of the reference beside that of a long pass


class Blocks:
    """A pass that is timed in blocks of about `block_seconds`."""

    def __init__(self, forward: Callable[[], object], watch: Stopwatch, block_seconds: float) -> None:
        self.forward, self.watch, self.block_seconds = forward, watch, block_seconds
        self.seconds = 0.0  # of one pass, as the fastest block of the warm-up had it

    def warm_up(self, blocks: int, clock: Clock, until: float) -> None:
        """Run blocks that do not count, no longer than `until` on the clock; they decide how many passes make one."""
        # The first pass also pays for what torch sets up on first use, so what comes after it corrects its estimate.
        self.seconds = self.watch(self.forward, 1)
        if not blocks and clock() < until:
            self.seconds = self.watch(self.forward, 1)
        for _ in range(blocks):
            if clock() >= until:
                break
            self.seconds = min(self.seconds, self.block())

    def block(self, at_least: float = 0.0) -> float:
        """Seconds of one pass, as the mean within a block of `block_seconds` or `at_least` so many seconds."""
        passes = max(1, round(max(self.block_seconds, at_least) / max(self.seconds, 1e-7)))
        if passes > 1:  # the first finds in the caches what others have left there, and is one of few
            self.forward()
        return self.watch(self.forward, passes) / passes


def ratios_in_turn(
    passes: Mapping[str, Blocks], reference: Blocks, go_on: Callable[[Mapping[str, Sequence[float]]], bool]
) -> dict[str, list[float]]:
    """Seconds of each pass over those of the reference, in turn: R A R B R ..., and again from the first.

    A ratio is that of a block to the mean of the two blocks of the reference beside it, so that what else the machine
    does meets both alike; for a pass that is longer than a block, those of the reference are longer too. Ends after a
    whole turn, when `go_on(ratios so far)` is no longer true.
    """
    ratios: dict[str, list[float]] = {name: [] for name in passes}
    before = reference.block()
    while not next(iter(ratios.values())) or go_on(ratios):
        for name, one in passes.items():
            seconds, after = one.block(), reference.block(at_least=_BESIDE * one.seconds)
            ratios[name].append(2 * seconds / (before + after))
            before = after
    return ratios


def seconds_in_turn(passes: Mapping[str, Blocks], turns: int) -> dict[str, list[float]]:
    """Seconds of one pass of each, with the blocks of all taken in turn: A B C A B C, and so on."""
    timed: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(turns):
        for name, one in passes.items():
            timed[name].append(one.block())
    return timed


def stopwatch(device: torch.device, threads: int) -> Stopwatch:
    """What tells the seconds of work on a device.

    On a GPU its own events. On one core of a processor the time that the core computed for this thread: what others get
    of it meanwhile is theirs. Several threads share their work in time that only the clock on the wall tells.
    """
    if device.type == "cuda":
        return partial(_by_events, device)
    return by_clock(time.thread_time if threads == 1 else time.perf_counter)


def by_clock(clock: Clock) -> Stopwatch:
    """A stopwatch for operators that have ended when they return."""

    def watch(action: Callable[[], object], times: int) -> float:
        start = clock()
        for _ in range(times):
            action()
        return clock() - start

    return watch


def _by_events(device: torch.device, action: Callable[[], object], times: int) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(times):
            action()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


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
