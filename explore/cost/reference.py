"""The reference network: what everything else is timed beside, so that a figure does not follow the machine's mood.

A shared or throttled device changes its speed by half from one minute to the next, but it slows two networks of one
kind alike. So a network is timed as a ratio to this one, block by block in turn, and the ratio is multiplied by the
speed that this one has when nobody disturbs it, which is kept.

The network stands here alone and plain. It must not change with the networks of the project, whose progress it
measures: whoever edits it, or the way in which passes are timed, raises VERSION.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from explore.cost.whole import write_whole
from explore.launching import at_once
from explore.user_cache import user_cache

VERSION = 4
_LOWEST: dict[Path, float] = {}  # as this process found it, by the place where it is kept


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of the reference network; a pass takes about two milliseconds on one core, or less on a GPU."""

    batch: int
    tokens: int
    width: int
    depth: int


SIZES = {
    "cpu": Size(batch=32, tokens=16, width=64, depth=2),
    "cuda": Size(batch=256, tokens=64, width=256, depth=4),
}


class ReferenceMixer(nn.Module):
    """Blocks of the MLP-Mixer (arXiv 2105.01601, section 2) written as in the paper, without stem and head."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(2 * size.depth))
        self.token = nn.ModuleList(_mlp(size.tokens, size.width // 2) for _ in range(size.depth))
        self.channel = nn.ModuleList(_mlp(size.width, 4 * size.width) for _ in range(size.depth))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        norms = iter(self.norms)
        for token, channel in zip(self.token, self.channel, strict=True):
            x = x + token(next(norms)(x).transpose(1, 2)).transpose(1, 2)
            x = x + channel(next(norms)(x))
        return x


def reference_pass(device: torch.device, precision: str) -> Callable[[], object]:
    """A pass of the reference network in inference, on the device and at the precision; on a GPU launched at once.

    However others are launched: what Python takes is a matter of the processor beside the GPU. Raises RuntimeError
    where that is impossible.
    """
    size = SIZES[device.type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, x = ReferenceMixer(size).eval(), torch.rand(size.batch, size.tokens, size.width)
    # Cast once: what autocast keeps of its casts depends on the contexts around it, and so would the time of a pass.
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    network, x = network.to(device, dtype), x.to(device, dtype)

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            network(x)

    launch = at_once(forward, device)
    if launch is forward and device.type == "cuda":  # called, it would be another reference
        raise RuntimeError("the reference network could not be captured as a CUDA graph; is the GPU's memory in use?")
    return launch


def calibrated(protocol: Mapping[str, object], measure: Callable[[], float], study: Path | None = None) -> float:
    """Seconds of a pass of the reference network on a device that does nothing else.

    It is measured once in a process, and the lowest that was ever found is kept in the user's cache folder, a file for
    each protocol (device, driver, precision, threads, version of torch): whoever was disturbed found more. A study has
    its own in the folder `study`, the lowest when it began, which stays the same for all its figures.
    """
    record = {"version": VERSION, **protocol}
    name = f"reference-{hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]}.json"
    if study and (known := _read(study / name)):
        return known
    place = user_cache() / name
    if place not in _LOWEST:
        measured, kept = measure(), _read(place) or math.inf
        _LOWEST[place] = min(measured, kept)
        if measured < kept:
            _write(place, {"seconds": measured, **record}, os.replace)
    if study:
        _write(study / name, {"seconds": _LOWEST[place], **record}, _put_first)
        return _read(study / name) or _LOWEST[place]  # another machine may have been first
    return _LOWEST[place]


def _read(path: Path) -> float | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(path.read_text())["seconds"])
    return None


def _write(path: Path, record: Mapping[str, object], put: Callable[[Path, Path], None]) -> None:
    with suppress(OSError):  # a folder that cannot be written to costs a measurement each time, and no more
        write_whole(path, record, put)


def _put_first(file: Path, path: Path) -> None:
    """Put a file in a place where none is; raises FileExistsError where there is one."""
    try:
        os.link(file, path)
    except FileExistsError:
        raise
    except OSError:  # not every file system has links
        with path.open("x") as stream:
            stream.write(file.read_text())


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
