"""Devices, precisions and dispatches are what they claim, and a protocol that cannot be measured by is refused.

python -m pytest tests/test_cost_device.py
"""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from explore.cost import device as machine
from explore.cost.device import (
    device_name,
    dispatches,
    resolve_device,
    resolve_dispatch,
    resolve_precision,
    resolve_protocol,
)
from explore.cost.options import Measuring
from explore.cost.throughput import measure_throughput


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": "most"}, "batch_size must be a number of images or auto, got 'most'"),
        ({"dispatch": "fast"}, "cost.dispatch must be one of auto, eager, graph, compiled, got 'fast'"),
        ({"interval": 0.0}, "interval must lie between 0 and 1, as 0.02 for ±2 %, got 0.0"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"block_seconds": 0.0}, "block_seconds must be above 0 seconds, got 0.0"),
        ({"max_seconds": float("nan")}, "max_seconds must be above 0 seconds, got nan"),
        ({"block_seconds": float("inf")}, "cost.block_seconds must be finite, got inf; try 0.004"),
        ({"max_seconds": float("inf")}, "cost.max_seconds must be finite, got inf; try 3.0"),
        (
            {"block_seconds": 20, "max_seconds": 1},
            "cost.block_seconds must be at most cost.max_seconds, 1, got 20; try shorter blocks or more time",
        ),
        ({"max_seconds": 0.001}, "cost.block_seconds must be at most cost.max_seconds, 0.001, got 0.004; try .*"),
    ],
)
def test_impossible_protocols_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Measuring(**changes)


def test_one_block_may_fill_the_time() -> None:
    assert Measuring(block_seconds=1, max_seconds=1).block_seconds == 1


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes torch believe in a number of GPUs."""

    def set_number(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    return set_number


@pytest.mark.parametrize(
    ("number", "name", "device"),
    [(0, "auto", "cpu"), (0, "cpu", "cpu"), (2, "auto", "cuda:0"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1")],
)
def test_devices_by_name(gpus: Callable[[int], None], number: int, name: str, device: str) -> None:
    gpus(number)
    assert resolve_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("number", "name", "allowed"),
    [(0, "cuda", "auto, cpu"), (0, "tpu", "auto, cpu"), (1, "cuda:1", "auto, cpu, cuda, cuda:0")],
)
def test_devices_this_machine_lacks_are_refused(
    gpus: Callable[[int], None], number: int, name: str, allowed: str
) -> None:
    gpus(number)
    with pytest.raises(ValueError, match=f"device must be one of {allowed} on this machine, got '{name}'"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("cpuinfo", "precision"),
    [
        ("model name\t: X\nflags\t\t: fpu avx512_bf16 sse\n", "bf16-mixed"),
        ("flags\t\t: fpu amx_bf16\n", "bf16-mixed"),
        ("Features\t: fp asimd bf16\n", "bf16-mixed"),
        ("flags\t\t: fpu avx512f\n", "32-true"),
        (None, "32-true"),
    ],
)
def test_automatic_precision_follows_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, precision: str
) -> None:
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    monkeypatch.setattr(machine, "_CPUINFO", path)
    assert resolve_precision("auto", torch.device("cpu")) == precision
    assert resolve_precision("bf16-mixed", torch.device("cpu")) == "bf16-mixed"
    assert device_name(torch.device("cpu")) == ("X" if cpuinfo and "model" in cpuinfo else device_name_elsewhere())


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("AMD EPYC", "AMD EPYC (family 25, model 17)"),
        ("Intel Xeon @ 2.50GHz", "Intel Xeon @ 2.50GHz (family 25, model 17)"),
        ("AMD EPYC 9B14", "AMD EPYC 9B14"),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_design(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, known: str
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {name}\n")
    monkeypatch.setattr(machine, "_CPUINFO", path)
    assert device_name(torch.device("cpu")) == known


def device_name_elsewhere() -> str:
    return platform.processor() or platform.machine()


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of auto, 32-true, bf16-mixed, got 'fp8'"):
        resolve_precision("fp8", torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "device", "dispatch"),
    [
        ("auto", "cpu", "eager"),
        ("auto", "cuda:1", "graph"),
        ("eager", "cuda:0", "eager"),
        ("graph", "cuda:0", "graph"),
        ("compiled", "cpu", "compiled"),
        ("compiled", "cuda:0", "compiled"),
    ],
)
def test_dispatch_follows_the_device(name: str, device: str, dispatch: str) -> None:
    assert resolve_dispatch(name, torch.device(device)) == dispatch
    assert dispatch in dispatches(torch.device(device))


def test_a_dispatch_that_a_processor_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cost.dispatch=graph must have a GPU, got cpu; try eager or compiled"):
        resolve_dispatch("graph", torch.device("cpu"))


@pytest.mark.parametrize(
    ("key", "allowed"), [("precision", "auto, 32-true, bf16-mixed"), ("dispatch", "auto, eager, graph, compiled")]
)
def test_a_protocol_has_no_unknown_names(key: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"cost.{key} must be one of {allowed}, got 'fast'"):
        Measuring(**{key: "fast"})


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cost.threads must be at most \d+, the cores of this machine, got 9999"):
        resolve_protocol(Measuring(device="cpu", threads=9999))
    with pytest.raises(ValueError, match=r"cost.threads must be at most"):
        measure_throughput(nn.Linear(2, 2), (1, 2, 2), Measuring(device="cpu", threads=9999))


def test_a_protocol_is_resolved_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2})
    found = resolve_protocol(Measuring(device="cpu", threads=3))
    assert (found.dispatch, found.threads) == ("eager", 3)
    assert found.precision == resolve_precision("auto", torch.device("cpu"))
    with pytest.raises(ValueError, match="must have a GPU"):
        measure_throughput(nn.Linear(2, 2), (1, 2, 2), Measuring(device="cpu", dispatch="graph"))
