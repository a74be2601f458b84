"""A training step to be timed: forward, backward and a step of AdamW."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.cost.device import autocast


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
