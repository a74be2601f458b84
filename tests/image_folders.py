"""Folders of small images, one folder a class."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from explore.data.dataset import Dataset, load
from explore.data.options import Folder


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def image_of(value: int, *, mode: str = "L", size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("L", size, value).convert(mode)


def write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def fill(root: Path, *, classes: tuple[str, ...] = ("boots", "sandals"), count: int = 5, **options: Any) -> Path:
    """A folder of constant images; the grey value is 10 × label + number."""
    for label, name in enumerate(classes):
        for number in range(count):
            write(root / name / f"{number}.png", image_of(10 * label + number, **options))
    return root


def load_folder(path: Path, cache: Path, **options: Any) -> Dataset:
    return load(Folder(path=str(path), cache=str(cache), **options))
