"""Random changes of a batch of images, each image on its own, as tensor operations on the images' device.

Chance and change are apart: `draw` decides for a whole epoch, in numpy, so that a seed means the same on every device;
the functions that change images are deterministic. Sources: shift (random crop with zero padding) and flip as in K. He
et al., Deep Residual Learning, 2016, §4.2; erasing: Z. Zhong et al., Random Erasing, 2020, algorithm 1; mixup: H. Zhang
et al., mixup, 2018, §2; cutmix: S. Yun et al., CutMix, 2019, §3.1 and the official code. Unlike there, the share of an
image is drawn per image, not per batch, and its partner is its neighbour in the (shuffled) batch.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from explore.data.options import Augmentation

Reals = NDArray[np.float64]

ERASED_AREA = (0.02, 0.4)  # share of the image; Zhong et al., §4.1
ERASED_ASPECT = (0.3, 1 / 0.3)  # height by width


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What happens to each of `count` images; None where an augmentation is off.

    `offsets`: top and left corner of the crop from the padded image, pixels (count × 2). `flipped`: bool (count).
    `erased`: box that becomes the mean colour. `kept`: share of each pixel that is not the partner's (count, float32).
    `cut`: box that is the partner's. Boxes are top, bottom, left, right in pixels (count × 4), ends exclusive.
    """

    offsets: Tensor | None = None
    flipped: Tensor | None = None
    erased: Tensor | None = None
    kept: Tensor | None = None
    cut: Tensor | None = None

    def to(self, device: torch.device) -> "Draws":
        """The same on a device."""
        return Draws(**{name: None if draws is None else draws.to(device) for name, draws in vars(self).items()})

    def __getitem__(self, rows: slice) -> "Draws":
        return Draws(**{name: None if draws is None else draws[rows] for name, draws in vars(self).items()})


def draw(augmentation: Augmentation, count: int, height: int, width: int, generator: np.random.Generator) -> Draws:
    """Decide what happens to each of `count` images of `height` × `width` pixels."""
    draws: dict[str, NDArray[np.generic]] = {}
    if augmentation.shift:
        draws["offsets"] = generator.integers(0, 2 * augmentation.shift + 1, (count, 2))
    if augmentation.flip:
        draws["flipped"] = generator.random(count) < 0.5
    if augmentation.erasing:
        box = _erased_boxes(count, height, width, generator)
        draws["erased"] = np.where(generator.random((count, 1)) < augmentation.erasing, box, 0)
    chance_of_mixup = 0.5 if augmentation.mixup and augmentation.cutmix else float(augmentation.mixup > 0)
    mixup = generator.random(count) < chance_of_mixup
    if augmentation.mixup:
        share = generator.beta(augmentation.mixup, augmentation.mixup, count)
        draws["kept"] = np.where(mixup, share, 1).astype(np.float32)
    if augmentation.cutmix:
        share = generator.beta(augmentation.cutmix, augmentation.cutmix, count)
        draws["cut"] = np.where(mixup[:, None], 0, _cut_boxes(share, height, width, generator))
    return Draws(**{name: torch.from_numpy(values) for name, values in draws.items()})


def _erased_boxes(count: int, height: int, width: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Boxes of a uniform area and log-uniform aspect, anywhere in the image; a side is at most the image's."""
    area = generator.uniform(ERASED_AREA[0], ERASED_AREA[1], count) * height * width
    aspect = np.exp(generator.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), count))
    tall = np.clip(np.rint(np.sqrt(area * aspect)), 1, height)
    wide = np.clip(np.rint(np.sqrt(area / aspect)), 1, width)
    top = np.floor(generator.random(count) * (height - tall + 1))
    left = np.floor(generator.random(count) * (width - wide + 1))
    return np.stack([top, top + tall, left, left + wide], axis=1).astype(np.int64)


def _cut_boxes(share: Reals, height: int, width: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Boxes that leave `share` of the image: of its aspect, with a uniform centre, cut off at its borders."""
    ends = []
    for side in (height, width):
        half = np.floor(side * np.sqrt(1 - share)) / 2
        centre = np.floor(generator.random(len(share)) * side)
        ends += [np.clip(np.floor(centre - half), 0, side), np.clip(np.floor(centre + half), 0, side)]
    return np.stack(ends, axis=1).astype(np.int64)


class Shifted:
    """Images that can be picked with an offset each, as fast as without.

    With `margin` black pixels between rows and images, a shifted image is one run of memory: a picked image is a single
    copy of bytes, where a crop by index or by a view of all crops takes three to five times longer.
    """

    def __init__(self, images: Tensor, margin: int) -> None:
        _, self.channels, self.height, self.width = images.shape
        self.rows, self.pitch = self.height + 2 * margin, self.width + margin
        self.run = self.channels * self.rows * self.pitch
        # The black pixels left of a row are the ones right of the row above, hence no padding on the right.
        padded = F.pad(images, (margin, 0, margin, margin)).flatten()
        padded = F.pad(padded, (0, 2 * margin * self.pitch + 2 * margin))
        self.runs = padded.as_strided((len(padded) - self.run + 1, self.run), (1, 1))

    def pick(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """The images of `rows`, each from its offset on (top, left; from 0 to 2 × margin; margin is no shift)."""
        starts = rows * self.run + offsets[:, 0] * self.pitch + offsets[:, 1]
        picked = self.runs.index_select(0, starts).view(-1, self.channels, self.rows, self.pitch)
        return picked[..., : self.height, : self.width]


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Exchange left and right of the images that `flipped` marks."""
    if images.is_cuda:
        # To pick the marked ones alone takes a processor half of the time, but a GPU is waited for to know how many.
        return torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
    rows = flipped.nonzero().squeeze(1)
    return images.index_copy(0, rows, images.index_select(0, rows).flip(-1))


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Set a box of each image to 0, which is the mean colour of normalised images."""
    return images.masked_fill(inside(boxes, *images.shape[-2:]), 0)


def mix(images: Tensor, labels: Tensor, classes: int, kept: Tensor | None, cut: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mix each image with the one before it in the batch (see `Draws`).

    Returns the images and their targets (batch × classes, float32): the share of the pixels that each label has.
    """
    height, width = images.shape[-2:]
    partners = images.roll(1, 0)
    share = torch.ones(len(labels), device=images.device)
    if kept is not None:
        images, share = torch.lerp(partners, images, kept.view(-1, 1, 1, 1)), kept
    if cut is not None:
        images = torch.where(inside(cut, height, width), partners, images)
        share = share * (1 - (cut[:, 1] - cut[:, 0]) * (cut[:, 3] - cut[:, 2]) / (height * width))
    targets = F.one_hot(labels, classes).float()
    return images, torch.lerp(targets.roll(1, 0), targets, share.unsqueeze(1))


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels are in the box of each image (batch × 1 × height × width, bool)."""
    top, bottom, left, right = boxes[:, :, None].unbind(1)
    y = torch.arange(height, device=boxes.device)
    x = torch.arange(width, device=boxes.device)
    return ((y >= top) & (y < bottom))[:, None, :, None] & ((x >= left) & (x < right))[:, None, None, :]
