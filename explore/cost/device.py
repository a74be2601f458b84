"""Which device and precision a measurement runs with, and how one measurement keeps others away."""

import fcntl
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

PRECISIONS = ("auto", "32-true", "bf16-mixed")

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
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    if name != "auto":
        return name
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_has_bf16()
    return "bf16-mixed" if fast else "32-true"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that a pass runs in at this precision (`32-true` or `bf16-mixed`)."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed")


def device_name(device: torch.device) -> str:
    """The model of the processor or GPU, such as `AMD EPYC 9B14` or `NVIDIA H200`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_field("model name") or platform.processor() or platform.machine()


@contextmanager
def exclusive(device: torch.device) -> Iterator[None]:
    """Waits until no other process on this machine measures on the device, then keeps it for itself.

    The lock lies on a file in the folder for temporary files. The kernel releases it when the process ends, however
    it ends.
    """
    identity = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else device.type
    path = Path(tempfile.gettempdir()) / f"explore-measuring-{identity}.lock"
    try:
        # Reading is enough to lock, and lets users share a file that one of them owns.
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


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
