"""Architectures and networks small enough to be built in a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from explore.architecture.catalog import Mixing
from explore.architecture.hidden import MAY_OVERWRITE
from explore.architecture.network import Network
from explore.architecture.spec import Architecture, Model, Stage, architecture

MLP = Mixing(name="mlp")
ATTENTION = Mixing(name="attention")
STEPS = ["projection", "norm", "relu"]


def build(
    token_mixing: Mixing = MLP, image_size: int = 16, channels: int = 3, classes: int = 10, **model: Any
) -> Architecture:
    options = Model.of({"patch_size": 4, "depth": 2, "width": 8} | model)
    return architecture(options, token_mixing, MLP, image_size=image_size, channels=channels, classes=classes)


def stage(depth: int, width: int, token: Mixing = MLP, channel: Mixing = MLP, *, downsample: bool = True) -> Stage:
    return Stage(depth=depth, width=width, token_mixing=(token,), channel_mixing=(channel,), downsample=downsample)


def network(token_mixing: Mixing = MLP, seed: int = 0, **options: Any) -> Network:
    torch.manual_seed(seed)
    return Network(build(token_mixing, **options)).eval()


def images(batch: int = 2, channels: int = 3, size: int = 16) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


@contextmanager
def overwriting() -> Iterator[None]:
    """What is called within is called as in the pass of a network in which nobody looks."""
    before = MAY_OVERWRITE.set(True)
    try:
        yield
    finally:
        MAY_OVERWRITE.reset(before)
