"""Costs as tables for people: one network, all published ones, and variants side by side.

What they draw are the results as `format=json` prints them.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from explore.cost.speed import BOUNDED
from explore.counted import counted

# A terminal breaks lines that are too long for it, which is better than cutting columns.
_WIDTH = 240


def print_network(result: Mapping[str, Any]) -> None:
    """Print the cost of one network, beside what was published of it."""
    published, protocol = result["published"], result["protocol"]
    table = _table(f"{result['name']}, {_images(result)}")
    table.add_column("")
    table.add_column("measured", justify="right")
    if published:
        table.add_column(f"published ({published['paper']})", justify="right")

    def row(name: str, value: str, reference: str = "") -> None:
        table.add_row(name, value, *([reference] if published else []))

    def reference(key: str) -> Any:
        return published[key] if published else None

    row("parameters", f"{result['params']:,}", _whole(reference("params")))
    row("multiply-adds (MACs)", _giga(result["macs"]), _giga(reference("macs")))
    row("FLOPs (2 × MACs)", _giga(result["flops"]))
    if (result["deployed_params"], result["deployed_macs"]) != (result["params"], result["macs"]):
        row("parameters, deployed", f"{result['deployed_params']:,}", _whole(reference("deployed_params")))
        row("MACs, deployed", _giga(result["deployed_macs"]), _giga(reference("deployed_macs")))
    row(f"peak memory, batch {protocol['batch_size']}", f"{result['memory_bytes'] / 2**20:,.1f} MiB")
    if result["throughput"]:
        spread = f" [{result['throughput_low']:,.1f} to {result['throughput_high']:,.1f}]"
        speed = f"{result['throughput']:,.1f} images/s{spread if protocol['blocks'] > 1 else ''}"
        row(f"throughput, batch {protocol['batch_size']}", speed)
        for share, key in (("median", "latency_ms"), ("90 %", "latency_p90_ms"), ("99 %", "latency_p99_ms")):
            if result[key] is not None:  # as it is of too few passes
                row(f"latency, batch 1, {share}", f"{result[key]:,.2f} ms")
    if predicted := result["predicted"]:
        row(
            f"throughput, batch {predicted['protocol']['batch_size']}, predicted",
            f"{predicted['throughput']:,.0f} images/s",
        )
    console = Console()
    console.print(table)
    if predicted:
        errors, machine = predicted["errors"], _machine(predicted["protocol"])
        known = f"median error {errors['median']:.1%}, rank correlation {errors['rank_correlation']:.3f}"
        words = f"predicted from {errors['networks']} networks of study {predicted['study']} on {machine}, not measured"
        _print_note(console, f"{words}; with each tenth of them left out: {known}")
        if predicted["beyond"]:
            _print_note(console, f"this one is {', and '.join(predicted['beyond'])}: it may be further off")
    if result["throughput"]:
        blocks = protocol["blocks"]
        known = f"median and {'95 % interval' if blocks >= BOUNDED else 'range'} of {blocks} blocks"
        known = known if blocks > 1 else "1 block"
        words = f"{_machine(protocol)}, {protocol['dispatch']}, {known}"
        _print_note(console, f"{words}, torch {protocol['torch_version']}")
        if not result["settled"]:
            _print_note(console, f"not settled: {_unsettled(protocol)}")
        if protocol["strangers"]:
            _print_note(console, f"not alone: {', '.join(protocol['strangers'])} used the GPU meanwhile")


def _unsettled(protocol: Mapping[str, Any]) -> str:
    """Why a figure has not settled, and what to do."""
    blocks, asked = protocol["blocks"], f"±{100 * protocol['interval']:g} %"
    few = f"{counted(blocks, 'block')} within {protocol['max_seconds']:g} s, too few to tell how far off it is"
    why = few if blocks < BOUNDED else f"the interval is wider than {asked}"
    advice = f"give it more than cost.max_seconds={protocol['max_seconds']:g}"
    if protocol["threads"] > 1:  # they are timed by the clock on the wall, and wait for the slowest of them
        advice += ", and the cores that it computes with, or cost.threads=1, which others disturb less"
    return f"{why}; {advice}"


def print_published(result: Mapping[str, Any]) -> None:
    """Print the counts of published networks, one in a row; a figure that differs shows by how much."""
    timed = any(network["throughput"] for network in result["networks"])
    table = _table(f"{len(result['networks'])} published networks")
    table.add_column("")
    for name in ("pixels", "parameters", "deviation", "MACs", "deviation", "deployed: parameters", "MACs"):
        table.add_column(name, justify="right")
    if timed:
        table.add_column("images/s", justify="right")
    table.add_column("top-1", justify="right")
    table.add_column("paper")
    for network in result["networks"]:
        off, published = network["deviation"], network["published"]
        same = (network["deployed_params"], network["deployed_macs"]) == (network["params"], network["macs"])
        table.add_row(
            network["name"],
            str(network["image_size"]),
            f"{network['params']:,}",
            "-" if off["params"] is None else _exact(network["params"] - published["params"]),
            _giga(network["macs"]),
            "-" if off["macs"] is None else f"{100 * off['macs']:+.2f} %",
            "" if same else f"{network['deployed_params']:,}",
            "" if same else _giga(network["deployed_macs"]),
            *([f"{network['throughput']:,.1f}"] if timed else []),
            "" if published["top1"] is None else f"{published['top1']:.2f} %",
            published["paper"],
        )
    console = Console(width=_WIDTH)
    console.print(table)
    if timed:
        protocol = result["protocol"]
        _print_note(console, f"one after the other; {_machine(protocol)}, batch {protocol['batch_size']}")


def print_variants(result: Mapping[str, Any]) -> None:
    """Print variants side by side, the fastest first, and below them those that refused their place."""
    columns = [key for key in ("eager", "graph", "compiled", "training") if any(one[key] for one in result["variants"])]
    table = _table(f"every {result['group']}, {_images(result)}; {result['network']}")
    table.add_column(result["group"])
    for name in ("parameters", "MACs", "memory", *(f"{key}, images/s" for key in columns)):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in result["variants"]:
        table.add_row(
            one["name"],
            _trained_and_deployed(f"{one['params']:,}", f"{one['deployed_params']:,}"),
            _trained_and_deployed(_giga(one["macs"]), _giga(one["deployed_macs"])),
            f"{one['memory_bytes'] / 2**20:,.1f} MiB",
            *(_speed(one[key]) for key in columns),
            Text(one["note"]),
        )
    console = Console(width=_WIDTH)
    console.print(table)
    for one in result["refused"]:
        console.print(Text(f"{one['name']} is left out: {one['reason']}"), soft_wrap=True)
    protocol = result["protocol"]
    counted = f"memory and speed at batch {protocol['batch_size']}, {protocol['precision']}"
    if columns:
        counted = (
            f"median [95 % interval] of blocks in turn; {_machine(protocol)}, batch {protocol['batch_size']}; "
            f"training is forward, backward and AdamW, eager; torch {protocol['torch_version']}"
        )
    _print_note(console, counted)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 3, 0, 0))


def _print_note(console: Console, text: str) -> None:
    console.print(Text(text), style="dim", soft_wrap=True)


def _images(result: Mapping[str, Any]) -> str:
    return f"{result['image_size']} × {result['image_size']} pixels, {result['classes']:,} classes"


def _machine(protocol: Mapping[str, Any]) -> str:
    return f"{protocol['device']}, {protocol['threads']} thread(s), {protocol['precision']}"


def _trained_and_deployed(trained: str, deployed: str) -> str:
    return trained if trained == deployed else f"{trained} → {deployed}"


def _speed(speed: Mapping[str, float] | None) -> str:
    if not speed:
        return "-"
    digits = 0 if speed["low"] >= 100 else 2
    low, high = (f"{speed[key]:,.{digits}f}" for key in ("low", "high"))
    return f"{speed['images_per_second']:,.{digits}f} \\[{low} to {high}]"


def _exact(difference: int) -> str:
    return f"{difference:+,}" if difference else "0"


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _giga(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e9:,.3f} G" if value >= 1e8 else f"{value / 1e6:,.3f} M"
