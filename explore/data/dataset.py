"""A data set in memory: decoded, split into train, validation and test, and described."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explore.data.cache import Arrays, cache_folder, fetch, store
from explore.data.options import Data
from explore.data.sources import Images, Labels
from explore.data.splits import SPLITS, complete

# Raise it when the same options and files would give other pixels or splits than before.
CACHE_VERSION = 1
NOT_PIXELS = ("augmentation", "cache", "snapshot")  # options that change no stored pixel


@dataclass(frozen=True)
class Split:
    """Images (uint8, images × channels × height × width) and the label of each (int64)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images of one size in three splits.

    `mean`, `std`: per channel over the train split, with pixels from 0 to 1. `skipped`: corrupt images left out.
    `fingerprint`: changes with any pixel, label or split, so that a result can name the data it was made with.
    `snapshot`: where in the cache it lies, see `Data.snapshot`.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    skipped: int
    fingerprint: str
    snapshot: str

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return self.train.images.shape[-1]

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (colour)."""
        return self.train.images.shape[1]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width, in pixels."""
        return self.channels, self.image_size, self.image_size


def load(data: Data) -> Dataset:
    """Read the images of a source: decoded the first time, from the cache on disk (as memory maps) after that.

    With a snapshot the files are looked at only if it is no longer in the cache.

    Raises ValueError if an option is out of range, the source cannot be read, its images do not make a data set, or
    they are no longer those of the snapshot.
    """
    data.check()
    place = cache_folder(data.cache)
    if data.snapshot and (known := fetch(place / data.snapshot)):
        return _dataset(*known, data.snapshot)
    name = _key(data)
    if data.snapshot and name != data.snapshot:
        raise ValueError(
            f"the images of a search must stay the same, got files that changed since it began, and {data.snapshot} is "
            f"no longer in {place}; begin another search"
        )
    cached = fetch(place / name)
    if cached is None:
        arrays, facts = _prepare(data)
        store(place / name, arrays, facts)
        cached = fetch(place / name) or (arrays, facts)
    return _dataset(*cached, name)


def _key(data: Data) -> str:
    kind = type(data)
    options = {name: value for name, value in dataclasses.asdict(data).items() if name not in NOT_PIXELS}
    content = [CACHE_VERSION, kind.__module__, kind.__qualname__, options, list(data.listing())]
    return f"{kind.__name__.lower()}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"


def _prepare(data: Data) -> tuple[Arrays, dict[str, Any]]:
    decoded = data.read()
    splits = complete(decoded, {"validation": data.validation, "test": data.test}, data.split_seed)
    mean, std = statistics(splits["train"][0])
    arrays: dict[str, Images | Labels] = {}
    for split in SPLITS:
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = splits[split]
    facts = {
        "name": decoded.name,
        "classes": decoded.classes,
        "mean": mean,
        "std": std,
        "skipped": decoded.skipped,
        "fingerprint": _fingerprint(arrays, decoded.classes),
    }
    return arrays, facts


def statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels of each channel, as numbers from 0 to 1; exact, from histograms.

    A channel without any variation gets the standard deviation 1, so that it can be divided by.
    """
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        histogram: NDArray[np.int64] = np.zeros(256, np.int64)
        for chunk in np.array_split(images, max(1, len(images) // 1024)):
            histogram += np.bincount(chunk[:, channel].ravel(), minlength=256)
        weights = histogram / histogram.sum()
        mean = float(weights @ levels)
        means.append(mean)
        deviations.append(float(np.sqrt(weights @ (levels - mean) ** 2)) or 1.0)
    return tuple(means), tuple(deviations)


def _fingerprint(arrays: Arrays, classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(json.dumps(classes).encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def _dataset(arrays: Arrays, facts: dict[str, Any], snapshot: str) -> Dataset:
    splits = [Split(*(torch.from_numpy(arrays[f"{name}_{part}"]) for part in ("images", "labels"))) for name in SPLITS]
    return Dataset(
        name=facts["name"],
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        classes=tuple(facts["classes"]),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        skipped=facts["skipped"],
        fingerprint=facts["fingerprint"],
        snapshot=snapshot,
    )
