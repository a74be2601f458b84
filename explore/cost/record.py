"""What is known about a network's cost, as records that go into a study; needs no torch to be read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from explore.cost.features import Features


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Speed of inference, with the protocol it was measured by.

    Args:
        images_per_second: median over the timed blocks, at `batch_size`, as on a device that does nothing else.
        low: lower end of the 95 % interval of the median.
        high: upper end.
        latency_ms: median milliseconds of a pass with one image.
        batch_size: images in one pass.
        precision: `32-true` or `bf16-mixed`, as Lightning names them.
        device: name of the processor or GPU.
        threads: threads that torch computes with on the processor.
        blocks: timed blocks behind `images_per_second`.
        torch_version: version of torch.
        dispatch: what ran: `eager`, operators one by one, also where they could not be captured; `graph`, the same at
            once; or `compiled`.
        memory_bytes: measured peak of the pass on a GPU, as `Cost.memory_bytes` counts it; None on the processor.
        settled: whether the interval became as narrow as asked before the time was over; None where nobody looked.
        latency_p90_ms: milliseconds that nine of ten passes with one image stay below; None of fewer than 10 passes.
        latency_p99_ms: the same for 99 of a hundred; None of fewer than 100 passes.
        driver: version of the GPU's driver; None on a processor.
        reference_ms: milliseconds of a pass of the reference network on this device when nothing disturbs it.
        strangers: processes on the GPU meanwhile that take no turns with this project.
        warmup: blocks before those that count.
        block_seconds: how long a block was to last.
        interval: half-width of the 95 % interval, as a fraction of the median, that was asked for.
        max_seconds: what the measurement could take, whether it had settled by then or not.
    """

    images_per_second: float
    low: float
    high: float
    latency_ms: float
    batch_size: int
    precision: str
    device: str
    threads: int
    blocks: int
    torch_version: str
    dispatch: str = "eager"
    memory_bytes: int | None = None
    settled: bool | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    driver: str | None = None
    reference_ms: float | None = None
    strangers: tuple[str, ...] = ()
    warmup: int | None = None
    block_seconds: float | None = None
    interval: float | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs, known without training.

    Args:
        params: parameters, trainable or not; buffers are not parameters.
        macs: multiply-adds of one image; FLOPs in the sense of two operations are twice as many.
        memory_bytes: peak of the live tensors of one inference pass at the measuring batch size and precision.
        throughput: None when timing was switched off.
        features: what a latency model predicts speed from, at the batch size of `memory_bytes`; None where they were
            not taken.
    """

    params: int
    macs: int
    memory_bytes: int
    throughput: Throughput | None
    features: Features | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and dictionaries, ready for JSON."""
        return asdict(self) | {"features": self.features.to_dict() if self.features else None}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Cost":
        """The inverse of `to_dict`."""
        timed, features = record["throughput"], record.get("features")
        if timed is not None:
            timed = Throughput(**{**timed, "strangers": tuple(timed.get("strangers", ()))})
        return cls(**{**record, "throughput": timed, "features": Features.from_dict(features) if features else None})
