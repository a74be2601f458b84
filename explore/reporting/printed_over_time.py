"""What a search did over time, as pictures for papers and slides."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from explore.reporting import style
from explore.reporting.over_time import MOST_CURVES, other_trials
from explore.reporting.printed import INK, add_legend, new_picture, plain, save
from explore.search.trial import Trial, front


def write_progress(curve: pd.DataFrame, members: Sequence[int], folder: Path, title: str) -> None:
    """Draw what `progress` returns, over epochs; trials of the front are marked. Nothing before there is any."""
    begun = curve[curve["hypervolume"] > 0]
    if begun.empty:
        return
    best = begun[begun["trial"].isin(members)]
    figure, axes = new_picture(f"{title}: hypervolume of the front")
    axes.step(begun["epochs"], begun["hypervolume"], where="post", color=style.COLOURS[0], linewidth=1.5)
    axes.plot(best["epochs"], best["hypervolume"], "o", color=style.COLOURS[0], markersize=5)
    axes.set_xlim(left=0)
    axes.set_xlabel("epochs trained", color=INK, fontsize=10)
    axes.set_ylabel("hypervolume", color=INK, fontsize=10)
    plain(axes, text_size=9)
    line = Line2D([], [], color=style.COLOURS[0], marker="o", linestyle="none", markersize=5)
    line.set_label("of the front")
    add_legend(axes, [line])
    save(figure, folder, "progress")


def write_curves(trials: Sequence[Trial], folder: Path, title: str) -> None:
    """Draw the learning curves of trials that were trained, the front's in colour; nothing when none was."""
    trained = [trial for trial in trials if trial.evaluation.curve]
    if not trained:
        return
    members = front(trained)
    best = {trial.number for trial in members}
    names = {trial.number: str(trial.proposal.values.get("token_mixing", "")) for trial in trials}
    colours = style.colours(names.values())
    figure, axes = new_picture(f"{title}: learning curves")
    others = [trial for trial in trained if trial.number not in best]
    drawn = style.spread(others, MOST_CURVES)
    axes.add_collection(LineCollection([_points(one) for one in drawn], colors=style.GREY, linewidths=0.5, alpha=0.3))
    if drawn:  # of one epoch there is no line
        ends = zip(*(_points(one)[-1] for one in drawn), strict=True)
        axes.plot(*ends, "o", color=style.GREY, markersize=3, alpha=0.8, markeredgewidth=0)
    for trial in members:
        x, y = zip(*_points(trial), strict=True)
        axes.plot(x, y, color=colours[names[trial.number]], linewidth=1.4, marker="o", markersize=2.5)
    axes.autoscale_view()
    axes.set_xlabel("epoch", color=INK, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.set_ylabel("validation accuracy / %", color=INK, fontsize=10)
    plain(axes, text_size=9)
    shown = sorted({names[trial.number] for trial in members})
    entries = [Line2D([], [], color=colours[name], label=name or "front") for name in shown]
    entries += [Line2D([], [], color=style.GREY, label=other_trials(len(drawn), len(others)))] if others else []
    add_legend(axes, entries)
    save(figure, folder, "curves")


def _points(trial: Trial) -> list[tuple[float, float]]:
    return [(epoch.epoch, 100 * epoch.val_accuracy) for epoch in trial.evaluation.curve]
