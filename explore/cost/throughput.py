"""Throughput and latency of a network, by the protocol of docs/measuring.md."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from explore.cost.device import autocast, device_name, float32_is_meant
from explore.cost.options import Measuring
from explore.cost.record import Throughput
from explore.cost.session import Alone, Session, session
from explore.cost.speed import Speed
from explore.cost.timing import Clock

_LATENCY_SHARE = 1 / 10  # of the time; the others are for throughput
# Batches that `auto` tries, and how much faster a larger one has to be.
_BATCHES = tuple(8 << doublings for doublings in range(10))
_GAIN = 1.03


def measure_throughput(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    options: Measuring,
    clock: Clock | None = None,
    study: Path | None = None,
) -> Throughput:
    """Times inference of a network that takes float `batch × channels × height × width`.

    Images are random and lie on the device already. Weights are cast to bfloat16 once, not in every pass, where the
    precision asks for it. The network is moved to the device and back when it lies elsewhere, and its training mode
    is as before. While it is timed, other processes of this machine that train or measure on the device wait.

    Args:
        network: on the processor or a GPU, not compiled.
        image_shape: channels, height and width of one image, in pixels.
        options: the protocol.
        clock: seconds, for tests.
        study: as for `session`.

    Raises:
        ValueError: the device, precision or dispatch does not exist here, or the network lies on the meta device.
    """
    with (
        session(options, [network], clock, study) as here,
        torch.inference_mode(),
        autocast(here.device, here.precision),
    ):
        batch_size = options.batch_size
        if isinstance(batch_size, str):
            with here.alone() as turn:
                batch_size = fastest_batch(network, image_shape, turn)
        return _timed(network, torch.rand(batch_size, *image_shape, device=here.device), here)


def fastest_batch(network: nn.Module, image_shape: tuple[int, int, int], turn: Alone) -> int:
    """The power of two that gives the most images per second, up to what fits into memory.

    Tried without compiling, from the smallest on, until two in a row are no more than 3 % faster than the best before
    them.
    """
    best, most, disappointments = _BATCHES[0], 0.0, 0
    for batch_size in _BATCHES:
        try:
            images = torch.rand(batch_size, *image_shape, device=turn.session.device)
            # No pass is kept, so that the memory of one is there for the next.
            longest = turn.session.options.max_seconds / 10
            seconds = turn.time({"": turn.session.launched(network, images)[0]}, longest)[""]
        except (RuntimeError, MemoryError):  # a processor without memory raises a plain RuntimeError
            if not most:
                raise
            break
        if (speed := batch_size / float(np.median(seconds))) > _GAIN * most:
            best, most, disappointments = batch_size, speed, 0
        elif (disappointments := disappointments + 1) == 2:
            break
    return best


def _timed(network: nn.Module, images: Tensor, here: Session) -> Throughput:
    options, forward, memory_bytes = here.options, network, None
    # In turns of their own, so that who waits to measure need not wait for all of them.
    if here.dispatch == "compiled":
        with here.turns.computing():
            forward = _compiled(network, images)
    if here.device.type == "cuda":
        with here.turns.computing():
            memory_bytes = _peak_memory(partial(forward, images), network, images)
    many, dispatch = here.ready_pass(forward, images)
    single, _ = here.ready_pass(forward, images[:1])
    with here.alone() as turn:
        seconds = turn.time({"": many}, options.max_seconds * (1 - _LATENCY_SHARE))[""]
        singles = turn.latencies(single, options.max_seconds * _LATENCY_SHARE)
    speed = Speed.of(seconds, len(images), options.interval)
    return Throughput(
        images_per_second=speed.images_per_second,
        low=speed.low,
        high=speed.high,
        settled=speed.settled,
        latency_ms=1000 * float(np.median(singles)),
        latency_p90_ms=_percentile_ms(singles, 90),
        latency_p99_ms=_percentile_ms(singles, 99),
        batch_size=len(images),
        precision=here.precision,
        device=device_name(here.device),
        driver=here.driver,
        threads=options.threads,
        blocks=len(seconds),
        reference_ms=1000 * turn.reference_seconds,
        torch_version=str(torch.__version__),
        dispatch=dispatch,
        memory_bytes=memory_bytes,
        strangers=here.strangers(),
        warmup=options.warmup,
        block_seconds=options.block_seconds,
        interval=options.interval,
        max_seconds=options.max_seconds,
    )


def _percentile_ms(seconds: Sequence[float], percent: int) -> float | None:
    """Milliseconds that so many of a hundred stay below; None of so few that not one would be expected above."""
    return 1000 * float(np.percentile(seconds, percent)) if len(seconds) * (100 - percent) >= 100 else None


def _compiled(network: nn.Module, images: Tensor) -> nn.Module:
    """The network compiled for this batch and for one image, which takes its time before any that counts."""
    # Programs of the networks before this one would count towards torch's limit, behind which it does not compile.
    torch.compiler.reset()
    compiled: nn.Module = torch.compile(network, dynamic=False)  # type: ignore[assignment]
    with float32_is_meant():
        for batch in (images, images[:1]):
            compiled(batch)
    return compiled


def _peak_memory(forward: Callable[[], object], network: nn.Module, images: Tensor) -> int:
    """Peak bytes of a pass on a GPU: network and images, which are there before, and all that comes on top of them."""
    forward()  # what is set up on first use stays
    torch.cuda.synchronize(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    before = torch.cuda.memory_allocated(images.device)
    forward()
    torch.cuda.synchronize(images.device)
    own = sum(one.numel() * one.element_size() for one in (images, *network.parameters(), *network.buffers()))
    return own + torch.cuda.max_memory_allocated(images.device) - before
