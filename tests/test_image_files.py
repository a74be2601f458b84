"""Image files and folders of them: every layout, every kind of image, and a clear message for what is wrong.

python -m pytest tests/test_image_files.py
"""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import fill, image_of, load_folder, png, write
from PIL import Image

from explore.data.image import CorruptImageError, Decoding, Encoded, decode, fit, read_header, read_pixels

GRADIENT = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


# --- one image


def pixels_of(image: Image.Image, *, color: bool, size: int | None = None) -> np.ndarray:
    return read_pixels(Encoded("image", png(image)), color=color, size=size)


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "P", "1"])
@pytest.mark.parametrize("color", [False, True])
def test_white_is_white_in_every_mode(mode: str, color: bool) -> None:
    found = pixels_of(image_of(255, mode=mode), color=color)
    assert found.shape == ((8, 8, 3) if color else (8, 8))
    assert found.dtype == np.uint8
    assert (found == 255).all()


def test_sixteen_bits_become_eight() -> None:
    deep = Image.fromarray(GRADIENT.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert np.array_equal(pixels_of(deep, color=False), GRADIENT)


def test_transparent_parts_are_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 2), (0, 0, 0, 255))
    found = pixels_of(image, color=False)
    assert found[2, 1] == 0
    assert found.sum() == 15 * 255


def test_transparent_palette_entries_are_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.putpixel((0, 0), 1)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    found = read_pixels(Encoded("image", buffer.getvalue()), color=True, size=None)
    assert found[0, 0].tolist() == [200, 0, 0]
    assert (found[1:] == 255).all()


def test_images_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise by 90° to show it
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT).save(buffer, "PNG", exif=exif)
    encoded = Encoded("image", buffer.getvalue())
    found = read_header(encoded)
    assert (found.height, found.width) == (8, 6)
    assert np.array_equal(read_pixels(encoded, color=False, size=None), np.rot90(GRADIENT, -1))


@pytest.mark.parametrize(("mode", "grey"), [("L", True), ("1", True), ("LA", True), ("RGB", False), ("CMYK", False)])
def test_the_header_says_whether_an_image_is_grey(mode: str, grey: bool) -> None:
    buffer = io.BytesIO()
    image_of(9, mode=mode).save(buffer, "TIFF")
    assert read_header(Encoded("image", buffer.getvalue())).grey is grey


@pytest.mark.parametrize(("color", "grey"), [((7, 7, 7), True), ((7, 7, 8), False)])
def test_a_palette_is_grey_if_its_colours_are(color: tuple[int, int, int], grey: bool) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette(color)
    assert read_header(Encoded("image", png(image))).grey is grey


@pytest.mark.parametrize("shape", [(20, 40), (40, 20), (31, 57), (5, 9), (3, 301)])
def test_fit_cuts_out_the_centre_square(shape: tuple[int, int]) -> None:
    """Of an image that is bright in its central square only, nearly nothing but the bright part is left."""
    image = np.zeros(shape, np.uint8)
    side = min(shape)
    top, left = ((length - side) // 2 for length in shape)
    image[top : top + side, left : left + side] = 255
    found = fit(image, 16)
    assert found.shape == (16, 16)
    assert found[1:-1, 1:-1].min() > 200


def test_fit_leaves_images_of_the_right_size_alone() -> None:
    assert np.array_equal(fit(GRADIENT[:, :6], 6), GRADIENT[:, :6])


def test_float_images_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT.astype(np.float32)).save(buffer, "TIFF")
    with pytest.raises(CorruptImageError, match=r"'deep\.tif' .*no fixed range; convert it to 8 or 16 bit"):
        read_pixels(Encoded("deep.tif", buffer.getvalue()), color=False, size=None)


# --- folders


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("train", "validation", "test"), ("Training", "valid", "Testing")]
)
def test_folders_of_splits(names: tuple[str, str, str], tmp_path: Path, cache: Path) -> None:
    for split, count in zip(names, (4, 3, 2), strict=True):
        fill(tmp_path / "shoes" / split, count=count)
    data = load_folder(tmp_path / "shoes", cache)
    assert data.name == "shoes"
    assert data.classes == ("boots", "sandals")
    assert (data.image_size, data.channels) == (8, 1)
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.validation.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_what_is_missing_is_split_off_train(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "shoes" / "train", count=10)
    fill(tmp_path / "shoes" / "test", count=3)
    data = load_folder(tmp_path / "shoes", cache)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 4, 6]


def test_folder_of_classes(shoes: Path, cache: Path) -> None:
    data = load_folder(shoes, cache)
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [6, 2, 2]
    values = torch.cat([part.images[:, 0, 0, 0] for part in parts]).tolist()
    labels = torch.cat([part.labels for part in parts]).tolist()
    assert sorted(zip(values, labels, strict=True)) == [(10 * label + n, label) for label in (0, 1) for n in range(5)]


def test_a_class_may_be_called_train(tmp_path: Path, cache: Path) -> None:
    assert load_folder(fill(tmp_path / "a", classes=("plane", "train")), cache).classes == ("plane", "train")


def test_hidden_and_other_files_are_ignored_and_nested_ones_found(shoes: Path, cache: Path) -> None:
    (shoes / "boots" / ".DS_Store").touch()
    (shoes / "boots" / "notes.txt").touch()
    (shoes / ".git").mkdir()
    (shoes / "notes.txt").touch()
    write(shoes / "boots" / ".thumbnails" / "1.png", image_of(99))
    write(shoes / "boots" / "more" / "1.PNG", image_of(7))
    data = load_folder(shoes, cache)
    assert sum(map(len, (data.train, data.validation, data.test))) == 11


@pytest.mark.parametrize(
    ("modes", "color", "channels"),
    [(("L", "L"), None, 1), (("L", "RGB"), None, 3), (("L", "L"), True, 3), (("RGB", "RGB"), False, 1)],
)
def test_grey_or_colour(modes: tuple[str, str], color: bool | None, channels: int, tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "a", classes=("boots",), mode=modes[0])
    fill(tmp_path / "a", classes=("sandals",), mode=modes[1])
    data = load_folder(tmp_path / "a", cache, color=color)
    assert data.channels == channels
    assert len(data.mean) == len(data.std) == channels


def test_a_change_of_the_files_is_seen(shoes: Path, cache: Path) -> None:
    first = load_folder(shoes, cache)
    assert load_folder(shoes, cache).fingerprint == first.fingerprint
    write(shoes / "boots" / "0.png", image_of(200))
    assert load_folder(shoes, cache).fingerprint != first.fingerprint
    (shoes / "boots" / "0.png").unlink()
    assert load_folder(shoes, cache).train.labels.bincount().tolist() == [2, 3]


def test_a_snapshot_stays_what_it_was_whatever_becomes_of_the_files(shoes: Path, cache: Path) -> None:
    first = load_folder(shoes, cache)
    (shoes / "boots" / "0.png").write_text("no image")
    (shoes / "boots" / "1.png").unlink()
    again = load_folder(shoes, cache, snapshot=first.snapshot)
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.train.images, first.train.images)
    with pytest.raises(ValueError, match=r"got '\.\./x'; leave it out"):
        load_folder(shoes, cache, snapshot="../x")
    shutil.rmtree(cache)
    with pytest.raises(ValueError, match=r"files that changed since it began, and folder-[0-9a-f]+ is no longer in"):
        load_folder(shoes, cache, snapshot=first.snapshot)


def test_a_snapshot_that_is_gone_is_made_again_from_the_same_files(shoes: Path, cache: Path) -> None:
    first = load_folder(shoes, cache)
    shutil.rmtree(cache)
    assert load_folder(shoes, cache, snapshot=first.snapshot).fingerprint == first.fingerprint


def test_home_is_expanded(shoes: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(shoes.parent))
    assert load_folder(Path("~/shoes"), cache).name == "shoes"


def truncate(file: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:-40])


def link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


# How an image breaks, and the reason that is given for it.
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda file: file.write_text("no image"), "unknown format"),
    "empty": (lambda file: file.write_bytes(b""), "unknown format"),
    "truncated": (truncate, "runcated|broken"),
    "link": (link_to_nothing, "No such file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_corrupt_image_is_named(kind: str, shoes: Path, cache: Path) -> None:
    breaks, reason = BROKEN[kind]
    breaks(shoes / "boots" / "3.png")
    name = os.path.join("boots", "3.png")
    with pytest.raises(ValueError, match=rf"got '{name}' \(.*({reason}).*\); .*data\.on_corrupt=skip"):
        load_folder(shoes, cache)
    assert not cache.exists()


@pytest.mark.parametrize("kind", BROKEN)
def test_corrupt_images_are_skipped_and_counted(kind: str, shoes: Path, cache: Path) -> None:
    BROKEN[kind][0](shoes / "boots" / "3.png")
    for _ in range(2):
        data = load_folder(shoes, cache, on_corrupt="skip")
        parts = (data.train, data.validation, data.test)
        assert data.skipped == 1
        assert sum(map(len, parts)) == 9
        assert 3 not in torch.cat([part.images[:, 0, 0, 0] for part in parts]).tolist()


def test_skipping_keeps_images_and_labels_together(tmp_path: Path, cache: Path) -> None:
    for split in ("train", "val", "test"):
        truncate(fill(tmp_path / "a" / split, count=4) / "boots" / "1.png")
    data = load_folder(tmp_path / "a", cache, on_corrupt="skip")
    for part in (data.train, data.validation, data.test):
        assert part.images[:, 0, 0, 0].tolist() == [0, 2, 3, 10, 11, 12, 13]
        assert part.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.skipped == 3


def test_nothing_but_corrupt_images_is_an_error(tmp_path: Path, cache: Path) -> None:
    for file in fill(tmp_path / "a").rglob("*.png"):
        file.write_text("no image")
    with pytest.raises(ValueError, match=r"none of the 10 images can be decoded; the first is 'boots.0\.png'"):
        load_folder(tmp_path / "a", cache, on_corrupt="skip")


def test_a_split_of_nothing_but_corrupt_images_is_an_error(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "a" / "train")
    for file in fill(tmp_path / "a" / "val").rglob("*.png"):
        truncate(file)
    with pytest.raises(ValueError, match="validation must have images, got none of 10 that can be decoded"):
        load_folder(tmp_path / "a", cache, on_corrupt="skip")


def make_stray(root: Path) -> None:
    fill(root / "train")
    fill(root / "labels")


def make_without_train(root: Path) -> None:
    fill(root / "val")
    fill(root / "test")


def make_two_validations(root: Path) -> None:
    for name in ("train", "val", "valid"):
        fill(root / name)


def make_new_class(root: Path) -> None:
    fill(root / "train")
    fill(root / "test", classes=("boots", "clogs"))


def make_empty_split(root: Path) -> None:
    fill(root / "train")
    (root / "test" / "boots").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, r"data\.path must be a folder .*, got '.*shoes', which does not exist"),
        (lambda root: root.touch(), "got '.*shoes', which is a file"),
        (
            lambda root: root.mkdir(),
            r"at least 2 classes, got no subfolders in .*; expected files like shoes/boots/1\.jpg",
        ),
        (lambda root: fill(root, classes=("boots",)), "at least 2 classes, got only 'boots'"),
        (
            lambda root: (fill(root) / "clogs").mkdir(),
            r"every class folder must have images \(.*\), got none in 'clogs'",
        ),
        (make_stray, "must be train and, optionally, val and test, got labels, train"),
        (make_without_train, "must be train and, optionally, val and test, got test, val"),
        (make_two_validations, "must be train and, optionally, val and test, got train, val, valid"),
        (make_new_class, "every class must be in train, got 'clogs' in test only; known: boots, sandals"),
        (make_empty_split, "the test folder must have images, got none; remove it"),
        (lambda root: fill(root, count=2), "every class must have images for each of train, .*, got 2 in 'boots'"),
    ],
)
def test_folders_that_are_no_data_set(make: Callable[[Path], Any], message: str, tmp_path: Path, cache: Path) -> None:
    make(tmp_path / "shoes")
    with pytest.raises(ValueError, match=message):
        load_folder(tmp_path / "shoes", cache)
    assert not cache.exists()


def test_many_images_keep_their_order() -> None:
    """Threads finish in any order."""
    encoded = [Encoded(str(value), png(image_of(value))) for value in range(200)]
    images, kept = decode(encoded, Decoding())
    assert images[:, 0, 0, 0].tolist() == kept.tolist() == list(range(200))
