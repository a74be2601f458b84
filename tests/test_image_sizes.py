"""Images of several sizes, and of too many pixels for the memory, are refused in words.

python -m pytest tests/test_image_sizes.py
"""

from pathlib import Path
from typing import Any

import pytest
from image_folders import fill, image_of, load_folder, write

from explore.data.dataset import Dataset, load
from explore.data.options import Data, Digits, Folder


def test_odd_sizes_are_resized(shoes: Path, cache: Path) -> None:
    write(shoes / "boots" / "wide.png", image_of(3, size=(31, 7)))
    assert load_folder(shoes, cache, image_size=5).image_size == 5


def test_odd_sizes_are_named(shoes: Path, cache: Path) -> None:
    for side in (9, 10, 11, 12):
        write(shoes / "boots" / f"wide{side}.png", image_of(3, size=(31, side)))
    message = (
        r"images must have one size, got 10 of 8 × 8, 1 of 9 × 31, 1 of 10 × 31, 1 of 11 × 31 and 1 more size "
        r"\(height × width\), 9 × 31 in 'boots/wide9\.png'; set data\.image_size=8$"
    )
    with pytest.raises(ValueError, match=message):
        load_folder(shoes, cache)


def test_an_odd_icon_among_the_images_is_named_and_its_size_is_no_advice(shoes: Path, cache: Path) -> None:
    write(shoes / "sandals" / "icon.png", image_of(3, size=(1, 1)))
    with pytest.raises(ValueError, match=r"1 × 1 in 'sandals/icon\.png'; set data\.image_size=8$"):
        load_folder(shoes, cache)


def test_of_sizes_that_all_differ_the_one_in_the_middle_is_advised(tmp_path: Path, cache: Path) -> None:
    for name in ("boots", "sandals"):
        for side in (1, 20, 30, 40, 90):
            write(tmp_path / name / f"{side}.png", image_of(3, size=(side + len(name), side)))
    with pytest.raises(ValueError, match=r"and 6 more sizes \(.*set data\.image_size=30$"):
        load_folder(tmp_path, cache)


@pytest.mark.parametrize("source", [Folder, Digits])
def test_images_beyond_the_memory_are_refused_before_they_are_decoded(
    source: type[Data], shoes: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a container counts."""
    options: dict[str, Any] = {"path": str(shoes)} if source is Folder else {}
    count = 10 if source is Folder else 1797

    def load_with(limit: int | None, side: int) -> Dataset:
        monkeypatch.setattr("explore.control_groups.memory_limit", lambda: limit)
        return load(source(cache=str(cache), image_size=side, **options))

    with pytest.raises(ValueError, match=r"must be such that all images fit into the memory, got 10{6}"):
        load_with(None, 10**6)
    needed = count * 16 * 16
    words = f"{count:,} of 1 × 16 × 16 pixels are {needed:,} bytes, and there are {needed - 1:,}; take a smaller one"
    with pytest.raises(ValueError, match=words):
        load_with(needed - 1, 16)
    assert load_with(needed, 16).image_size == 16


def test_images_that_are_not_square_are_named(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "a", size=(12, 10))
    with pytest.raises(ValueError, match=r"images must be square, got 10 × 12 .*; set data\.image_size=10"):
        load_folder(tmp_path / "a", cache)
