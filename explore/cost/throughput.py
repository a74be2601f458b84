"""Images per second and latency of a network: eval mode, warm-up, timed blocks, synchronised, median with spread."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from explore.cost.device import autocast, device_name, exclusive, resolve_device, resolve_precision
from explore.cost.options import Measuring
from explore.cost.record import Throughput
from explore.cost.timing import CLOCK, Clock, Speed, ready, seconds_per_pass, synchronizer, threads


def measure_throughput(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    options: Measuring,
    clock: Clock = CLOCK,
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
    synchronize = synchronizer(device)
    with (
        exclusive(device),
        threads(options.threads),
        ready(network, device),
        torch.inference_mode(),
        autocast(device, precision),
    ):
        images = torch.rand(options.batch_size, *image_shape, device=device)
        forward = network if options.dispatch == "eager" else _compiled(network, images)
        memory = _PeakMemory(device)
        batches = seconds_per_pass(partial(forward, images), synchronize, options, clock)
        memory_bytes = memory.peak([images, *network.parameters(), *network.buffers()])
        singles = seconds_per_pass(partial(forward, images[:1]), synchronize, options, clock)
    speed = Speed.of(batches, options.batch_size)
    return Throughput(
        images_per_second=speed.images_per_second,
        low=speed.low,
        high=speed.high,
        latency_ms=1000 * float(np.median(singles)),
        batch_size=options.batch_size,
        precision=precision,
        device=device_name(device),
        threads=options.threads,
        blocks=len(batches),
        torch_version=str(torch.__version__),
        dispatch=options.dispatch,
        memory_bytes=memory_bytes,
    )


def _compiled(network: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """The network compiled for this batch and for one image, which takes its time before any that counts."""
    # Programs of the networks before this one would count towards torch's limit, behind which it does not compile.
    torch.compiler.reset()
    compiled: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False)
    for batch in (images, images[:1]):
        compiled(batch)
    return compiled


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
