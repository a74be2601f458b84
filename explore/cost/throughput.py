"""Images per second and latency of a network: eval mode, warm-up, timed blocks, synchronised, median with spread."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from explore.cost.device import autocast, device_name, exclusive, resolve_device, resolve_precision
from explore.cost.options import Measuring
from explore.cost.record import Throughput


def measure_throughput(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    options: Measuring,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput:
    """Times inference of a network that takes float `batch × channels × height × width`.

    Images are random and lie on the device already. Weights are cast to bfloat16 once, not in every pass, where the
    precision asks for it. The network is moved to the device and back when it lies elsewhere, and its training mode
    is as before. While it is timed, other processes of this machine that want to measure on the device wait.

    Args:
        network: on the processor or a GPU, not compiled.
        image_shape: channels, height and width of one image, in pixels.
        options: the protocol.
        clock: seconds, monotonic.

    Raises:
        ValueError: the device or precision does not exist here, or the network lies on the meta device.
    """
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    synchronize = partial(torch.cuda.synchronize, device) if device.type == "cuda" else _nothing_to_wait_for
    with (
        exclusive(device),
        _threads(options.threads),
        _ready(network, device),
        torch.inference_mode(),
        autocast(device, precision),
    ):
        images = torch.rand(options.batch_size, *image_shape, device=device)
        memory = _PeakMemory(device)
        batches = _seconds_per_pass(partial(network, images), synchronize, options, clock)
        memory_bytes = memory.peak([images, *network.parameters(), *network.buffers()])
        singles = _seconds_per_pass(partial(network, images[:1]), synchronize, options, clock)
    low, median, high = np.quantile([options.batch_size / seconds for seconds in batches], [0.25, 0.5, 0.75]).tolist()
    return Throughput(
        images_per_second=median,
        low=low,
        high=high,
        latency_ms=1000 * float(np.median(singles)),
        batch_size=options.batch_size,
        precision=precision,
        device=device_name(device),
        threads=options.threads,
        blocks=len(batches),
        torch_version=str(torch.__version__),
        memory_bytes=memory_bytes,
    )


def _seconds_per_pass(
    forward: Callable[[], object], synchronize: Callable[[], None], options: Measuring, clock: Callable[[], float]
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
def _ready(network: nn.Module, device: torch.device) -> Iterator[None]:
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
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _PeakMemory:
    """Peak bytes on a GPU since the object was made; None on the processor, which keeps no such record."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)

    def peak(self, resident: list[Tensor]) -> int | None:
        """Bytes of the resident tensors, which were there before, and of everything that came on top of them."""
        if self.device.type != "cuda":
            return None
        own = sum(tensor.numel() * tensor.element_size() for tensor in resident)
        return own + torch.cuda.max_memory_allocated(self.device) - self.before


def _nothing_to_wait_for() -> None:
    """Operators on the processor have ended when they return."""
