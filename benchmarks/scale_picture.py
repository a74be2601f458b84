"""The simulated efficiency of many workers as a picture."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from explore.reporting.printed import INK, plain
from explore.reporting.style import COLOURS, GREY, log_ticks, tick


def draw(shares: Mapping[float, Mapping[int, float]], path: Path) -> None:
    """Draw a line for each mean length of a step in seconds: efficiency by number of workers; 1,400 pixels wide."""
    figure = Figure(figsize=(7, 4), dpi=200, facecolor="white")
    axes = figure.add_axes((0.1, 0.14, 0.86, 0.72))
    for index, (seconds, efficiencies) in enumerate(shares.items()):
        axes.plot(
            list(efficiencies),
            [100 * share for share in efficiencies.values()],
            "o-",
            color=COLOURS[index % len(COLOURS)],
            markersize=4,
            label=_length(seconds),
        )
    axes.set_title("How busy workers would be, by the length of a step", loc="left", color=INK, fontsize=11)
    axes.set_xscale("log")
    counts = [count for efficiencies in shares.values() for count in efficiencies]
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(min(counts), max(counts))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: tick(number)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 103)
    axes.set_xlabel("workers", color=INK, fontsize=9.5)
    axes.set_ylabel("time spent measuring or training / %", color=INK, fontsize=9.5)
    plain(axes, text_size=8.5)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    figure.text(0.1, 0.01, "simulated, with the costs of docs/scale.md", color=GREY, fontsize=7.5)
    figure.savefig(path, format="png")


def _length(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"
