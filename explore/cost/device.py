"""Which device, precision and dispatch a measurement runs with."""

import os
import platform
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from explore.cost.options import AUTO, DISPATCHES, PRECISIONS, Measuring, check_name

_CPUINFO = Path("/proc/cpuinfo")
# Flags of processors that multiply bfloat16 in hardware: x86 has the first two, Arm the third.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def resolve_device(name: str) -> torch.device:
    """The device a name stands for; `auto` is the current GPU where there is one, else the processor.

    Raises:
        ValueError: the name is not a device of this machine.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    if gpus and name in ("auto", "cuda"):
        return torch.device("cuda", torch.cuda.current_device())
    if name in gpus:
        return torch.device(name)
    allowed = ", ".join(["auto", "cpu", *(["cuda"] if gpus else []), *gpus])
    raise ValueError(f"device must be one of {allowed} on this machine, got {name!r}")


def resolve_precision(name: str, device: torch.device) -> str:
    """`32-true` or `bf16-mixed`; `auto` is the second where the device multiplies bfloat16 in hardware.

    Raises:
        ValueError: the name is not a precision.
    """
    check_name("precision", name, PRECISIONS)
    if name != AUTO:
        return name
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_has_bf16()
    return "bf16-mixed" if fast else "32-true"


def resolve_dispatch(name: str, device: torch.device) -> str:
    """`eager`, `graph` or `compiled`; `auto` is `graph` on a GPU and `eager` on a processor.

    Raises:
        ValueError: the name is not a dispatch of this device.
    """
    if name == AUTO:
        return "graph" if device.type == "cuda" else "eager"
    if name not in dispatches(device):
        raise ValueError(f"cost.dispatch={name} must have a GPU, got {device}; try {' or '.join(dispatches(device))}")
    return name


def dispatches(device: torch.device) -> tuple[str, ...]:
    """How operators can be launched on a device."""
    return tuple(one for one in DISPATCHES if one != AUTO and (one != "graph" or device.type == "cuda"))


def check_threads(count: int) -> None:
    """Raise ValueError for more threads than this process may use cores: they would wait for one another."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count > cores:
        raise ValueError(f"cost.threads must be at most {cores}, the cores of this machine, got {count}")


def resolve_protocol(options: Measuring) -> Measuring:
    """The same protocol with the precision and dispatch that it has on its device.

    Raises:
        ValueError: the device, precision or dispatch does not exist here, or there are fewer cores than threads.
    """
    check_threads(options.threads)
    device = resolve_device(options.device)
    precision, dispatch = resolve_precision(options.precision, device), resolve_dispatch(options.dispatch, device)
    return replace(options, precision=precision, dispatch=dispatch)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that a pass runs in at this precision (`32-true` or `bf16-mixed`)."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed")


@contextmanager
def float32_is_meant() -> Iterator[None]:
    """Silences torch's advice, where it compiles for a GPU, to round float32 to ten bits."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
        yield


def device_name(device: torch.device) -> str:
    """The model of the processor or GPU, such as `AMD EPYC 9B14` or `NVIDIA H200`.

    Virtual machines call many processors `AMD EPYC`; such a name without a number has those of the design with it.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _cpu_field("model name") or platform.processor() or platform.machine()
    family, model = _cpu_field("cpu family"), _cpu_field("model")
    if family and model and not re.search(r"\d", name.split("@")[0]):
        return f"{name} (family {family}, model {model})"
    return name


def driver_version(device: torch.device) -> str | None:
    """The version of the GPU's driver, such as `580.95.05`; None for a processor, and where nobody tells."""
    return next(iter(nvidia_smi("--query-gpu=driver_version", device)), None) if device.type == "cuda" else None


def nvidia_smi(query: str, device: torch.device) -> list[str]:
    """The lines that `nvidia-smi` answers to a query of a GPU; none where the program is missing or fails."""
    command = ["nvidia-smi", query, "--format=csv,noheader", f"--id=GPU-{gpu_identity(device)}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def gpu_identity(device: torch.device) -> str:
    """What tells a GPU from all others, whatever its number is in this process."""
    return str(torch.cuda.get_device_properties(device).uuid)


def _cpu_has_bf16() -> bool:
    flags = (_cpu_field("flags") or _cpu_field("Features")).split()
    return not _BF16_FLAGS.isdisjoint(flags)


def _cpu_field(name: str) -> str:
    """A field of the first processor in Linux's own list; empty where the system or the field is another."""
    if not _CPUINFO.is_file():
        return ""
    for line in _CPUINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
