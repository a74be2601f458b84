"""Encoded images to arrays: orientation, grey or colour, transparency, bit depth and size.

What must be equal for a whole data set (size, number of channels) is decided from the headers of all its files; then
every image is decoded once, straight into its place.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from explore.control_groups import memory
from explore.counted import counted

GREY_MODES = ("1", "L", "LA", "La", "I")
ORIENTATION = 0x0112  # EXIF tag; with a value from 5 on, height and width change places
SIZES_SHOWN = 4

T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """An image as a file holds it; `name` is what messages call it."""

    name: str
    content: Path | bytes

    def open(self) -> Image.Image:
        """Read the header; the pixels follow on demand."""
        return Image.open(self.content if isinstance(self.content, Path) else BytesIO(self.content))


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What images become: see `Data.image_size` and `Files` in `explore.data.options`."""

    size: int | None = None
    color: bool | None = None
    skip_corrupt: bool = False


@dataclass(frozen=True)
class Header:
    """What is known of an image without decoding it: height and width in pixels when upright, and if it is grey."""

    height: int
    width: int
    grey: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


class CorruptImageError(ValueError):
    """An image cannot be decoded; the message names it."""

    def __init__(self, image: Encoded, error: Exception) -> None:
        reason = "unknown format" if type(error).__name__ == "UnidentifiedImageError" else str(error)
        advice = "repair or remove it, or leave out such images with data.on_corrupt=skip"
        super().__init__(f"images must be decodable, got {image.name!r} ({reason}); {advice}")


def decode(images: Sequence[Encoded], decoding: Decoding) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode images to one array (images × channels × height × width), in threads.

    Returns it with the positions of the images that are in it, which are not all if corrupt ones are skipped.

    Raises:
        CorruptImageError: an image cannot be decoded, and such images are not skipped.
        ValueError: the images are not squares of one size and no size is given, or none can be decoded, or all together
            do not fit into the memory.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        headers = list(pool.map(partial(_attempt, read_header, decoding.skip_corrupt), images))
        readable = [header for header in headers if header is not None]
        if not readable:
            raise ValueError(f"none of the {len(images)} images can be decoded; the first is {images[0].name!r}")
        side = decoding.size or _common_side(images, headers)
        color = decoding.color if decoding.color is not None else not all(header.grey for header in readable)
        channels = 3 if color else 1
        refuse_too_large(len(images), channels, side)
        result = np.empty((len(images), channels, side, side), np.uint8)
        read = partial(_attempt, partial(read_pixels, color=color, size=decoding.size), decoding.skip_corrupt)

        def place(position: int) -> bool:
            pixels = None if headers[position] is None else read(images[position])
            if pixels is not None:
                result[position] = pixels.reshape(side, side, channels).transpose(2, 0, 1)
            return pixels is not None

        decoded = np.array(list(pool.map(place, range(len(images)))))
    return result if decoded.all() else result[decoded], np.flatnonzero(decoded)


def refuse_too_large(count: int, channels: int, side: int) -> None:
    """Raise ValueError where so many images of so many pixels a side are more than there is memory."""
    needed, there = count * channels * side**2, memory()
    if needed > there:
        raise ValueError(
            f"data.image_size must be such that all images fit into the memory, got {side}: {count:,} of {channels} × "
            f"{side} × {side} pixels are {needed:,} bytes, and there are {there:,}; take a smaller one"
        )


def read_header(encoded: Encoded) -> Header:
    """Size and colours of an image, without its pixels; raises `CorruptImageError`."""
    try:
        with encoded.open() as image:
            width, height = image.size
            if image.getexif().get(ORIENTATION, 1) >= 5:
                width, height = height, width
            return Header(height, width, _is_grey(image))
    except Exception as error:  # what a damaged file raises is up to its decoder
        raise CorruptImageError(encoded, error) from error


def read_pixels(encoded: Encoded, *, color: bool, size: int | None) -> NDArray[np.uint8]:
    """Decode an image to height × width × 3 (`color`) or height × width; raises `CorruptImageError`.

    It is turned upright by its EXIF orientation; 16-bit grey becomes 8-bit; transparent parts become white. With `size`
    the result is a square (see `fit`).
    """
    try:
        with encoded.open() as opened:
            image = _opaque(_eight_bit(ImageOps.exif_transpose(opened))).convert("RGB" if color else "L")
            return np.asarray(image if size is None else _fit(image, size))
    except Exception as error:  # as above
        raise CorruptImageError(encoded, error) from error


def fit(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize the short side to `size` pixels (bicubic) and cut out the centre square."""
    return np.asarray(_fit(Image.fromarray(image), size))


def _fit(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def _attempt(read: Callable[[Encoded], T], skip_corrupt: bool, image: Encoded) -> T | None:
    try:
        return read(image)
    except CorruptImageError:
        if skip_corrupt:
            return None
        raise


def _common_side(images: Sequence[Encoded], headers: Sequence[Header | None]) -> int:
    """The side of images that are squares of one size; raises ValueError for others, and says which there are."""
    sizes = [header.size for header in headers if header]
    counts = Counter(sizes)
    if len(counts) == 1 and sizes[0][0] == sizes[0][1]:
        return sizes[0][0]
    if len(counts) == 1:
        height, width = sizes[0]
        raise ValueError(
            f"images must be square, got {height} × {width} (height × width); set data.image_size={min(sizes[0])}"
        )
    usual = sorted(counts, key=lambda size: (-counts[size], size))
    shown = ", ".join(f"{counts[size]:,} of {size[0]} × {size[1]}" for size in usual[:SIZES_SHOWN])
    if len(usual) > SIZES_SHOWN:
        shown += f" and {counted(len(usual) - SIZES_SHOWN, 'more size')}"
    rare = min(counts, key=lambda size: (counts[size], size))
    example = next(image.name for image, header in zip(images, headers, strict=True) if header and header.size == rare)
    raise ValueError(
        f"images must have one size, got {shown} (height × width), {rare[0]} × {rare[1]} in {example!r}; "
        f"set data.image_size={_usual_short_side(sizes)}"
    )


def _usual_short_side(sizes: Sequence[tuple[int, int]]) -> int:
    """The most common one; of several as common, as of photographs that all differ, the one in their middle."""
    sides = sorted(map(min, sizes))
    counts, middle = Counter(sides), sides[(len(sides) - 1) // 2]
    return min(counts, key=lambda side: (-counts[side], abs(side - middle), side))


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or (0, 0, 1)).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in GREY_MODES or image.mode.startswith("I;16")


def _eight_bit(image: Image.Image) -> Image.Image:
    """16 bits to 8; Pillow's own conversion cuts values above 255 off."""
    if image.mode == "F":
        raise ValueError("float pixels have no fixed range; convert it to 8 or 16 bit")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray(np.clip(np.asarray(image) // 257, 0, 255).astype(np.uint8))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "a" not in image.getbands() and "transparency" not in image.info:
        return image
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image.convert("RGBA"))
    return background
