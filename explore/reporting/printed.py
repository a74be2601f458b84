"""The front, and what mattered, as pictures for a README, a paper or a slide: Matplotlib, without a display."""

import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from math import log
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from explore.counted import counted
from explore.evaluation import COMPLETE
from explore.reporting import style
from explore.search.seeds import over_seeds
from explore.search.trial import Trial, front

INK, _FAINT = "#1F2630", "#E3E7EC"  # of text, and of lines that guide the eye
_OTHERS = 0.35  # opacity of trials off the front
_MOST_SHAPES = 1000  # of more, those off the front are pixels in an SVG, which would take seconds to open


def write_front(trials: Sequence[Trial], tests: Mapping[int, float], folder: Path, title: str) -> None:
    """Draw all complete trials and their front; `tests` maps trial numbers to test accuracy.

    Without a complete trial the picture says so.
    """
    complete = [trial for trial in trials if trial.status == COMPLETE]
    figure, axes = new_picture(title)
    if complete:
        _draw(axes, complete, tests, style.colours(_variant(trial, "token_mixing") for trial in trials))
        figure.text(0.085, 0.02, _protocol(complete), color=style.GREY, fontsize=7.5, va="bottom", parse_math=False)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no complete trial yet", color=style.GREY, ha="center", transform=axes.transAxes)
    save(figure, folder, "front")


def write_importance(shares: Mapping[str, Mapping[str, float]], folder: Path, title: str) -> None:
    """Draw the share of each dimension by objective, as `importances` returns them; nothing without any."""
    if not shares:
        return
    sums = {key: sum(each.get(key, 0.0) for each in shares.values()) for each in shares.values() for key in each}
    keys = sorted(sums, key=lambda key: sums[key])
    figure, axes = new_picture(f"{title}: what mattered")
    axes.set_position((0.22, 0.165, 0.56, 0.755))
    thickness = 0.7 / len(shares)
    for place, (objective, each) in enumerate(shares.items()):
        axes.barh(
            [index + thickness * (len(shares) / 2 - place - 0.5) for index in range(len(keys))],
            [100 * each.get(key, 0.0) for key in keys],
            height=thickness,
            color=style.COLOURS[place],
            label=objective,
        )
    axes.set_yticks(range(len(keys)), [textwrap.shorten(key, 30) for key in keys], parse_math=False)
    axes.set_xlabel("share of the effect / %", color=INK, fontsize=10)
    plain(axes, text_size=9)
    axes.grid(visible=False, axis="y")
    add_legend(axes, axes.get_legend_handles_labels()[0])
    save(figure, folder, "importance")


def new_picture(title: str) -> tuple[Figure, Axes]:
    """A picture of 1600 × 1000 pixels with one pair of axes, and room for a legend beside them."""
    figure = Figure(figsize=(8, 5), dpi=200, facecolor="white")
    axes = figure.add_axes((0.085, 0.165, 0.695, 0.755))
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", parse_math=False)
    return figure, axes


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.png` and `name.svg`, the same to the byte whenever they are written."""
    with warnings.catch_warnings(), rc_context({"svg.hashsalt": name}):
        # A title may have letters that the font lacks; they become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(folder / f"{name}.png")
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def add_legend(axes: Axes, entries: Sequence[Artist]) -> None:
    """Say beside the axes what is what."""
    legend = axes.legend(
        handles=list(entries),
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw(axes: Axes, complete: Sequence[Trial], tests: Mapping[int, float], colours: Mapping[str, str]) -> None:
    members = front(complete)
    channels = sorted({_variant(trial, "channel_mixing") for trial in complete})
    markers = {name: style.MARKERS[index % len(style.MARKERS)] for index, name in enumerate(channels)}
    _frame(axes, complete, tests)
    axes.step(*_places(reversed(members)), where="pre", color=style.GREY, linewidth=1.2, zorder=2)
    best = {trial.number for trial in members}
    groups: dict[tuple[str, str, bool], list[Trial]] = {}
    for trial in complete:
        key = _variant(trial, "token_mixing"), _variant(trial, "channel_mixing"), trial.number in best
        groups.setdefault(key, []).append(trial)
    for (token, channel, on_front), group in groups.items():
        axes.plot(
            *_places(group),
            linestyle="none",
            marker=markers[channel],
            color=colours[token],
            alpha=1.0 if on_front else _OTHERS,
            markersize=7 if on_front else 4.5,
            markeredgecolor="white" if on_front else "none",
            markeredgewidth=0.8,
            zorder=4 if on_front else 3,
            rasterized=not on_front and len(complete) > _MOST_SHAPES,
        )
    _add_means(axes, members)
    tested = [trial for trial in members if trial.number in tests]
    reached = [100 * tests[trial.number] for trial in tested]
    axes.plot(_places(tested)[0], reached, "_", color=INK, markersize=8, markeredgewidth=1.4, zorder=5)
    _label(axes, members)
    _add_legend(axes, complete, colours, markers, bool(tested))


def _add_means(axes: Axes, members: Sequence[Trial]) -> None:
    """Means over seeds, with their intervals."""
    again = [(trial, mean) for trial in members if (mean := over_seeds(trial))]
    axes.errorbar(
        _places(trial for trial, _ in again)[0],
        [100 * mean.mean for _, mean in again],
        yerr=[100 * mean.half for _, mean in again],
        fmt="o",
        color=INK,
        markerfacecolor="none",
        markersize=4,
        elinewidth=1,
        capsize=2.5,
        zorder=5,
    )


def _frame(axes: Axes, complete: Sequence[Trial], tests: Mapping[int, float]) -> None:
    low, high = style.accuracy_range(complete, list(tests.values()))
    axes.set_ylim(low, high)
    speed_axis(axes, [trial.throughput or 0.0 for trial in complete])
    axes.set_xlabel("throughput / images/s", color=INK, fontsize=10)
    axes.set_ylabel("validation accuracy / %", color=INK, fontsize=10)
    plain(axes, text_size=9)
    outside = sum(_percent(trial) < low for trial in complete)
    if outside:
        note = f"{outside} below {low:.0f} % not shown"
        axes.text(0.01, 0.015, note, color=style.GREY, fontsize=7.5, transform=axes.transAxes)


def speed_axis(axes: Axes, speeds: Sequence[float]) -> None:
    """A logarithmic axis wide enough for these images per second, with few round numbers at it."""
    left, right = style.speed_range(speeds)
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.xaxis.set_major_locator(FixedLocator(style.log_ticks(left, right)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: style.tick(tick)))


def _label(axes: Axes, members: Sequence[Trial]) -> None:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    places = [
        (log((trial.throughput or 1.0) / left) / log(right / left), (_percent(trial) - low) / (high - low))
        for trial in members
    ]
    for index in style.spaced(places):
        trial = members[index]
        axes.annotate(
            f"#{trial.number}",
            (trial.throughput or 0.0, _percent(trial)),
            xytext=(4, 4),
            textcoords="offset points",
            color=INK,
            fontsize=7.5,
        )


def plain(axes: Axes, text_size: float) -> None:
    """Faint lines behind what is drawn, and no frame but the axis below; `text_size` of the ticks, in points."""
    axes.grid(color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=text_size, length=0, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(style.GREY)


def _add_legend(
    axes: Axes, complete: Sequence[Trial], colours: Mapping[str, str], markers: Mapping[str, str], tested: bool
) -> None:
    """Colours first, then shapes, then what the lines are."""
    used = {_variant(trial, "token_mixing") for trial in complete}
    entries: list[Artist] = [_entry(name, "o", colours[name]) for name in sorted(used) if name]
    if len(markers) > 1:
        entries += [_entry(f"channel {name}", marker, style.GREY) for name, marker in markers.items()]
    entries.append(Line2D([], [], color=style.GREY, linewidth=1.2, label="front"))
    if tested:
        entries.append(_entry("test accuracy", "_", INK))
    if any(over_seeds(trial) for trial in complete):
        entries.append(_entry("mean of seeds, 95 %", "|", INK))
    add_legend(axes, entries)


def _entry(name: str, marker: str, color: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=color, markersize=6, label=textwrap.shorten(name, 24))


def _protocol(complete: Sequence[Trial]) -> str:
    """Under the axes: how many trials, and where and how their speed was measured."""
    lines = [f"{counted(len(complete), 'trial')}. " + "; ".join(style.protocols(complete))]
    return "\n".join(part for line in lines for part in textwrap.wrap(line, 130, max_lines=3))


def _variant(trial: Trial, key: str) -> str:
    return str(trial.proposal.values.get(key, ""))


def _places(trials: Iterable[Trial]) -> tuple[list[float], list[float]]:
    drawn = list(trials)
    return [trial.throughput or 0.0 for trial in drawn], [_percent(trial) for trial in drawn]


def _percent(trial: Trial) -> float:
    return 100 * (trial.accuracy or 0.0)
