"""How cost is measured: the settings of the Hydra group `cost`."""

from dataclasses import dataclass

DISPATCHES = ("eager", "compiled")


@dataclass(kw_only=True)
class Measuring:
    """Protocol of a throughput and latency measurement.

    Args:
        batch_size: images in one pass of the throughput measurement; latency is always measured with one image.
        warmup: blocks that run before any that counts.
        blocks: timed blocks; the result is their median.
        block_seconds: how long a block should last; the number of passes in a block is chosen from the warm-up.
        precision: `auto`, `32-true` or `bf16-mixed`; `auto` is bfloat16 where the hardware multiplies it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the GPU where there is one.
        dispatch: `eager` launches operators one by one, `compiled` runs what torch.compile makes of them.
        threads: threads that the processor computes with; one core is the fair comparison where others work beside it.
        max_seconds: no new block starts after this time, and no warm-up block after a quarter of it; throughput and
            latency have it each, and each gets one pass of warm-up and one timed block in any case.

    Raises:
        ValueError: a count or a duration that cannot be measured with.
    """

    batch_size: int = 256
    warmup: int = 3
    blocks: int = 15
    block_seconds: float = 0.02
    precision: str = "auto"
    device: str = "auto"
    dispatch: str = "eager"
    threads: int = 1
    max_seconds: float = 3.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "blocks", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"cost.{name} must be at least 1, got {getattr(self, name)}")
        if self.dispatch not in DISPATCHES:
            raise ValueError(f"cost.dispatch must be one of {', '.join(DISPATCHES)}, got {self.dispatch!r}")
        if self.warmup < 0:
            raise ValueError(f"cost.warmup must be at least 0, got {self.warmup}")
        for name in ("block_seconds", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"cost.{name} must be above 0 seconds, got {getattr(self, name)}")
