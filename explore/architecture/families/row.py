"""One published model as data: what it is made of, and the figures to check it against.

Parameters are exact (the official code's own tests, or the official code counted). Multiply-adds are for one image and
cover matrix products and convolutions only; papers call them FLOPs. Top-1 accuracy is that on the ImageNet-1k
validation images which the authors state, None where we could not read it there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IMAGENET = "ImageNet-1k"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published model: what it is made of (`model` holds the fields of `spec.Model` that differ) and its figures.

    `params` and `macs` (multiply-adds per image) are those of the network that is trained, `deployed` is the same pair
    for the authors' inference form where they have one; `top1` is in percent, `training` says on what those weights
    were trained; square images of `image_size` pixels.
    """

    paper: str
    params: int
    macs: float
    model: Mapping[str, Any]
    token_mixing: str | Mapping[str, Any]
    channel_mixing: str | Mapping[str, Any]
    top1: float | None = None
    training: str = IMAGENET
    image_size: int = 224
    classes: int = 1000
    deployed: tuple[int, float] | None = None
