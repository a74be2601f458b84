"""The reference network is a Mixer, its speed is measured once for each protocol and kept, and a process that measures
keeps its memory.

python -m pytest tests/test_reference.py
"""

import json
import os
from pathlib import Path

import pytest
import torch

from explore.cost.allocator import keep_freed_memory
from explore.cost.reference import _LOWEST, SIZES, ReferenceMixer, Size, calibrated, reference_pass

PROTOCOL: dict[str, object] = {"device": "one", "threads": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "explore"


def refuse() -> float:
    raise AssertionError("it was measured before")


def test_the_speed_is_measured_once_for_each_protocol(cache: Path) -> None:
    assert calibrated(PROTOCOL, lambda: 0.25) == 0.25
    assert calibrated(PROTOCOL, refuse) == 0.25
    assert calibrated({**PROTOCOL, "threads": 2}, lambda: 0.5) == 0.5
    records = [json.loads(path.read_text()) for path in cache.iterdir()]
    assert sorted((one["threads"], one["seconds"]) for one in records) == [(1, 0.25), (2, 0.5)]


def test_the_lowest_is_kept_and_a_study_stays_on_its_scale(cache: Path, tmp_path: Path) -> None:
    """Each test of speed stands for a process of its own."""

    def found(seconds: float, study: str | None = None) -> float:
        _LOWEST.clear()
        return calibrated(PROTOCOL, lambda: seconds, tmp_path / study if study else None)

    assert found(0.5) == 0.5
    assert found(0.5, "begun while others computed") == 0.5
    assert found(0.25) == 0.25
    assert found(0.75) == 0.25
    assert found(0.25, "begun while others computed") == 0.5
    assert found(0.75, "begun later") == 0.25
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_of_two_machines_that_begin_a_study_at_once_one_decides(cache: Path, tmp_path: Path) -> None:
    def slower() -> float:
        _LOWEST.clear()
        monkey.setenv("XDG_CACHE_HOME", str(tmp_path / "of the other"))
        calibrated(PROTOCOL, lambda: 0.25, tmp_path / "study")
        return 0.5

    with pytest.MonkeyPatch.context() as monkey:
        assert calibrated(PROTOCOL, slower, tmp_path / "study") == 0.25


def test_a_folder_without_links_keeps_it_as_well(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_link(*names: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse_link)
    assert calibrated(PROTOCOL, lambda: 0.5, tmp_path / "study") == 0.5
    _LOWEST.clear()
    assert calibrated(PROTOCOL, refuse, tmp_path / "study") == 0.5


def test_all_figures_of_a_command_are_on_one_scale(cache: Path) -> None:
    assert calibrated(PROTOCOL, lambda: 0.5) == 0.5
    (file,) = cache.iterdir()
    file.write_text('{"seconds": 0.25}')
    assert calibrated(PROTOCOL, refuse) == 0.5
    _LOWEST.clear()
    assert calibrated(PROTOCOL, lambda: 0.5) == 0.25


def test_a_file_that_cannot_be_read_is_written_anew(cache: Path) -> None:
    calibrated(PROTOCOL, lambda: 0.25)
    (file,) = cache.iterdir()
    file.write_text("{")
    _LOWEST.clear()
    assert calibrated(PROTOCOL, lambda: 0.5) == 0.5
    assert calibrated(PROTOCOL, refuse) == 0.5
    assert json.loads(file.read_text())["seconds"] == 0.5


def test_a_folder_that_cannot_be_made_costs_a_measurement(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert calibrated(PROTOCOL, lambda: 0.25) == 0.25
    _LOWEST.clear()
    assert calibrated(PROTOCOL, lambda: 0.5) == 0.5


def test_the_network_is_a_mixer() -> None:
    size = Size(batch=2, tokens=6, width=8, depth=2)
    network, x = ReferenceMixer(size), torch.rand(2, 6, 8)
    assert sum(one.numel() for one in network.parameters()) == 2 * (6 * 4 * 2 + 4 + 6 + 8 * 32 * 2 + 32 + 8 + 4 * 8)
    assert network(x).shape == x.shape
    x[:, 3] += 1
    assert (network(x) != network(torch.rand(2, 6, 8))).all()


def test_on_a_gpu_it_is_launched_at_once_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.Module.to", lambda network, device, dtype: network)
    monkeypatch.setattr("torch.Tensor.to", lambda tensor, device, dtype: tensor)
    monkeypatch.setattr("explore.cost.reference.at_once", lambda action, device: "launched")
    assert reference_pass(torch.device("cuda", 0), "32-true") == "launched"  # type: ignore[comparison-overlap]
    monkeypatch.setattr("explore.cost.reference.at_once", lambda action, device: action)
    with pytest.raises(RuntimeError, match="could not be captured as a CUDA graph"):
        reference_pass(torch.device("cuda", 0), "32-true")


def test_making_it_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    reference_pass(torch.device("cpu"), "32-true")()
    assert torch.equal(torch.get_rng_state(), state)
    assert set(SIZES) == {"cpu", "cuda"}


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_memory_that_was_freed_is_not_handed_out_anew() -> None:
    import resource

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            torch.ones(2**22)  # 16 MiB, 4,096 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    # The heap of a process that has run other tests takes a few turns to have a place of that size.
    assert min(faults() for _ in range(5)) < 100
