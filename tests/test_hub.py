"""Parquet files and the hub: splits, columns and classes are found, and what is wrong gets a clear message.

The hub itself is never asked: its answers are tables made here.

    python -m pytest tests/test_hub.py
"""

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from explore.data.dataset import Dataset, load
from explore.data.options import Hub


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def datasets() -> Any:
    return pytest.importorskip("datasets")


def rows_of(datasets: Any, labels: list[Any], **columns: Any) -> Any:
    """A table of constant images; the grey value is the row number."""
    features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])} | columns
    images = [{"bytes": png(row), "path": None} for row in range(len(labels))]
    values = {"img": images, **{name: labels for name in features if name != "img"}}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def save(table: Any, path: Path) -> Path:
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.data.table, path)
    return path


def load_parquet(path: Path, cache: Path, **options: Any) -> Dataset:
    return load(Hub(name=str(path), cache=str(cache), **options))


def test_one_parquet_file_is_split(datasets: Any, tmp_path: Path, cache: Path) -> None:
    data = load_parquet(save(rows_of(datasets, [0, 1] * 10), tmp_path / "pets.parquet"), cache)
    assert data.classes == ("cat", "dog")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 4, 4]
    assert torch.equal(data.train.images[:, 0, 0, 0] % 2, data.train.labels)


@pytest.mark.parametrize("layout", ["{}-0000{}-of-00002.parquet", "{}/{}.parquet", "data/{}_{}.parquet"])
def test_parquet_files_of_splits(layout: str, datasets: Any, tmp_path: Path, cache: Path) -> None:
    for number in range(2):
        save(rows_of(datasets, [0, 1, 1]), tmp_path / "pets" / layout.format("train", number))
    save(rows_of(datasets, [1, 0]), tmp_path / "pets" / layout.format("validation", 0))
    save(rows_of(datasets, [-1, -1]), tmp_path / "pets" / layout.format("test", 0))
    data = load_parquet(tmp_path / "pets", cache, test=0.4)
    assert data.name == "pets"
    assert len(data.validation) == 2
    assert len(data.train) + len(data.test) == 6, "a test split without labels must not be used"


def test_columns_and_splits_by_name(datasets: Any, tmp_path: Path, cache: Path) -> None:
    fine = datasets.ClassLabel(names=["tabby", "siamese"])
    table = rows_of(datasets, [0, 1] * 5, fine=fine)
    save(table, tmp_path / "pets" / "train.parquet")
    save(table, tmp_path / "pets" / "test.parquet")
    with pytest.raises(
        ValueError, match=r"data\.label_key must name the column of the labels: one was expected, found label, fine"
    ):
        load_parquet(tmp_path / "pets", cache)
    data = load_parquet(tmp_path / "pets", cache, label_key="fine", image_key="img", validation_split="test")
    assert data.classes == ("tabby", "siamese")
    assert len(data.validation) == len(data.test) == 10


@pytest.mark.parametrize(("labels", "classes"), [([7, 3] * 5, ("3", "7")), (["dog", "cat"] * 5, ("cat", "dog"))])
def test_labels_without_class_names(labels: list[Any], classes: tuple[str, ...], tmp_path: Path, cache: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [{"bytes": png(row), "path": None} for row in range(10)]
    parquet.write_table(pyarrow.table({"image": images, "label": labels}), tmp_path / "a.parquet")
    data = load_parquet(tmp_path / "a.parquet", cache)
    assert data.classes == classes
    assert torch.equal(data.train.images[:, 0, 0, 0] % 2, 1 - data.train.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_key": "picture"}, r"data\.image_key must be one of img, label, got 'picture'"),
        ({"image_key": "label"}, r"data\.image_key must be a column of encoded images, got 'label': ClassLabel"),
        ({"label_key": "class"}, r"data\.label_key must be one of img, label, got 'class'"),
        ({"test_split": "dev"}, r"data\.test_split must be one of train, got 'dev'"),
    ],
)
def test_names_that_do_not_exist(
    options: dict[str, str], message: str, datasets: Any, tmp_path: Path, cache: Path
) -> None:
    path = save(rows_of(datasets, [0, 1] * 5), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        load_parquet(path, cache, **options)


def test_a_row_without_label_is_named(datasets: Any, tmp_path: Path, cache: Path) -> None:
    path = save(rows_of(datasets, [0, 1, 0, -1, 1]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="one of the classes of train, got -1 in train row 3"):
        load_parquet(path, cache)


def test_a_corrupt_row_is_named_or_skipped(datasets: Any, tmp_path: Path, cache: Path) -> None:
    table = rows_of(datasets, [0, 1] * 5)
    images = [png(row) for row in range(10)]
    images[4:6] = [b"no image", None]
    path = save(table.add_column("image", images), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"got 'train row 4' \(unknown format\)"):
        load_parquet(path, cache, image_key="image")
    assert load_parquet(path, cache, image_key="image", on_corrupt="skip").skipped == 2


@pytest.mark.parametrize("name", ["nowhere.parquet", "empty", "notes.txt", "./nowhere"])
def test_paths_without_parquet_files(name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=f"the path of parquet files, got '{name}'"):
        load(Hub(name=name, cache=str(cache)))


def test_a_damaged_parquet_file_is_named(datasets: Any, tmp_path: Path, cache: Path) -> None:
    path = save(rows_of(datasets, [0, 1] * 5), tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"parquet files must be readable and alike, got 'a\.parquet'"):
        load_parquet(path, cache)


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_does_not_answer(offline: bool, datasets: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    message = r"data\.name='uoft-cs/cifar10' could not be reached \(no route to host\); check .* or use data=folder"
    with pytest.raises(ValueError, match=message):
        load(Hub(name="uoft-cs/cifar10", cache=str(cache)))
    assert not cache.exists()


def test_a_data_set_of_the_hub(datasets: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub answers it: images and classes in columns, train and test."""
    asked = []

    def answer(*question: object, **options: object) -> dict[str, Any]:
        asked.append((question, options))
        return {"train": rows_of(datasets, [0, 1] * 10), "test": rows_of(datasets, [1, 0])}

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", answer)
    options = Hub(name="uoft-cs/cifar10", config="plain_text", revision="main", cache=str(cache))
    data = load(options)
    assert data.name == "uoft-cs/cifar10"
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 4, 2]
    assert load(options).fingerprint == data.fingerprint
    assert asked == [(("uoft-cs/cifar10", "plain_text"), {"revision": "main"})]


def test_a_hub_data_set_without_train_must_say_what_to_train_on(
    datasets: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"small": rows_of(datasets, [0, 1] * 10), "large": rows_of(datasets, [0, 1] * 10)}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tables)
    with pytest.raises(ValueError, match=r"data\.train_split must say which split to train on, one of small, large"):
        load(Hub(name="owner/name", cache=str(cache)))
    assert len(load(Hub(name="owner/name", cache=str(cache), train_split="large")).train) == 12


def test_the_library_is_optional(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"install it with: pip install explore\[data\]"):
        load(Hub(name="uoft-cs/cifar10", cache=str(cache)))
