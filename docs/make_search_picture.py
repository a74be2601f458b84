"""Draws of a study what became of each candidate, along its learning curve and beside its speed.

    make sweep
    python docs/make_search_picture.py outputs/pareto
    python docs/make_search_picture.py outputs/pareto docs/search.png

Its first argument is the output folder of a study, which bears the name of the study. The picture becomes search.png in
this folder, or the file that is named behind it: the second line makes that of docs/search.md.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from explore.evaluation import COMPLETE, STOPPED
from explore.reporting import style
from explore.reporting.printed import INK, plain
from explore.search.rivals import results
from explore.search.storage import open_study
from explore.search.trial import Trial, front

_BLUE, _ORANGE, _GREEN, _VERMILION, _PINK, _SKY = style.COLOURS[:6]
# From the first rung up.
_STOPPED = ((_PINK, "^"), (_ORANGE, "s"), (_GREEN, "D"), (_VERMILION, "v"))
_TICKS = (0, 50, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.8)  # % of accuracy


@dataclass(frozen=True)
class Fate:
    """What became of some candidates, and how they are drawn."""

    name: str
    trials: Sequence[Trial]
    colour: str
    marker: str
    size: float = 5.0
    width: float = 1.0


def fates(trials: Sequence[Trial]) -> list[Fate]:
    """What became of candidates, from those that were only measured to those on the front."""
    best = {trial.number for trial in front(trials)}
    waiting: dict[int, list[Trial]] = {}
    for trial in trials:
        if trial.status == STOPPED:
            waiting.setdefault(trial.evaluation.epochs, []).append(trial)
    found = [Fate("measured, not trained", waiting.pop(0, []), style.GREY, "|", 9)]
    for (epochs, those), (colour, marker) in zip(sorted(waiting.items()), cycle(_STOPPED), strict=False):
        found.append(Fate(f"stopped after {epochs} epoch{'s' * (epochs > 1)}", those, colour, marker))
    complete = [trial for trial in trials if trial.status == COMPLETE]
    found.append(Fate("complete", [one for one in complete if one.number not in best], _SKY, "o", 5.5, 1.3))
    found.append(Fate("on the front", [one for one in complete if one.number in best], _BLUE, "o", 8, 2.2))
    return found


def draw(trials: Sequence[Trial], path: Path) -> None:
    """Draw both panels, 2,000 × 960 pixels."""
    figure = Figure(figsize=(10, 4.8), dpi=200, facecolor="white")
    curves, plane = figure.subplots(1, 2, sharey=True)
    groups = [fate for fate in fates(trials) if fate.trials]
    for fate in groups:
        _draw_curves(curves, fate)
        _draw_places(plane, fate)
    members = front(trials)
    plane.step(
        [trial.throughput for trial in reversed(members)],
        [_missing(trial.accuracy or 0.0) for trial in reversed(members)],
        where="pre",
        color=style.GREY,
        linewidth=1.0,
        zorder=2,
    )
    _scale(curves, plane, trials)
    _dress(curves, "Trained rung by rung", "epochs")
    _dress(plane, "Placed by accuracy and speed", "throughput / images/s")
    curves.set_ylabel("validation accuracy / %", color=INK, fontsize=10)
    handles, labels = plane.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper left", ncols=3, frameon=False, fontsize=9.5, labelcolor=INK)
    figure.text(0.012, 0.015, "; ".join(style.protocols(members)), color=style.GREY, fontsize=8)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.165, top=0.81, wspace=0.12)
    figure.savefig(path, format="png")


def _draw_curves(axes: Axes, fate: Fate) -> None:
    for trial in fate.trials:
        curve = trial.evaluation.curve
        epochs, missing = [epoch.epoch for epoch in curve], [_missing(epoch.val_accuracy) for epoch in curve]
        axes.plot(epochs, missing, color=fate.colour, linewidth=fate.width, alpha=0.8)
        axes.plot(epochs[-1:], missing[-1:], fate.marker, color=fate.colour, markersize=fate.size, clip_on=False)


def _draw_places(axes: Axes, fate: Fate) -> None:
    speeds = [trial.throughput or 0.0 for trial in fate.trials]
    trained = any(trial.evaluation.curve for trial in fate.trials)
    axes.plot(
        speeds,
        [_missing(trial.accuracy or 0.0) for trial in fate.trials] if trained else [0.02] * len(speeds),
        fate.marker,
        color=fate.colour,
        markersize=fate.size,
        markeredgecolor="white" if trained else fate.colour,
        markeredgewidth=0.6 if trained else 1.2,
        # Without an accuracy they stand at the bottom, whatever the scale.
        transform=axes.transData if trained else axes.get_xaxis_transform(),
        label=f"{fate.name} ({len(fate.trials)})",
        zorder=3,
    )


def _scale(curves: Axes, plane: Axes, trials: Sequence[Trial]) -> None:
    """Epochs, speed and what is missing of the accuracy on log scales, the rungs as ticks."""
    rungs = sorted({trial.evaluation.epochs for trial in trials if trial.evaluation.curve})
    curves.set_xscale("log")
    curves.xaxis.set_major_locator(FixedLocator(rungs))
    curves.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:.0f}"))
    left, right = style.speed_range([trial.throughput for trial in trials if trial.throughput])
    plane.set_xscale("log")
    plane.set_xlim(left, right)
    plane.xaxis.set_major_locator(FixedLocator(style.log_ticks(left, right)))
    plane.xaxis.set_major_formatter(FuncFormatter(lambda speed, _: style.tick(speed)))
    seen = [_missing(epoch.val_accuracy) for trial in trials for epoch in trial.evaluation.curve]
    curves.set_yscale("log")
    curves.set_ylim(1.35 * max(seen), 0.85 * min(seen))
    curves.yaxis.set_major_locator(FixedLocator([_missing(tick / 100) for tick in _TICKS]))
    curves.yaxis.set_major_formatter(FuncFormatter(lambda missing, _: f"{100 * (1 - missing):.3g}"))


def _dress(axes: Axes, title: str, name: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.set_xlabel(name, color=INK, fontsize=10)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    plain(axes, text_size=9)
    axes.tick_params(labelleft=True)


def _missing(accuracy: float) -> float:
    """The error rate, which has a logarithm."""
    return max(1 - accuracy, 1e-4)


def main(arguments: Sequence[str]) -> None:
    """Read the study of an output folder, which bears its name, and draw it there or where it is asked for."""
    if len(arguments) not in (1, 2):
        sys.exit(f"it needs the output folder of a study and perhaps a file, got {' '.join(arguments) or 'nothing'}")
    folder = Path(arguments[0])
    picture = Path(arguments[1]) if arguments[1:] else folder / "search.png"
    draw(results(open_study(f"sqlite:///{folder.resolve() / 'study.db'}", folder.resolve().name)), picture)
    print(f"wrote {picture}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
