"""Speeds of several networks, as a report compares them; that of one candidate is part of its evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from explore.architecture.network import Network
from explore.architecture.published import adapted
from explore.candidate import COSTS, Candidate, build
from explore.cost.device import device_name, driver_version, resolve_device, resolve_protocol
from explore.cost.measure import measure_cost
from explore.cost.options import Measuring
from explore.cost.session import session
from explore.cost.side_by_side import compare_throughput
from explore.data.dataset import Dataset, load

# Share of the time for one network that each gets where several are timed together, at most: the order that a front is
# shown in must be right, also of neighbours 5 % apart on a machine that others use.
TIME_BESIDE_OTHERS = 2 / 3


def time_published(name: str, dataset: Dataset, options: Measuring, study: Path) -> dict[str, Any]:
    """Cost and speed of a published network on images of a data set, as a reference for a report: it is not trained.

    At the size of these images, because members of a front are compared with it: the size that it was published for
    has more pixels, and another speed. The speed is on the scale of those in the folder `study`.
    """
    network = adapted(name, image_size=dataset.image_size, channels=dataset.channels, classes=len(dataset.classes))
    cost = measure_cost(Network(network).deployed(), dataset.image_shape, options, timed=True, study=study / COSTS)
    assert cost.throughput
    note = f"published depth and width, patches of {network.patch_size} pixels to divide these images; not trained here"
    counts = {"params": cost.params, "macs": cost.macs, "throughput": cost.throughput.images_per_second}
    return {"name": name, **counts, "note": note}


def this_machine(candidate: Candidate) -> tuple[str, str | None, str]:
    """What a candidate would be timed on: device, version of its driver, version of torch."""
    device = resolve_device(candidate.cost.device)
    return device_name(device), driver_version(device), str(torch.__version__)


def reference_ms(options: Measuring, study: Path) -> float:
    """Milliseconds of the reference network by which figures of speed of a study are on one scale."""
    with session(options, study=study / COSTS) as here, here.alone() as turn:
        return 1000 * turn.reference_seconds


def time_together(
    candidates: Mapping[int, Candidate],
    batch_sizes: Mapping[int, int],
    study: Path | None = None,
    dispatches: Mapping[int, str] | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> dict[int, list[float]]:
    """Seconds of a pass of each candidate, with as many values for each, taken in turn.

    Each is timed at its batch size. Candidates of the same architecture share their values. One that cannot be compiled
    is left out where the protocol compiles, and so is one that is not launched as in `dispatches`, where these are
    given: what was captured before may be too large to be captured beside others. Of a study they are on the scale of
    those in its folder. `report` is told what goes on. Raises ValueError for candidates with different images or
    protocols.
    """
    first = next(iter(candidates.values()))
    if any((one.data, one.cost) != (first.data, first.cost) for one in candidates.values()):
        raise ValueError("speeds are compared for the same images by one protocol, got several; measure them apart")
    dataset, most = load(first.data), TIME_BESIDE_OTHERS * first.cost.max_seconds
    options = replace(first.cost, max_seconds=most, block_seconds=min(most, first.cost.block_seconds))
    measured = {
        number: (str(one.architecture(dataset).in_evaluation), batch_sizes[number])
        for number, one in candidates.items()
    }
    shown = {what: f"trial {number}" for number, what in measured.items()}  # of those that are alike the last
    names = {number: shown[what] for number, what in measured.items()}
    networks = {
        name: build(replace(candidates[number], pretrained=None), dataset).deployed()
        for number, name in names.items()
        if name == f"trial {number}"
    }
    sizes = {name: batch_sizes[number] for number, name in names.items()}
    costs = study / COSTS if study else None
    seconds, failures = compare_throughput(
        networks, dataset.image_shape, options, report, batch_sizes=sizes, study=costs
    )
    usual = resolve_protocol(options).dispatch
    launched = {name: "eager" if name in failures else usual for name in seconds}
    return {
        number: seconds[name]
        for number, name in names.items()
        if name in seconds and (not dispatches or dispatches[number] == launched[name])
    }
