"""The replays of `benchmarks.search` as a picture: the share of a table's hypervolume over what was spent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.search_judge import SCALES, Finish, Table
from benchmarks.search_statistics import shares_at
from explore.reporting.printed import INK, plain
from explore.reporting.style import COLOURS, GREY, log_ticks, tick

_COLOURS = (*COLOURS, INK)
_DASHES: Sequence[Any] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.2, 1, 1.2)))
_SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
_TOP = 0.996  # of the axis; replays end a little behind 99 %
_POINTS = 500
_UNITS = {"epochs": "epochs trained", "seconds": "simulated seconds"}
Runs = Mapping[str, Sequence[Sequence[Finish]]]


def draw(tables: Mapping[str, Table], runs: Mapping[str, Runs], workers: int, path: Path) -> None:
    """Draw a row for each table and scale, over epochs and over seconds: medians and quartiles of the runs.

    `runs` are by table and method; the first method is the one that stands out. The picture is 1,800 pixels wide.
    """
    methods = list(next(iter(runs.values())))
    lines = len(tables) * len(SCALES)
    figure = Figure(figsize=(9, 1.1 + 2.5 * lines), dpi=200, facecolor="white")
    grid = figure.subplots(lines, len(_UNITS), squeeze=False)
    for index, (data, scale) in enumerate((data, scale) for data in tables for scale in SCALES):
        for axes, spent in zip(grid[index], _UNITS, strict=True):
            _draw(axes, tables[data], runs[data], scale, spent)
            _dress(axes, f"{data}, {_scale(scale)}", spent, last=index == lines - 1)
    handles, labels = grid[0][0].get_legend_handles_labels()
    seeds = len(next(iter(runs.values()))[methods[0]])
    height = figure.get_figheight()
    note = (
        f"Share of the table's hypervolume: medians and quartiles of {seeds} searches, workers={workers}.\n"
        "A dot: half of them had ended, with 99 % on both scales, nothing left to try or no epochs left."
    )
    figure.text(0.012, 0.1 / height, note, color=GREY, fontsize=8)
    figure.legend(handles, labels, loc="upper left", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
    legend = 0.15 + 0.2 * -(-len(methods) // 4)
    figure.tight_layout(rect=(0, 0.42 / height, 1, 1 - legend / height), h_pad=0.9)
    figure.savefig(path, format="png")


def _draw(axes: Axes, table: Table, runs: Runs, scale: str, spent: str) -> None:
    first = min(getattr(run[0], spent) for of_method in runs.values() for run in of_method if run)
    last = max(getattr(run[-1], spent) for of_method in runs.values() for run in of_method if run)
    axes.set_xlim(first, 1.04 * last)
    for index, (method, searches) in enumerate(runs.items()):
        # A search that has ended is not drawn on, as if it had gone on.
        end = float(np.median([getattr(run[-1], spent) if run else 0.0 for run in searches]))
        budgets = np.geomspace(first, max(first, end), _POINTS).tolist()
        low, median, high = 1 - np.quantile(
            shares_at(table, searches, scale, spent, budgets), [0.25, 0.5, 0.75], axis=0
        )
        colour, dash = _COLOURS[index % len(_COLOURS)], _DASHES[index % len(_DASHES)]
        leading = index == 0
        axes.fill_between(budgets, low, high, color=colour, alpha=0.2 if leading else 0.07, linewidth=0, zorder=2)
        axes.plot(
            *(budgets, median),
            color=colour,
            linestyle=dash,
            linewidth=2.4 if leading else 1.4,
            zorder=4 if leading else 3,
            label=method,
        )
        axes.plot(budgets[-1], median[-1], "o", color=colour, markersize=3.5, zorder=5)


def _dress(axes: Axes, title: str, spent: str, *, last: bool) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.set_xscale("log")
    ticks = log_ticks(*axes.get_xlim())
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: tick(number)))
    axes.xaxis.set_minor_locator(NullLocator())
    # What is missing, on a log scale: the last percents are where searches differ.
    axes.set_yscale("log")
    axes.set_ylim(1 - _SHARES[0] + 0.1, 1 - _TOP)
    axes.yaxis.set_major_locator(FixedLocator([1 - share for share in _SHARES]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda missing, _: f"{1 - missing:.0%}"))
    axes.yaxis.set_minor_locator(NullLocator())
    if last:
        axes.set_xlabel(_UNITS[spent], color=INK, fontsize=9.5)
    plain(axes, text_size=8.5)


def _scale(scale: str) -> str:
    return "accuracy as it is" if scale == "plain" else "logarithm of the error"
