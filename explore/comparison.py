"""Many networks in one go: all published ones counted, and the variants of a mixing measured side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from explore.architecture.network import Network
from explore.architecture.published import COLOURS, PUBLISHED, published
from explore.architecture.spec import Architecture
from explore.cost.flops import count_macs
from explore.cost.measure import count_params
from explore.cost.memory import peak_memory
from explore.cost.options import Measuring
from explore.cost.side_by_side import compare_throughput, compare_training_steps
from explore.cost.speed import Speed


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Parameters and multiply-adds of one image: of the network that is trained, and of the form that is deployed."""

    params: int
    macs: int
    deployed_params: int
    deployed_macs: int


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of a comparison; a speed is None where it was not measured, and `note` says why if it should have.

    Memory and inference (`eager`, `graph`, `compiled`) are those of the deployed form, `training` that of the trained
    one.
    """

    name: str
    params: int
    macs: int
    deployed_params: int
    deployed_macs: int
    memory_bytes: int
    eager: Speed | None = None
    graph: Speed | None = None
    compiled: Speed | None = None
    training: Speed | None = None
    note: str = ""

    @property
    def speed(self) -> float:
        """What variants are sorted by, largest first: images per second as a graph, else eager; else few MACs."""
        measured = self.graph or self.eager or self.compiled
        return measured.images_per_second if measured else -self.deployed_macs


def count(network: Network) -> Counts:
    """Counts a network on any device, the meta device included."""
    deployed = network.deployed()
    params, macs = count_params(network), count_macs(network, network.image_shape).total
    if deployed is network:
        return Counts(params=params, macs=macs, deployed_params=params, deployed_macs=macs)
    return Counts(
        params=params,
        macs=macs,
        deployed_params=count_params(deployed),
        deployed_macs=count_macs(deployed, network.image_shape).total,
    )


def published_counts() -> Iterator[dict[str, Any]]:
    """Every published network, one after the other: its counts, what was published, and how far they are apart.

    A deviation is a fraction of the published figure; None where none was published.
    """
    for name, row in PUBLISHED.items():
        with torch.device("meta"):
            network = Network(published(name))
        counts = count(network)
        yield {
            "name": name,
            "image_size": row.image_size,
            "channels": COLOURS,
            "classes": row.classes,
            **asdict(counts),
            "published": published_figures(name),
            "deviation": {
                "params": _deviation(counts.params, row.params),
                "macs": _deviation(counts.macs, row.macs),
                "deployed_params": _deviation(counts.deployed_params, row.deployed[0]) if row.deployed else None,
                "deployed_macs": _deviation(counts.deployed_macs, row.deployed[1]) if row.deployed else None,
            },
        }


def published_figures(name: str) -> dict[str, Any]:
    """What was published of a network; None for a figure that was not."""
    row = PUBLISHED[name]
    return {
        "paper": row.paper,
        "params": row.params or None,
        "macs": row.macs or None,
        "deployed_params": row.deployed[0] if row.deployed else None,
        "deployed_macs": row.deployed[1] if row.deployed else None,
        "top1": row.top1,
        "training": row.training,
    }


def compare(
    architectures: Mapping[str, Architecture],
    options: Measuring,
    dispatches: tuple[str, ...],
    report: Callable[[str], None],
) -> list[Variant]:
    """Measures networks for the same images side by side, the fastest first; without dispatches they are only counted.

    Args:
        architectures: by name; checked.
        options: the protocol, with a precision that is not `auto`; its own `dispatch` is not looked at.
        dispatches: how inference is timed, each in a comparison of its own.
        report: is told what goes on.
    """
    networks: dict[str, Network] = {}
    counted: dict[str, dict[str, int]] = {}
    for name, architecture in architectures.items():
        report(f"counting {name}")
        with torch.device("cpu" if dispatches else "meta"):
            network = networks[name] = Network(architecture)
        shape, form = network.image_shape, network.deployed()
        memory = peak_memory(form, shape, options.images, precision=options.precision)
        counted[name] = {"memory_bytes": memory, **asdict(count(network))}
    speeds, notes = _time(networks, options, dispatches, report) if networks else ({}, {})
    variants = [
        Variant(
            name=name,
            **counts,
            eager=speeds.get("eager", {}).get(name),
            graph=speeds.get("graph", {}).get(name),
            compiled=speeds.get("compiled", {}).get(name),
            training=speeds.get("training", {}).get(name),
            note=notes.get(name, ""),
        )
        for name, counts in counted.items()
    ]
    return sorted(variants, key=lambda variant: -variant.speed)


def _time(
    networks: Mapping[str, Network], options: Measuring, dispatches: tuple[str, ...], report: Callable[[str], None]
) -> tuple[dict[str, dict[str, Speed]], dict[str, str]]:
    """Speeds by what was timed and by name, and reasons by the names of those that cannot be launched in some way."""
    shape = next(iter(networks.values())).image_shape
    deployed = {name: network.deployed() for name, network in networks.items()}
    speeds: dict[str, dict[str, Speed]] = {}
    notes: dict[str, list[str]] = {}
    for dispatch in dispatches:
        seconds, failures = compare_throughput(deployed, shape, replace(options, dispatch=dispatch), report)
        speeds[dispatch] = _speeds({name: one for name, one in seconds.items() if name not in failures}, options)
        for name, reason in failures.items():
            word = "compiled" if dispatch == "compiled" else "captured as a graph"
            notes.setdefault(name, []).append(f"cannot be {word}: {reason}")
    if dispatches:
        speeds["training"] = _speeds(compare_training_steps(networks, shape, options, report), options)
    return speeds, {name: "; ".join(each) for name, each in notes.items()}


def _speeds(seconds: Mapping[str, Sequence[float]], options: Measuring) -> dict[str, Speed]:
    return {name: Speed.of(each, options.images, options.interval) for name, each in seconds.items()}


def _deviation(measured: float, reference: float) -> float | None:
    return measured / reference - 1 if reference else None
