"""The published models this package can express, as data, with the figures to check them against.

Parameters are exact (the official code's own tests, or the official code counted). Multiply-adds are for one image of
`image_size` pixels and cover matrix products only; papers call them FLOPs. Top-1 accuracy is on the ImageNet-1k
validation images, `training` says on what the weights behind it were trained. Sources: MLP-Mixer (Tolstikhin et al.,
2021, arXiv 2105.01601v4, tables 1 and 3) and ViT (Dosovitskiy et al., 2020, arXiv 2010.11929; accuracies as measured by
timm for the weights of Steiner et al., 2021, arXiv 2106.10270).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from explore.architecture.catalog import Mixing, one_of
from explore.architecture.spec import Architecture, Model, architecture, patch_sizes

COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published model: what it is made of (`model` holds the fields of `spec.Model` that differ) and its figures.

    `macs` are multiply-adds per image, `top1` is in percent.
    """

    paper: str
    image_size: int
    classes: int
    params: int
    macs: float
    model: Mapping[str, Any]
    token_mixing: str
    channel_mixing: str
    top1: float
    training: str


def _mixer(patch: int, depth: int, width: int, params: int, macs: float, top1: float, training: str) -> Published:
    return Published(
        paper="MLP-Mixer, arXiv 2105.01601",
        image_size=224,
        classes=1000,
        params=params,
        macs=macs,
        model={"patch_size": patch, "depth": depth, "width": width},
        token_mixing="mlp",
        channel_mixing="mlp",
        top1=top1,
        training=training,
    )


def _vit(patch: int, depth: int, width: int, params: int, macs: float, top1: float, training: str) -> Published:
    return Published(
        paper="ViT, arXiv 2010.11929",
        image_size=224,
        classes=1000,
        params=params,
        macs=macs,
        model={"patch_size": patch, "depth": depth, "width": width, "pooling": "class_token"},
        token_mixing="attention",
        channel_mixing="mlp",
        top1=top1,
        training=training,
    )


PUBLISHED: dict[str, Published] = {
    "mixer_s32": _mixer(32, 8, 512, 19_104_624, 1.002e9, 68.70, "JFT-300M"),
    "mixer_s16": _mixer(16, 8, 512, 18_528_264, 3.777e9, 73.83, "JFT-300M"),
    "mixer_b32": _mixer(32, 12, 768, 60_293_428, 3.238e9, 75.53, "JFT-300M"),
    "mixer_b16": _mixer(16, 12, 768, 59_880_472, 12.602e9, 76.44, "ImageNet-1k"),
    "mixer_l32": _mixer(32, 24, 1024, 206_939_264, 11.253e9, 80.67, "JFT-300M"),
    "mixer_l16": _mixer(16, 24, 1024, 208_196_168, 44.548e9, 71.76, "ImageNet-1k"),
    "mixer_h14": _mixer(14, 32, 1280, 432_350_952, 120.99e9, 86.32, "JFT-300M"),
    "vit_ti16": _vit(16, 12, 192, 5_717_416, 1.254e9, 75.46, "ImageNet-21k"),
    "vit_s32": _vit(32, 12, 384, 22_878_952, 1.143e9, 76.01, "ImageNet-21k"),
    "vit_s16": _vit(16, 12, 384, 22_050_664, 4.599e9, 78.84, "ImageNet-1k"),
    "vit_b32": _vit(32, 12, 768, 88_224_232, 4.409e9, 74.91, "ImageNet-1k"),
    "vit_b16": _vit(16, 12, 768, 86_567_656, 17.564e9, 79.15, "ImageNet-1k"),
    "vit_l16": _vit(16, 24, 1024, 304_326_632, 61.555e9, 85.86, "ImageNet-21k"),
}


def published(name: str) -> Architecture:
    """The architecture of a published model, for colour images; raises `ValueError` for an unknown name."""
    row = PUBLISHED[one_of("a published model", name, PUBLISHED)]
    return adapted(name, image_size=row.image_size, channels=COLOURS, classes=row.classes)


def adapted(name: str, *, image_size: int, channels: int, classes: int) -> Architecture:
    """A published model for other images: its patch size is the largest up to the published one that divides them."""
    row = PUBLISHED[one_of("a published model", name, PUBLISHED)]
    patch = max(size for size in patch_sizes(image_size) if size <= row.model["patch_size"])
    return architecture(
        Model(**{**row.model, "patch_size": patch}),
        Mixing(name=row.token_mixing),
        Mixing(name=row.channel_mixing),
        image_size=image_size,
        channels=channels,
        classes=classes,
    )
