"""Image files in one folder per class, with or without folders for the splits above them.

shoes/boots/1.jpg  shoes/sandals/2.jpg ...                               split off by share and seed
shoes/train/boots/1.jpg  shoes/val/boots/2.jpg  shoes/test/boots/3.jpg   as given; val and test are optional
"""

import os
from collections.abc import Mapping
from pathlib import Path

from explore.data.image import Decoding, Encoded
from explore.data.sources import Decoded, decode_splits

SPLIT_OF_FOLDER = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)


def read_folder(path: str, decoding: Decoding) -> Decoded:
    """Decode all images below a path; raises ValueError as `image_files` and `decode` do."""
    root, files = Path(path).expanduser(), image_files(path)
    classes = tuple(files["train"])
    splits = {
        split: [
            (Encoded(str(file.relative_to(root)), file), classes.index(name))
            for name, members in by_class.items()
            for file in members
        ]
        for split, by_class in files.items()
    }
    return decode_splits(root.resolve().name, splits, classes, decoding)


def image_files(path: str) -> dict[str, dict[str, list[Path]]]:
    """The files of each class in each split: classes by name, files by path, hidden ones and other suffixes left out.

    A class folder may have folders of its own. Raises ValueError if the path is not a folder of at least two classes
    with images each, or if a class is not in train.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "which is a file" if root.exists() else "which does not exist"
        raise ValueError(f"data.path must be a folder with one subfolder of images per class, got {path!r}, {what}")
    files = {split: _classes(folder) for split, folder in _split_folders(root).items()}
    train = files["train"]
    if len(train) < 2:
        got = f"only {next(iter(train))!r}" if train else "no subfolders"
        raise ValueError(
            f"data.path must have a subfolder of images for each of at least 2 classes, got {got} in {path!r}; "
            f"expected files like {root.name}/boots/1.jpg and {root.name}/sandals/2.jpg"
        )
    for name, members in train.items():
        if not members:
            raise ValueError(
                f"every class folder must have images ({', '.join(sorted(SUFFIXES))}), got none in {name!r}"
            )
    for split, by_class in files.items():
        if unknown := sorted(set(by_class) - set(train)):
            raise ValueError(
                f"every class must be in train, got {unknown[0]!r} in {split} only; known: {', '.join(train)}"
            )
        if not any(by_class.values()):
            raise ValueError(f"the {split} folder must have images, got none; remove it to split them off train")
    return files


def _split_folders(root: Path) -> Mapping[str, Path]:
    """Where each split lies; all in one folder if its subfolders are classes. A class may be called "train", too."""
    subfolders = _subfolders(root)
    splits = [folder for folder in subfolders if folder.name.lower() in SPLIT_OF_FOLDER and _subfolders(folder)]
    if not splits:
        return {"train": root}
    names = [SPLIT_OF_FOLDER[folder.name.lower()] for folder in splits]
    if len(splits) < len(subfolders) or "train" not in names or len(set(names)) < len(names):
        got = ", ".join(folder.name for folder in subfolders)
        raise ValueError(f"folders of splits must be train and, optionally, val and test, got {got} in {str(root)!r}")
    return dict(zip(names, splits, strict=True))


def _classes(folder: Path) -> dict[str, list[Path]]:
    return {subfolder.name: _images(subfolder) for subfolder in _subfolders(folder)}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)
