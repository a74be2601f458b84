"""The reference network: what everything else is timed beside, so that a figure does not follow the machine's mood.

A shared or throttled device changes its speed by half from one minute to the next, but it slows two networks of one
kind alike. So a network is timed as a ratio to this one, block by block in turn, and the ratio is multiplied by the
speed that this one has when nobody disturbs it: found once for each device, and kept.

The network stands here alone and plain. It must not change with the networks of the project, whose progress it
measures: whoever edits it raises VERSION.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

VERSION = 2


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
    """A pass of the reference network in inference, on the device and at the precision."""
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

    return forward


def calibrated(protocol: dict[str, object], measure: Callable[[], float]) -> float:
    """Seconds of a pass of the reference network on a device that does nothing else: as kept, or measured and kept.

    Kept in the user's cache folder, a file for each protocol (device, driver, precision, threads, version of torch).
    Whoever deletes the file has the reference measured anew, and gives up comparing figures with those before.
    """
    key = json.dumps({"version": VERSION, **protocol}, sort_keys=True)
    path = _folder() / f"reference-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(path.read_text())["seconds"])
    seconds = measure()
    record = json.dumps({"seconds": seconds, "version": VERSION, **protocol}, indent=2)
    with suppress(OSError):  # a folder that cannot be written to costs a measurement each time, and no more
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(record)
        os.replace(unfinished, path)
    return seconds


def _folder() -> Path:
    # Not `expanduser`, which fails for a user without a home.
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "explore"


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
