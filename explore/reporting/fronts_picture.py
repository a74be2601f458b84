"""Several fronts in one picture, as PNG for pages and as SVG for papers: Matplotlib, without a display."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from explore.reporting import style
from explore.reporting.fronts import Searched
from explore.reporting.printed import INK, plain, speed_axis
from explore.search.trial import Trial, front

_OTHERS = 0.25  # opacity of trials off the front


def write_fronts_picture(studies: Sequence[Searched], note: str, paths: Sequence[Path]) -> None:
    """Draw the complete trials of each study and their front; the suffix of a path says what is written.

    `note` stands below the axes. Each study has at least one complete trial.
    """
    figure = Figure(figsize=(8, 5), dpi=200, facecolor="white")
    axes = figure.add_axes((0.085, 0.185, 0.88, 0.735))
    axes.set_title(" and ".join(study.name for study in studies), loc="left", color=INK, fontsize=12, parse_math=False)
    members = [trial for study in studies for trial in front(study.trials)]
    complete = [trial for study in studies for trial in study.complete]
    speed_axis(axes, [trial.throughput or 0.0 for trial in complete])
    axes.set_ylim(*style.accuracy_range(complete, [trial.accuracy or 0.0 for trial in members]))
    axes.set_xlabel("throughput / images/s", color=INK, fontsize=10)
    axes.set_ylabel("validation accuracy / %", color=INK, fontsize=10)
    plain(axes, text_size=9)
    for index, study in enumerate(studies):
        colour = style.COLOURS[index % len(style.COLOURS)]
        best = front(study.trials)
        name = textwrap.shorten(study.name, 40)
        axes.step(*_places(best[::-1]), where="pre", color=colour, linewidth=1.4, zorder=3)
        axes.plot(*_places(study.complete), "o", color=colour, alpha=_OTHERS, markersize=4, markeredgecolor="none")
        axes.plot(*_places(best), "o", color=colour, markersize=6, markeredgecolor="white", zorder=4, label=name)
    legend = axes.legend(loc="lower left", frameon=False, fontsize=8.5, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)
    lines = [part for line in note.splitlines() for part in textwrap.wrap(line, 130)]
    figure.text(0.085, 0.02, "\n".join(lines), color=style.GREY, fontsize=7.5, va="bottom", parse_math=False)
    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "explore", "svg.fonttype": "none"}):
        # A name may have letters that the font lacks; they become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _places(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    return [trial.throughput or 0.0 for trial in trials], [100 * (trial.accuracy or 0.0) for trial in trials]
