"""The whole cost of a network, cheapest part first."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from explore.cost.device import resolve_device, resolve_precision
from explore.cost.features import Features
from explore.cost.flops import count_macs
from explore.cost.memory import peak_memory
from explore.cost.options import Measuring
from explore.cost.record import Cost
from explore.cost.throughput import measure_throughput
from explore.cost.trace import memory_and_features


def measure_cost(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    options: Measuring,
    *,
    timed: bool,
    study: Path | None = None,
) -> Cost:
    """Parameters, multiply-adds and memory; throughput too when `timed`, which needs a network with weights.

    Args:
        network: takes float `batch × channels × height × width`; may lie on the meta device when not timed.
        image_shape: channels, height and width of one image, in pixels.
        options: batch size, precision and device; the protocol of the timing.
        timed: whether to measure throughput and latency.
        study: as for `session`.

    Raises:
        ValueError: an operator nobody counts, or a device or precision that does not exist here.
    """
    precision = resolve_precision(options.precision, resolve_device(options.device))
    # Of a batch that is still to be found, one image is known.
    batch_size = 1 if isinstance(options.batch_size, str) else options.batch_size
    macs = count_macs(network, image_shape).total
    memory, features = _memory_and_features(network, image_shape, batch_size, precision, macs)
    cost = Cost(
        params=count_params(network),
        macs=macs,
        memory_bytes=memory,
        throughput=None,
        features=features,
    )
    return timed_cost(cost, network, image_shape, options, study) if timed else cost


def timed_cost(
    cost: Cost,
    network: nn.Module,
    image_shape: tuple[int, int, int],
    options: Measuring,
    study: Path | None = None,
) -> Cost:
    """A cost that was counted, with throughput and latency; memory and features are of the batch that was timed.

    `study` is as for `session`.
    """
    timed = measure_throughput(network, image_shape, options, study=study)
    if timed.batch_size == options.batch_size:
        return replace(cost, throughput=timed)
    memory, features = _memory_and_features(network, image_shape, timed.batch_size, timed.precision, cost.macs)
    return replace(cost, throughput=timed, memory_bytes=memory, features=features)


def _memory_and_features(
    network: nn.Module, image_shape: tuple[int, int, int], batch_size: int, precision: str, macs: int
) -> tuple[int, Features | None]:
    try:
        return memory_and_features(network, image_shape, batch_size, precision=precision, macs=macs)
    except (TypeError, RuntimeError):  # of an operator that cannot be taken apart: its speed is measured, not predicted
        return peak_memory(network, image_shape, batch_size, precision=precision), None


def count_params(network: nn.Module) -> int:
    """Elements of all parameters, shared ones once; also on the meta device."""
    return sum(parameter.numel() for parameter in network.parameters())
