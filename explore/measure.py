"""python -m explore.measure [KEY=VALUE ...]

Counts and times a network without training it: parameters, multiply-adds, memory, throughput and latency.

  python -m explore.measure model=mixer_b16
  python -m explore.measure token_mixing=attention model.depth=8 data=mnist
  python -m explore.measure model=vit_s16 throughput=off format=json

A published model is measured at its published size (224 pixels, 1,000 classes) unless data=... is given; other networks
for the images of data=.

Often set:
  throughput=off         count only
  cost.batch_size=N      images in one pass (default: 256; 8 for a published model on a processor)
  cost.precision=NAME    auto, 32-true or bf16-mixed
  cost.device=NAME       auto, cpu, cuda or cuda:N
  cost.threads=N         threads that the processor computes with (default: 1)
  format=json            params, macs, throughput, latency_ms, memory_bytes, and the protocol
"""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from explore.command import print_json, refusing_bad_input, run

if TYPE_CHECKING:
    from explore.architecture.families.row import Published
    from explore.architecture.spec import Architecture
    from explore.config import Config
    from explore.cost.record import Cost

_PUBLISHED_BATCH_ON_CPU = 8
# With one of these set, the network is not the published one any more.
_OF_THE_NETWORK = ("model.", "token_mixing", "channel_mixing", "data")


def main(config: "Config", overrides: list[str]) -> int:
    """Measure one network and print its cost."""
    from explore.cost.device import resolve_device, resolve_precision

    with refusing_bad_input():
        name, row = _published(overrides)
        architecture = _architecture(config, row, overrides)
        device = resolve_device(config.cost.device)
        precision = resolve_precision(config.cost.precision, device)
    config.cost = replace(config.cost, precision=precision)
    given = any(override.startswith("cost.batch_size=") for override in overrides)
    if row and device.type == "cpu" and not given:
        config.cost = replace(config.cost, batch_size=_PUBLISHED_BATCH_ON_CPU)
    cost = _measure(config, architecture)
    changed = any(override.lstrip("+").startswith(_OF_THE_NETWORK) for override in overrides)
    result = _result(name or "network", cost, config, architecture, None if changed else row)
    if config.format == "json":
        print_json(result)
    else:
        _print(result)
    return 0


def _published(overrides: list[str]) -> "tuple[str, Published | None]":
    from explore.architecture.published import PUBLISHED

    names = [override.partition("=")[2] for override in overrides if override.startswith("model=")]
    name = names[-1] if names else ""
    return name, PUBLISHED.get(name)


def _architecture(config: "Config", row: "Published | None", overrides: list[str]) -> "Architecture":
    from explore.architecture.network import check
    from explore.architecture.spec import architecture
    from explore.data.dataset import load

    if row and not any(override.startswith(("data=", "data.")) for override in overrides):
        candidate = config.candidate
        result = architecture(
            candidate.model,
            candidate.token_mixing,
            candidate.channel_mixing,
            image_size=row.image_size,
            channels=3,
            classes=row.classes,
        )
    else:
        result = config.candidate.architecture(load(config.data))
    check(result)
    return result


def _measure(config: "Config", architecture: "Architecture") -> "Cost":
    import torch

    from explore.architecture.network import Network
    from explore.cost.measure import measure_cost

    shape = (architecture.channels, architecture.image_size, architecture.image_size)
    with torch.device("cpu" if config.throughput else "meta"):
        network = Network(architecture)
    return measure_cost(network, shape, config.cost, timed=config.throughput)


def _result(
    name: str, cost: "Cost", config: "Config", architecture: "Architecture", row: "Published | None"
) -> dict[str, Any]:
    timed = asdict(cost.throughput) if cost.throughput else {}
    published = None
    if row:
        published = {"paper": row.paper, "params": row.params, "macs": row.macs, "top1": row.top1}
    return {
        "name": name,
        "image_size": architecture.image_size,
        "classes": architecture.classes,
        "params": cost.params,
        "macs": cost.macs,
        "flops": 2 * cost.macs,
        "memory_bytes": cost.memory_bytes,
        "throughput": timed.pop("images_per_second", None),
        "throughput_low": timed.pop("low", None),
        "throughput_high": timed.pop("high", None),
        "latency_ms": timed.pop("latency_ms", None),
        "protocol": timed or {"batch_size": config.cost.batch_size, "precision": config.cost.precision},
        "published": published,
    }


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    published, protocol = result["published"], result["protocol"]
    title = f"{result['name']}, {result['image_size']} × {result['image_size']} pixels, {result['classes']:,} classes"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 3, 0, 0))
    table.add_column("")
    table.add_column("measured", justify="right")
    if published:
        table.add_column(f"published ({published['paper']})", justify="right")

    def row(name: str, value: str, reference: str = "") -> None:
        table.add_row(name, value, *([reference] if published else []))

    row("parameters", f"{result['params']:,}", f"{published['params']:,}" if published else "")
    row("multiply-adds (MACs)", _giga(result["macs"]), _giga(published["macs"]) if published else "")
    row("FLOPs (2 × MACs)", _giga(result["flops"]))
    row(f"peak memory, batch {protocol['batch_size']}", f"{result['memory_bytes'] / 2**20:,.1f} MiB")
    if result["throughput"]:
        spread = f"[{result['throughput_low']:,.1f} to {result['throughput_high']:,.1f}]"
        row(f"throughput, batch {protocol['batch_size']}", f"{result['throughput']:,.1f} images/s {spread}")
        row("latency, batch 1", f"{result['latency_ms']:,.2f} ms")
    console = Console()
    console.print(table)
    if result["throughput"]:
        console.print(
            f"{protocol['device']}, {protocol['threads']} thread(s), {protocol['precision']}, {protocol['dispatch']}, "
            f"median and quartiles of {protocol['blocks']} blocks, torch {protocol['torch_version']}",
            style="dim",
            soft_wrap=True,
        )


def _giga(value: float) -> str:
    return f"{value / 1e9:,.3f} G" if value >= 1e8 else f"{value / 1e6:,.3f} M"


if __name__ == "__main__":
    run(main, __doc__ or "")
