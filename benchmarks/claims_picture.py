"""The figures of `benchmarks.claims` as a picture for docs/claims.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from explore.reporting.printed import INK, plain
from explore.reporting.style import COLOURS, GREY

_LABELS = {"mixer": "Mixer, D_S fixed", "mixer_grown": "Mixer, D_S grows with S", "vit": "ViT"}
_COLOUR = dict(zip(_LABELS, COLOURS, strict=False))


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw ratio, multiply-adds and seconds over the number of patches, 2400 × 900 pixels."""
    figure = Figure(figsize=(12, 4.5), dpi=200, facecolor="white")
    ratio, macs, seconds = figure.subplots(1, 3)
    _draw_ratio(ratio, result["ratios"])
    _draw_macs(macs, [*result["points"], *result["only_counted"]])
    _draw_seconds(seconds, result["points"])
    for axes in (ratio, macs, seconds):
        _dress(axes)
    protocol = result["protocol"]
    note = (
        f"{protocol['depth']} blocks of width {protocol['width']}, patches of 16 pixels; {protocol['device']}, "
        f"{protocol['threads']} thread(s), {protocol['precision']}, torch {protocol['torch_version']}; medians of "
        f"{protocol['blocks']} turns"
    )
    figure.text(0.012, 0.015, note, color=GREY, fontsize=7.5)
    figure.tight_layout(rect=(0, 0.045, 1, 1))
    figure.savefig(path, format="png")


def _draw_ratio(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    tokens = [row["tokens"] for row in rows]
    for key, word, style in (("eager", "eager", "-o"), ("compiled", "compiled", "--s"), ("macs", "by MACs", ":")):
        colour = GREY if key == "macs" else _COLOUR["mixer"]
        axes.plot(tokens, [row[f"mixer_{key}"] for row in rows], style, color=colour, markersize=4.5, label=word)
    axes.axhline(1.0, color=INK, linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.set_title("Mixer (D_S fixed): times as fast as ViT", **_TITLE)
    axes.set_xscale("log")
    _ticks(axes, tokens)


def _draw_macs(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    for kind, label in _LABELS.items():
        of_kind = [one for one in points if one["network"] == kind]
        tokens, macs = [one["tokens"] for one in of_kind], [one["macs"] / 1e9 for one in of_kind]
        axes.plot(tokens, macs, "-o", color=_COLOUR[kind], markersize=3.5, label=label)
    axes.set_title("multiply-adds of one image / 10⁹", **_TITLE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _ticks(axes, sorted({one["tokens"] for one in points})[::2])


def _draw_seconds(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    for kind, label in _LABELS.items():
        of_kind = [one for one in points if one["network"] == kind]
        tokens = [one["tokens"] for one in of_kind]
        for dispatch, style in (("eager", "-o"), ("compiled", "--s")):
            spent = [median(one[dispatch]) for one in of_kind]
            axes.plot(tokens, spent, style, color=_COLOUR[kind], markersize=3.5, label=f"{label}, {dispatch}")
    axes.set_title("seconds of one image", **_TITLE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _ticks(axes, sorted({one["tokens"] for one in points}))


_TITLE: dict[str, Any] = {"loc": "left", "color": INK, "fontsize": 10.5, "fontweight": "bold"}


def _ticks(axes: Axes, tokens: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(list(tokens)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:.0f}"))
    axes.set_xlabel("patches S", color=INK, fontsize=9.5)


def _dress(axes: Axes) -> None:
    plain(axes, text_size=8.5)
    axes.legend(frameon=False, fontsize=7.5, labelcolor=INK)
