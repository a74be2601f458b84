"""Images per second of training: forward, backward and a step of AdamW."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.cost.device import autocast, exclusive, resolve_device, resolve_precision
from explore.cost.options import Measuring
from explore.cost.timing import CLOCK, Clock, seconds_per_pass, synchronizer, threads


@dataclass(frozen=True, kw_only=True)
class TrainingSpeed:
    """Images per second in training: median over the timed blocks, lower and upper quartile."""

    images_per_second: float
    low: float
    high: float


def measure_training_step(
    network: nn.Module, image_shape: tuple[int, int, int], options: Measuring, clock: Clock = CLOCK
) -> TrainingSpeed:
    """Times training steps of a copy of a classifier that takes float `batch × channels × height × width`.

    Images and labels are random and lie on the device already; operators are launched one by one. Batch size, device,
    precision and threads are those of the options; other processes of this machine that measure on the device wait.

    Raises `ValueError` for a device or precision that does not exist here.
    """
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    copied = copy.deepcopy(network).to(device).train()
    optimizer = torch.optim.AdamW(copied.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        with autocast(device, precision):
            logits = copied(images)
        loss: Tensor = F.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with exclusive(device), threads(options.threads):
        images = torch.rand(options.batch_size, *image_shape, device=device)
        with torch.no_grad():
            classes = copied(images[:2]).shape[1]
        labels = torch.randint(classes, (options.batch_size,), device=device)
        seconds = seconds_per_pass(step, synchronizer(device), options, clock)
    low, median, high = np.quantile([options.batch_size / one for one in seconds], [0.25, 0.5, 0.75]).tolist()
    return TrainingSpeed(images_per_second=median, low=low, high=high)
