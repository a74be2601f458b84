"""How cost is measured: the settings of the Hydra group `cost`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf
from typing import Union

AUTO = "auto"
PRECISIONS = (AUTO, "32-true", "bf16-mixed")
DISPATCHES = (AUTO, "eager", "graph", "compiled")


def check_name(key: str, name: str, allowed: Sequence[str]) -> None:
    """Raise ValueError for a name that is not among those allowed; `key` is where it was given."""
    if name not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {name!r}")


@dataclass(kw_only=True)
class Measuring:
    """Protocol of a throughput and latency measurement.

    Args:
        batch_size: images in one pass of the throughput measurement, or `auto` for the number that is fastest; latency
            is always measured with one image.
        warmup: blocks that run before any that counts.
        block_seconds: how long a block should last; the number of passes in a block is chosen from the warm-up. Short
            blocks meet the same machine as the blocks of the reference network beside them.
        interval: blocks go on until the 95 % interval of the median is as narrow as this fraction of it to each side.
        max_seconds: or until this time is over; then the figure says that it did not settle.
        precision: `auto`, `32-true` or `bf16-mixed`; `auto` is bfloat16 where the hardware multiplies it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the GPU where there is one.
        dispatch: `auto`, `eager`, `graph` or `compiled`. `eager` launches operators one by one, `graph` the same at
            once, as a CUDA graph; `compiled` runs what torch.compile makes of them, on a GPU as a CUDA graph too.
            `auto` is `graph` on a GPU and `eager` on a processor.
        threads: threads that the processor computes with; one core is the fair comparison where others work beside it.

    Raises:
        ValueError: a count or a duration that cannot be measured with.
    """

    batch_size: Union[int, str] = 256  # noqa: UP007 - OmegaConf reads no other form
    warmup: int = 3
    block_seconds: float = 0.004
    interval: float = 0.02
    max_seconds: float = 3.0
    precision: str = "auto"
    device: str = "auto"
    dispatch: str = AUTO
    threads: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.batch_size, str) and self.batch_size != AUTO:
            raise ValueError(f"cost.batch_size must be a number of images or {AUTO}, got {self.batch_size!r}")
        if not isinstance(self.batch_size, str) and self.batch_size < 1:
            raise ValueError(f"cost.batch_size must be at least 1, got {self.batch_size}")
        if self.threads < 1:
            raise ValueError(f"cost.threads must be at least 1, got {self.threads}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"cost.device must be one of auto, cpu, cuda, cuda:0, cuda:1, ..., got {self.device!r}")
        check_name("cost.precision", self.precision, PRECISIONS)
        check_name("cost.dispatch", self.dispatch, DISPATCHES)
        if self.warmup < 0:
            raise ValueError(f"cost.warmup must be at least 0, got {self.warmup}")
        for name in ("block_seconds", "max_seconds"):
            seconds, usual = getattr(self, name), getattr(Measuring, name)
            if not seconds > 0:
                raise ValueError(f"cost.{name} must be above 0 seconds, got {seconds}")
            if isinf(seconds):
                raise ValueError(f"cost.{name} must be finite, got {seconds}; try {usual}")
        if self.block_seconds > self.max_seconds:
            raise ValueError(
                f"cost.block_seconds must be at most cost.max_seconds, {self.max_seconds}, got {self.block_seconds}; "
                "try shorter blocks or more time"
            )
        if not 0 < self.interval < 1:
            raise ValueError(f"cost.interval must lie between 0 and 1, as 0.02 for ±2 %, got {self.interval}")

    @property
    def images(self) -> int:
        """The batch size as a number; raises ValueError while it is still to be found."""
        if isinstance(self.batch_size, str):
            raise ValueError(
                f"cost.batch_size must be a number of images here, got {self.batch_size!r}, which needs one network "
                "that is timed; try cost.batch_size=256"
            )
        return self.batch_size
