"""Images per second of training: forward, backward and a step of AdamW."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.cost.device import autocast, exclusive, resolve_device, resolve_precision
from explore.cost.options import Measuring
from explore.cost.timing import CLOCK, Clock, Speed, seconds_per_pass, synchronizer, threads


def measure_training_step(
    network: nn.Module, image_shape: tuple[int, int, int], options: Measuring, clock: Clock = CLOCK
) -> Speed:
    """Times training steps of a copy of a classifier that takes float `batch × channels × height × width`.

    Images and labels are random and lie on the device already; operators are launched one by one. Batch size, device,
    precision and threads are those of the options; other processes of this machine that measure on the device wait.

    Raises:
        ValueError: the device or precision does not exist here, or the network lies on the meta device.
    """
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    with exclusive(device), threads(options.threads):
        images = torch.rand(options.batch_size, *image_shape, device=device)
        step = training_step(network, images, precision)
        return Speed.of(seconds_per_pass(step, synchronizer(device), options, clock), options.batch_size)


def training_step(network: nn.Module, images: Tensor, precision: str) -> Callable[[], None]:
    """One training step of a copy of the network on the device of the images, ready to be taken again and again.

    Raises `ValueError` for a network on the meta device.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        raise ValueError("a network must have weights to be trained, got one on the meta device; build it on the cpu")
    copied = copy.deepcopy(network).to(images.device).train()
    # So small a step that the weights, and with them the time of a pass, stay what they are.
    optimizer = torch.optim.AdamW(copied.parameters(), lr=1e-6, fused=True)
    with torch.no_grad(), autocast(images.device, precision):
        classes = copied(images).shape[1]
    labels = torch.randint(classes, images.shape[:1], device=images.device)

    def step() -> None:
        with autocast(images.device, precision):
            logits = copied(images)
        loss: Tensor = F.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
