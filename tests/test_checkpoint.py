"""A checkpoint that is written as one tensor comes back to the bit, one of Lightning's own is gone on with, and one
that is damaged gives way to the one before; nothing in a checkpoint is run.

python -m pytest tests/test_checkpoint.py
"""

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn

from explore.faults import unwritable
from explore.training import fit as fitting
from explore.training.checkpoint import BEFORE, CHECKPOINT, damage, newest, put, read
from explore.training.fit import fit
from explore.training.one_tensor import OneTensor
from explore.training.options import Training
from explore.training.trained import trained_weights

DTYPES = (torch.float32, torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    numbers = torch.randint(-(2**31), 2**31 - 1, shape, generator=generator, dtype=torch.int32)
    dtype = draw(st.sampled_from(DTYPES))
    tensor = numbers.view(torch.float32) if dtype == torch.float32 else numbers.to(dtype)
    return tensor.mT if tensor.dim() > 1 and draw(st.booleans()) else tensor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


trees = st.recursive(
    tensors() | st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor):
        bits = [each.contiguous().flatten().view(torch.uint8) for each in (one, other)]
        alike = (one.dtype, one.shape, one.is_contiguous()) == (other.dtype, other.shape, other.is_contiguous())
        return alike and torch.equal(*bits)
    return bool(one == other)


@given(trees)
@settings(max_examples=30)
def test_what_was_written_is_read_to_the_bit(folder: Path, tree: Any) -> None:
    path, written = folder / CHECKPOINT, {"epoch": 3, "tree": tree}
    OneTensor().save_checkpoint(written, path)
    assert same(read(path), written)
    assert same(OneTensor().load_checkpoint(path), written)


class Noise:
    """Batches of noise."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            yield torch.randn(8, 1, 4, 4, generator=generator), torch.randint(3, (8,), generator=generator)

    def set_epoch(self, epoch: int) -> None:
        pass


def train(folder: Path, epochs: int, ema: float, told: list[str] | None = None) -> dict[str, Any]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 3))
    recipe = Training(epochs=4, batch_size=8, ema=ema, precision="32-true", accelerator="cpu", rung=1)
    folder.mkdir(exist_ok=True)

    class Stopped(Exception):  # noqa: N818 - not an error
        pass

    def report(record: Mapping[str, float]) -> None:
        if record["epoch"] == epochs < recipe.epochs:
            raise Stopped

    with suppress(Stopped):
        fit(network, Noise(), Noise(), recipe, folder, report, tell=[].append if told is None else told.append)
    checkpoint = read(folder / CHECKPOINT)
    for record in checkpoint["curve"]:
        del record["seconds"]
    return checkpoint


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_lightnings_own_checkpoint_is_gone_on_with(tmp_path: Path, ema: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", 4, ema)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "OneTensor", TorchCheckpointIO)
        half = train(tmp_path / "parts", 2, ema)
    assert "numbers" not in torch.load(tmp_path / "parts" / CHECKPOINT, weights_only=True)
    assert half["epoch"] == 1
    assert same(train(tmp_path / "parts", 4, ema), whole)


def test_the_file_holds_the_weights_for_anybody_and_the_rest_as_one_tensor(tmp_path: Path) -> None:
    checkpoint = train(tmp_path, 1, 0.0)
    weights = torch.load(tmp_path / CHECKPOINT, weights_only=True)["state_dict"]
    assert same(dict(weights), checkpoint["state_dict"])
    assert len(checkpoint["optimizer_states"][0]["state"]) == 6
    with zipfile.ZipFile(tmp_path / CHECKPOINT) as file:
        parts = [name for name in file.namelist() if "/data/" in name]
    assert len(parts) == len(weights) + 1


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Turn one bit of the numbers; what is between the files of a zip has no checksum and no meaning."""
    with zipfile.ZipFile(path) as file:
        numbers = max((file.read(name) for name in file.namelist()), key=len)
    content = bytearray(path.read_bytes())
    content[content.index(numbers) + len(numbers) // 2] ^= 16
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "half": half,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(os.urandom(5000)),
    "a bit": flip,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, kind: str) -> None:
    whole, told = train(tmp_path / "whole", 4, 0.9), []
    train(tmp_path / "parts", 3, 0.9)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {CHECKPOINT, BEFORE}
    DAMAGE[kind](tmp_path / "parts" / CHECKPOINT)
    assert same(train(tmp_path / "parts", 4, 0.9, told), whole)
    assert len(told) == 1
    assert told[0].startswith("last.ckpt was damaged (")
    assert told[0].endswith("), so that it went on from before.ckpt")
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {CHECKPOINT}


def test_where_both_are_damaged_it_begins_again(tmp_path: Path) -> None:
    whole, told = train(tmp_path / "whole", 4, 0.0), []
    train(tmp_path / "parts", 3, 0.0)
    half(tmp_path / "parts" / CHECKPOINT)
    half(tmp_path / "parts" / BEFORE)
    assert same(train(tmp_path / "parts", 4, 0.0, told), whole)
    assert told[0].endswith("and before.ckpt was damaged (file is not a zip file), so that it began again")


def test_a_damaged_checkpoint_never_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for number, path in enumerate((tmp_path / BEFORE, tmp_path / CHECKPOINT)):
        OneTensor().save_checkpoint({"epoch": number}, path)
    half(tmp_path / CHECKPOINT)
    assert newest(tmp_path, [].append) == tmp_path / BEFORE
    OneTensor().save_checkpoint({"epoch": 2}, tmp_path / "partial")
    put(tmp_path / "partial", tmp_path, keep=True)
    assert [read(tmp_path / name)["epoch"] for name in (CHECKPOINT, BEFORE)] == [2, 0]


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, 2, 0.0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save = OneTensor.save_checkpoint

    def full(self: OneTensor, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        Path(path).symlink_to("/dev/full")
        save(self, checkpoint, path)

    with monkeypatch.context() as patch:
        patch.setattr(OneTensor, "save_checkpoint", full)
        with pytest.raises((RuntimeError, OSError)) as caught:
            train(tmp_path, 4, 0.0)
    assert "no space is left on the disk" in str(unwritable(caught.value))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    train(tmp_path, 2, 0.0)
    torch.save({"state_dict": Evil(tmp_path / "evil")}, tmp_path / CHECKPOINT)
    assert not damage(tmp_path / CHECKPOINT)
    for load in (
        lambda: train(tmp_path, 4, 0.0),
        lambda: trained_weights(tmp_path),
        lambda: read(tmp_path / CHECKPOINT),
    ):
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            load()
    assert not (tmp_path / "evil").exists()
    torch.load(tmp_path / CHECKPOINT, weights_only=False)
    assert (tmp_path / "evil").exists(), "the file would have been made"


def test_weights_of_a_damaged_checkpoint_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be whole, got .*last\.ckpt: it does not exist; train it again"):
        trained_weights(tmp_path)
