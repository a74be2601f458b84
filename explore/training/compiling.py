"""When a network is compiled for training: where that pays within the run."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# What compiling costs and saves, roughly, for networks of this family: forward and backward pass together take one to
# two minutes, and a step is faster by a fifth.
COMPILE_SECONDS = 120.0
SAVED_SHARE = 0.2
MARGIN = 2.0
# Steps of a fresh process are slow at first: kernels are chosen and memory is allocated.
UNTIMED_STEPS, TIMED_STEPS = 10, 40


def pays(seconds_per_step: float, steps_left: int) -> bool:
    """Whether compiling saves at least `MARGIN` times what it costs, in the steps that are left."""
    return seconds_per_step * steps_left * SAVED_SHARE >= MARGIN * COMPILE_SECONDS


class Compiling:
    """The forward pass of a network in training, compiled or not; the network, its weights and their names stay.

    `mode` is `on`, `off` or `auto`. `auto` is `off` on a processor, where compiled training steps are hardly faster. On
    a GPU the first steps of this process are timed, `TIMED_STEPS` behind `UNTIMED_STEPS`, and the rest of its steps are
    compiled if that `pays` for a step as long as their median. A process that goes on from a checkpoint decides anew:
    it has to compile again, and may have few steps left for that to pay, or more than the one before.

    Random numbers are drawn as without compiling; results differ by the rounding of fused operations.
    """

    def __init__(self, network: nn.Module, mode: str) -> None:
        self.forward: Callable[[Tensor], Tensor] = network
        self.decision: bool | None = None  # whether the network is compiled, once that is known
        self._network = network
        self._auto = mode == "auto"
        self._seconds: list[float] = []  # of each step
        if not self._auto:
            self._decide(mode == "on")

    @contextmanager
    def timing(self, device: torch.device) -> Iterator[None]:
        """Around a step, within its turn: times it on a GPU, which is waited for, until it is decided."""
        if self.decision is not None or device.type == "cpu":
            yield
            return
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        yield
        torch.cuda.synchronize(device)
        self._seconds.append(time.perf_counter() - began)

    def look(self, steps_left: int, device: torch.device, agreed: Callable[[bool], bool]) -> None:
        """Decide, where that is open and enough steps were timed, before the last `steps_left` steps of this process.

        `agreed` makes the same answer of those of all devices.
        """
        if self.decision is not None:
            return
        if device.type == "cpu":
            self._decide(False)
        elif len(self._seconds) >= UNTIMED_STEPS + TIMED_STEPS:
            self._decide(agreed(pays(statistics.median(self._seconds[UNTIMED_STEPS:]), steps_left)))

    def _decide(self, decision: bool) -> None:
        self.decision = decision
        if decision:  # which happens at the next pass
            self.forward = torch.compile(self._network.forward, dynamic=False, options={"fallback_random": True})
