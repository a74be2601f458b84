"""The pictures of an ablation for papers and slides, as PNG and SVG: Matplotlib, without a display."""

from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from explore.ablation.options import Ablation
from explore.ablation.records import Difference, Findings, Scores
from explore.reporting import style
from explore.reporting.ablation_style import (
    BETTER,
    WORSE,
    Mark,
    aside,
    bounds,
    captions,
    clipped,
    crossings,
    curves,
    level_colours,
    listed,
    marks,
    points,
    probability,
    verdict,
    word,
    wrapped,
)
from explore.reporting.intervals import paired, student
from explore.reporting.printed import INK, plain, save, speed_axis

_ACCURACY = "validation accuracy / %"
_LOOK: Any = {  # Matplotlib's stubs list every key
    "text.parse_math": False,  # names are no formulas
    "text.color": INK,
    "axes.labelcolor": INK,
    "font.size": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
}


def write_pictures(
    scores: Scores, findings: Findings | None, rows: pd.DataFrame, runs: pd.DataFrame, options: Ablation, folder: Path
) -> None:
    """Write forest, interaction, plane and curves, each as .png and .svg, into an existing folder.

    `rows` are those of `arm_rows`, `runs` are described there. A picture without anything to draw is not written.
    """
    level = findings.level if findings else options.error
    notes = captions(findings, level, options.margin)
    with mpl.rc_context(_LOOK):
        figures = {
            "forest": forest_picture(findings, options.margin) if findings else None,
            "interaction": interaction_picture(scores, level),
            "plane": plane_picture(scores, rows, level),
            "curves": curves_picture(scores, runs, level),
        }
        for name, figure in figures.items():
            if figure:
                figure.supxlabel(wrapped(notes[name], 140), x=0.01, ha="left", color=style.GREY, fontsize=7.5)
                save(figure, folder, name)


def forest_picture(findings: Findings, margin: float) -> Figure | None:
    """Draw every difference with its intervals beside its numbers; `margin` is a fraction."""
    rows = listed(findings)
    if not rows:
        return None
    figure = _figure(1.4 + 0.24 * len(rows))
    axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
    axes.axvspan(-100 * margin, 100 * margin, color=style.GREY, alpha=0.13, linewidth=0)
    axes.axvline(0, color=style.GREY, linewidth=1)
    for place, row in enumerate(rows):
        if not isinstance(row, str):
            _draw_difference(axes, place, row)
            _write_numbers(beside, place, row)
    axes.set_yticks(range(len(rows)), [clipped(row if isinstance(row, str) else row.name, 40) for row in rows])
    plain(axes, text_size=8.5)
    axes.grid(visible=False, axis="y")
    for row, label in zip(rows, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if isinstance(row, str) else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.8)
    beside.set_axis_off()
    _write(beside, 0, ("difference [interval]", "p, Holm"), style.GREY)
    axes.set_xlabel("difference of validation accuracy / percentage points")
    entries = [
        _entry("better", "o", BETTER),
        _entry("worse", "o", WORSE),
        Line2D([], [], linestyle="none", marker="o", color=style.GREY, markerfacecolor="white", label="not told"),
        _entry("negligible", "s", style.GREY),
    ]
    figure.legend(handles=entries, loc="outside upper right", ncols=4)
    return figure


def interaction_picture(scores: Scores, level: float) -> Figure | None:
    """Draw, for each two factors, the means over the levels of the first, a line for each level of the second."""
    crossed = crossings(scores)
    if not crossed:
        return None
    figure = _figure(0.5 + 3.3 * len(crossed))
    colours = level_colours(scores)
    for axes, (first, second, table) in zip(figure.subplots(len(crossed), squeeze=False)[:, 0], crossed, strict=True):
        means, halves = table.mean(), paired(table, level)
        lines = [one for one in scores.factors[second] if one in table.columns.get_level_values(1)]
        for number, line in enumerate(lines):
            cells = [(one, line) for one in scores.factors[first]]
            axes.errorbar(
                [place + aside(number, len(lines)) for place in range(len(cells))],
                100 * means.reindex(cells),
                100 * halves.reindex(cells),
                color=colours[second, line],
                marker=style.MARKERS[number % len(style.MARKERS)],
                linewidth=1.4,
                capsize=2,
                label=clipped(style.value(line), 24),
            )
        axes.set_xticks(range(len(scores.factors[first])), [_broken(one) for one in scores.factors[first]])
        axes.set_xlabel(word(first))
        axes.set_ylabel(_ACCURACY)
        plain(axes, text_size=8.5)
        axes.legend(title=word(second), loc="upper left", bbox_to_anchor=(1.01, 1.0), alignment="left")
    return figure


def plane_picture(scores: Scores, rows: pd.DataFrame, level: float) -> Figure | None:
    """Draw the arms that are compared by throughput and accuracy, with the intervals of both."""
    drawn = rows[rows["arm"].isin(scores.arms) & rows["throughput"].notna() & rows["val_accuracy"].notna()]
    if drawn.empty:
        return None
    figure, given, halves = _figure(4.8), marks(scores), paired(scores.accuracies, level)
    axes = figure.subplots()
    for row in drawn.to_dict("records"):
        mark = given[row["arm"]]
        axes.errorbar(
            row["throughput"],
            100 * row["val_accuracy"],
            xerr=[[row["throughput"] - row["throughput_low"]], [row["throughput_high"] - row["throughput"]]],
            yerr=100 * halves[row["arm"]],
            marker=style.MARKERS[mark.shape % len(style.MARKERS)],
            color=mark.colour,
            elinewidth=1,
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=0.8,
        )
    speed_axis(axes, [*drawn["throughput_low"], *drawn["throughput_high"]])
    axes.set_xlabel("throughput / images/s")
    axes.set_ylabel(_ACCURACY)
    plain(axes, text_size=8.5)
    reference = drawn.iloc[0]
    place = reference["throughput"], 100 * reference["val_accuracy"]
    axes.annotate("reference", place, xytext=(6, 5), textcoords="offset points", color=INK, fontsize=7.5)
    entries = [_entry(name, "o", colour) for name, colour in {one.first: one.colour for one in given.values()}.items()]
    shapes = {one.rest: style.MARKERS[one.shape % len(style.MARKERS)] for one in given.values() if one.rest}
    entries += [_entry(name, shape, style.GREY) for name, shape in shapes.items()]
    title = word(next(iter(scores.factors)))
    axes.legend(handles=entries, title=title, loc="upper left", bbox_to_anchor=(1.01, 1.0), alignment="left")
    return figure


def curves_picture(scores: Scores, runs: pd.DataFrame, level: float) -> Figure | None:
    """Draw the mean learning curve of each arm with a band: a panel per shape, a line per colour."""
    tables, given = curves(scores, runs), marks(scores)
    panels = list(dict.fromkeys(given[name].rest for name in tables))
    if not panels:
        return None
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    figure = _figure(0.9 + 2.7 * ceil(len(panels) / columns))
    grid = figure.subplots(ceil(len(panels) / columns), columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        axes.set_title(clipped(panel, 28), loc="left", fontsize=9)
        axes.margins(y=0.01)
        plain(axes, text_size=8.5)
        for name, table in tables.items():
            if given[name].rest == panel:
                _draw_curve(axes, table, given[name], level)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    grid[0].set_ylim(bounds(tables, level))
    for axes in grid[: len(panels) : columns]:
        axes.set_ylabel(_ACCURACY)
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        axes.tick_params(labelbottom=True)
    colours = {given[name].first: given[name].colour for name in tables}
    lines = [Line2D([], [], color=colour, linewidth=2, label=clipped(name)) for name, colour in colours.items()]
    title = word(next(iter(scores.factors)))
    figure.legend(handles=lines, title=title, alignment="left", loc="outside upper left", ncols=min(5, len(lines)))
    return figure


def _figure(height: float) -> Figure:
    return Figure(figsize=(8, height), dpi=200, facecolor="white", layout="constrained")


def _draw_difference(axes: Axes, row: int, difference: Difference) -> None:
    found = verdict(difference)
    low, high, mean = 100 * difference.low, 100 * difference.high, 100 * difference.mean
    thin = [100 * difference.bootstrap_low, 100 * difference.bootstrap_high]
    axes.plot(thin, [row + 0.28] * 2, color=found.colour, linewidth=0.8)
    axes.plot([low, high], [row] * 2, color=found.colour, linewidth=2.2, solid_capstyle="butt")
    face = found.colour if found.told or found.negligible else "white"
    axes.plot(mean, row, "s" if found.negligible else "o", color=found.colour, markerfacecolor=face, markersize=6)


def _write_numbers(axes: Axes, row: int, difference: Difference) -> None:
    interval = f"{points(difference.mean)} [{points(difference.low)}, {points(difference.high)}]"
    _write(axes, row, (interval, probability(difference.p_holm)), INK)


def _write(axes: Axes, row: int, columns: tuple[str, str], colour: str) -> None:
    for x, text in zip((0.0, 0.76), columns, strict=True):
        axes.text(x, row, text, transform=axes.get_yaxis_transform(), color=colour, fontsize=8, va="center")


def _draw_curve(axes: Axes, table: pd.DataFrame, mark: Mark, level: float) -> None:
    mean, half = 100 * table.mean(), 100 * student(table, level)
    axes.fill_between(table.columns, mean - half, mean + half, color=mark.colour, alpha=0.18, linewidth=0)
    axes.plot(table.columns, mean, color=mark.colour, linewidth=1.5)


def _broken(level: object) -> str:
    """A level under its place, in lines that are short enough to stand side by side."""
    return wrapped(clipped(style.value(level).replace("_", " "), 36), 14)


def _entry(name: str, marker: str, colour: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=6, label=clipped(name))
