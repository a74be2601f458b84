"""The turns of measuring on a device: one makes ready beside others, and times alone, with the reference beside."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from explore.cost.allocator import keep_freed_memory
from explore.cost.device import (
    check_threads,
    device_name,
    driver_version,
    resolve_device,
    resolve_dispatch,
    resolve_precision,
)
from explore.cost.options import Measuring
from explore.cost.reference import calibrated, reference_pass
from explore.cost.speed import settled
from explore.cost.timing import (
    CLOCK,
    Blocks,
    Clock,
    Stopwatch,
    by_clock,
    ratios_in_turn,
    ready,
    stopwatch,
    threads,
)
from explore.cost.turns import Turns, strangers
from explore.launching import Pool, at_once

_CALIBRATION_SECONDS = 1.0
_UNDISTURBED = 0.1  # of the blocks; a device that others use is left alone in its fastest moments only
_SOONEST = 0.08  # share of the time before which nothing counts as settled
_LATENCIES = 1000  # are enough for the slowest in a hundred


@dataclass(frozen=True, kw_only=True)
class Alone:
    """The time in which this process has the device for itself.

    `reference_seconds` is a pass of the reference network when nobody disturbs it.
    """

    session: "Session"
    reference: Blocks
    reference_seconds: float

    def time(self, passes: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
        """Seconds of each pass in each block, as on an undisturbed device; all have as many blocks.

        The blocks of all and of the reference are taken in turn, until every figure has settled or `seconds` for each
        would be over before another turn.
        """
        clock, watch, options = self.session.clock, self.session.watch, self.session.options
        began, longest = clock(), seconds * len(passes)
        soonest, until = began + _SOONEST * longest, began + longest
        blocks = {name: Blocks(forward, watch, options.block_seconds) for name, forward in passes.items()}
        for one in blocks.values():
            one.warm_up(options.warmup, clock, clock() + seconds / 4)
        before = clock()

        def go_on(ratios: Mapping[str, Sequence[float]]) -> bool:
            nonlocal before
            now = clock()
            before, next_end = now, 2 * now - before
            return next_end < until and (
                now < soonest or not all(settled(one, options.interval) for one in ratios.values())
            )

        ratios = ratios_in_turn(blocks, self.reference, go_on)
        return {name: [one * self.reference_seconds for one in each] for name, each in ratios.items()}

    def latencies(self, forward: Callable[[], object], seconds: float) -> list[float]:
        """Seconds of single passes on the clock, as one who waits for an answer sees them."""
        clock, device = self.session.clock, self.session.device

        def answered() -> None:
            forward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        answered()
        wait, until, found = by_clock(clock), clock() + seconds, list[float]()
        while not found or (len(found) < _LATENCIES and clock() < until):
            found.append(wait(answered, 1))
        return found


@dataclass(frozen=True, kw_only=True)
class Session:
    """What all that is timed by one protocol has in common.

    `precision` and `dispatch` are what those of the options are on this device. `strangers_before` are those at the
    beginning. The memory of `pool` is shared by what is captured in this session; there is none on a processor.
    """

    device: torch.device
    precision: str
    dispatch: str
    options: Measuring
    clock: Clock
    watch: Stopwatch
    driver: str | None
    strangers_before: Sequence[str]
    pool: Pool | None
    turns: Turns
    reference: Callable[[], object]
    study: Path | None

    def ready_pass(self, forward: Callable[[Tensor], object], images: Tensor) -> tuple[Callable[[], object], str]:
        """As `launched`, in a turn of its own where anything is done beforehand."""
        with nullcontext() if self.dispatch == "eager" else self.turns.computing():
            return self.launched(forward, images)

    def launched(self, forward: Callable[[Tensor], object], images: Tensor) -> tuple[Callable[[], object], str]:
        """A pass that is launched as the protocol says, and how it is: `eager` where it could not be captured.

        To be called in the contexts that the pass is to run in, in a turn. What the pass itself raises is raised here.
        """
        plain = partial(forward, images)
        if self.dispatch == "eager":
            return plain, self.dispatch
        launch = at_once(plain, self.device, self.pool)
        return launch, "eager" if self.dispatch == "graph" and launch is plain else self.dispatch

    @contextmanager
    def alone(self) -> Iterator[Alone]:
        """Waits until nobody else computes or measures on the device, and keeps it until the end."""
        longest = min(_CALIBRATION_SECONDS, self.options.max_seconds)
        with self.turns.measuring():
            reference = Blocks(self.reference, self.watch, self.options.block_seconds)
            reference.warm_up(self.options.warmup, self.clock, self.clock() + longest)
            protocol: dict[str, object] = {
                "device": device_name(self.device),
                "driver": self.driver,
                "precision": self.precision,
                "threads": self.options.threads,
                "torch": str(torch.__version__),
            }
            seconds = calibrated(protocol, lambda: _undisturbed(reference, longest), self.study)
            yield Alone(session=self, reference=reference, reference_seconds=seconds)

    def strangers(self) -> tuple[str, ...]:
        """Processes of others on the GPU, which wait for no turns: those at the beginning, and who is there now."""
        return tuple(dict.fromkeys((*self.strangers_before, *strangers(self.device))))


@contextmanager
def session(
    options: Measuring, networks: Iterable[nn.Module] = (), clock: Clock | None = None, study: Path | None = None
) -> Iterator[Session]:
    """Takes the turns of what is measured: of what is made ready, beside others, and of what is timed, alone.

    Args:
        options: the protocol.
        networks: what lies on the device until the end, in eval mode, and is afterwards where and how it was. Moved in
            inference mode, weights could not be trained any more.
        clock: tells seconds of everything, for tests; by default work is timed as `stopwatch` says.
        study: the folder of the study whose figures these have to be on one scale with; see `calibrated`.

    Raises:
        ValueError: the device, precision or dispatch does not exist here, there are fewer cores than threads, or a
            network lies on the meta device.
    """
    check_threads(options.threads)
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    dispatch = resolve_dispatch(options.dispatch, device)
    keep_freed_memory()
    with Turns(device) as turns, threads(options.threads), ExitStack() as stack:
        with turns.computing():  # on a GPU it begins with loading libraries, for which nobody has to wait
            for network in networks:
                stack.enter_context(ready(network, device))
            reference = reference_pass(device, precision)
        yield Session(
            device=device,
            precision=precision,
            dispatch=dispatch,
            options=options,
            clock=clock or CLOCK,
            watch=by_clock(clock) if clock else stopwatch(device, options.threads),
            driver=driver_version(device),
            strangers_before=strangers(device),
            pool=torch.cuda.graph_pool_handle() if device.type == "cuda" else None,
            turns=turns,
            reference=reference,
            study=study,
        )


def _undisturbed(reference: Blocks, longest: float) -> float:
    until, seconds = time.monotonic() + longest, [reference.block()]
    while time.monotonic() < until:
        seconds.append(reference.block())
    return float(np.quantile(seconds, _UNDISTURBED))
