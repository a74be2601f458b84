"""Batches of a split, made on the device: no worker processes, no per-image Python, the same in every run."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from explore.data.augmentation import Draws, draw, erase, flip, mix
from explore.data.dataset import Split
from explore.data.gathering import Resident, Streamed, fits
from explore.data.options import Augmentation


class Batches:
    """One pass over a split: normalised images (float32, batch × channels × height × width) and their targets.

    Targets are labels (int64, batch), or distributions over the classes (float32, batch × classes) if the augmentation
    mixes images. Order and augmentation depend on nothing but the seed and the epoch (see `set_epoch`): an epoch is the
    same to the bit after a resume, and on another device up to its arithmetic. `mean` and `std` are per channel, with
    pixels from 0 to 1. A split that does not fit into the device's memory (see `fits`) stays in its memory map, from
    which the batches come ahead of their use, the same to the bit. A split smaller than a batch is one batch.

    Raises ValueError for a batch size below 1, a negative seed or epoch, and an augmentation out of range.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        device: torch.device | str,
        mean: Sequence[float],
        std: Sequence[float],
        classes: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.augmentation = augmentation or Augmentation()
        self.augmentation.check()
        self.device = torch.device(device)
        self.batch_size = min(batch_size, len(split))
        self.classes, self.seed, self.shuffle, self.drop_last = classes, seed, shuffle, drop_last
        self.epoch = 0
        self._labels = split.labels.to(self.device)
        shift = self.augmentation.shift
        place = Resident if fits(split.images, shift, self.device) else Streamed
        self._images = place(split.images, shift, self.device)
        self._height, self._width = split.images.shape[-2:]
        deviation = torch.tensor(std, device=self.device).view(-1, 1, 1)
        self._scale = 1 / (255 * deviation)
        self._bias = -torch.tensor(mean, device=self.device).view(-1, 1, 1) / deviation

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0 on, that the next pass is; a new object is at epoch 0."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        self.epoch = epoch

    def seeded(self, seed: int) -> "Batches":
        """The same images in the order and with the augmentation of another seed, without a copy of them."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def __len__(self) -> int:
        """How many batches a pass has."""
        whole, rest = divmod(len(self._labels), self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self._labels)
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(count) if self.shuffle else np.arange(count)
        rows = torch.from_numpy(order)
        draws = draw(self.augmentation, count, self._height, self._width, generator).to(self.device)
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        parts = [slice(start, start + self.batch_size) for start in starts]
        drawn = [draws[part] for part in parts]
        picked = self._images.pick([rows[part] for part in parts], [one.offsets for one in drawn])
        labels = self._labels.index_select(0, rows.to(self.device))
        for part, images, one in zip(parts, picked, drawn, strict=True):
            yield self._batch(images, labels[part], one)

    def _batch(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        if draws.flipped is not None:
            images = flip(images, draws.flipped)
        images = images.float().mul_(self._scale).add_(self._bias)
        if draws.erased is not None:
            images = erase(images, draws.erased)
        if self.augmentation.mixes:
            return mix(images, labels, self.classes, draws.kept, draws.cut)
        return images, labels
