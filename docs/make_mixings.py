"""Writes docs/mixings.md from the catalogs, the published models and the measured figures in docs/mixings.json.

    python docs/make_mixings.py

What the page says of a mixing is its docstring. The file of figures has, for each kind of mixing, what
`python -m explore.measure token_mixing=all format=json` (or `channel_mixing=all`) printed as `result`, with the
`command`, `commit` and `date`.
"""

import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explore.architecture.catalog import Mixing, hyperparameters
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.published import PUBLISHED
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

PAGE, FIGURES = Path(__file__).with_name("mixings.md"), Path(__file__).with_name("mixings.json")
CATALOGS: Mapping[str, Mapping[str, type]] = {"token_mixing": TOKEN_MIXINGS, "channel_mixing": CHANNEL_MIXINGS}
TITLES = {"token_mixing": "Token mixings", "channel_mixing": "Channel mixings"}
INTRODUCTION = """# Mixings

Every way of mixing in the catalogs, each by one word: `token_mixing=NAME` across the patches, `channel_mixing=NAME`
across the channels. S is the number of tokens (patches), H and W the rows and columns of their grid, C the number of
channels. Parameters and multiply-adds are those of one mixing, without the norm and the residual around it. A mixing
tied to the grid has weights whose shapes follow from the number of patches, so that its weights fit one image size.

This page is made from the source by `make docs`; the class behind each name says the same.
"""


@dataclass(frozen=True)
class Described:
    """What the docstring of a mixing says, by its parts."""

    summary: str
    formula: str
    mixes: str
    options: Mapping[str, str]
    parameters: str
    macs: str
    paper: str


def described(mixing: type) -> Described:
    """Reads the docstrings of a mixing and of its module; raises `ValueError` for a part that is missing."""
    text = " ".join((inspect.getdoc(mixing) or "").split())
    parts = re.fullmatch(r"(.+?) Formula: (.+?) Mixes: (.+?)(?= `\w+`: | Parameters: )(.*) Parameters: (.+)", text)
    costs = parts and re.match(r"(.+?); multiply-adds: (.+?)(?:,? for (?:each of )?S tokens|\.? ?$)", parts[5])
    paper = re.match(r"(.+?)(?:\n\n|$)", inspect.getdoc(inspect.getmodule(mixing)) or "", re.DOTALL)
    if not parts or not costs or not paper:
        raise ValueError(f"{mixing.__name__} must say Formula:, Mixes:, Parameters: and multiply-adds: in its docs")
    options = dict(re.findall(r"`(\w+)`: (.+?)(?= `\w+`: |$)", parts[4]))
    return Described(parts[1], parts[2], parts[3], options, costs[1], costs[2], " ".join(paper[1].split()))


def page(figures: Mapping[str, Any]) -> str:
    """The whole page."""
    sections = [INTRODUCTION]
    for kind, catalog in CATALOGS.items():
        sections.append(f"## {TITLES[kind]}\n")
        sections.append(_overview(kind, catalog))
        if kind in figures:
            sections.append(_measured(kind, figures[kind]))
        sections += [_section(kind, name, mixing, figures.get(kind, {})) for name, mixing in catalog.items()]
    return "\n".join(sections)


def _overview(kind: str, catalog: Mapping[str, type]) -> str:
    lines = ["| name | what it does | parameters | multiply-adds | tied to the grid |", "|---|---|---|---|---|"]
    for name, mixing in catalog.items():
        about = described(mixing)
        tied = "yes" if getattr(mixing, "tied_to_grid", False) else "no"
        lines.append(f"| [`{name}`](#{kind}-{name}) | {about.summary} | {about.parameters} | {about.macs} | {tied} |")
    return "\n".join(lines) + "\n"


def _section(kind: str, name: str, mixing: type, figures: Mapping[str, Any]) -> str:
    about = described(mixing)
    users = [model for model, row in PUBLISHED.items() if Mixing.of(getattr(row, kind)).name == name]
    lines = [f'<a id="{kind}-{name}"></a>', f"### {kind}={name}", "", about.paper, "", about.summary, ""]
    lines += [f"- Formula: {about.formula}", f"- Mixes: {about.mixes}", f"- Parameters: {about.parameters}"]
    lines += [f"- Multiply-adds: {about.macs}"]
    for option in hyperparameters(mixing).values():
        default = "null" if option.default is None else option.default
        lines.append(f"- `{kind}.{option.name}={default}`: {about.options[option.name]}")
    lines.append(f"- Published networks: {', '.join(f'`{one}`' for one in users) or 'none in the list'}")
    for row in figures["result"]["variants"] if figures else ():
        if row["name"] == name:
            lines.append(f"- Measured, in the network of the table above: {_figures(row)}")
    return "\n".join(lines) + "\n"


def _spread(protocol: Mapping[str, Any]) -> str:
    """What stands in brackets behind a figure; figures from before the reference network have another spread."""
    return "95 % interval" if "interval" in protocol else "quartiles"


def _measured(kind: str, figures: Mapping[str, Any]) -> str:
    result = figures["result"]
    protocol = result["protocol"]
    lines = [
        f"Measured in a network of {result['network']} for {result['image_size']} × {result['image_size']} pixels in "
        f"patches of {result['patch_size']}: images per second, median and {_spread(protocol)} of blocks in turn, "
        f"batch {protocol['batch_size']}, {protocol['threads']} thread of an {protocol['device']}, "
        f"{protocol['precision']}, torch {protocol['torch_version']}. Parameters and multiply-adds are those of the "
        "whole network; inference is that of the deployed form, training is forward, backward and a step of AdamW.",
        "",
        f"`{figures['command']}`, commit {figures['commit']}, {figures['date']}",
        "",
        f"| `{kind}=` | parameters | multiply-adds | memory | inference, eager | compiled | training |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["variants"]:
        counts = f"{row['params']:,} | {row['macs'] / 1e6:,.1f} M | {row['memory_bytes'] / 2**20:,.0f} MiB"
        speeds = " | ".join(_speed(row.get(key)) for key in ("eager", "compiled", "training"))
        lines.append(f"| [`{row['name']}`](#{kind}-{row['name']}) | {counts} | {speeds} |")
    lines += [f"\n`{one['name']}` is left out: {one['reason']}" for one in result["refused"]]
    return "\n".join(lines) + "\n"


def _figures(row: Mapping[str, Any]) -> str:
    speeds = ", ".join(f"{key} {_speed(row[key])}" for key in ("eager", "compiled", "training") if row.get(key))
    return f"{row['params']:,} parameters, {row['macs'] / 1e6:,.1f} M multiply-adds; images/s {speeds}"


def _speed(speed: Mapping[str, float] | None) -> str:
    if speed is None:
        return "–"
    return f"{speed['images_per_second']:,.0f} ({speed['low']:,.0f} to {speed['high']:,.0f})"


def main() -> None:
    """Writes the page."""
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    PAGE.write_text(page(figures))
    print(f"wrote {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
