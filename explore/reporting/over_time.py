"""What a search did over time, as interactive pictures: the worth of its front, and learning curves."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from explore.counted import counted
from explore.reporting import style
from explore.reporting.canvas import ACCURACY, add_legend_entry, epoch_axis, new_figure, variant
from explore.search.savings import duration, time_unit
from explore.search.trial import Trial, front

MOST_CURVES = 300  # besides the front's; a page with more is slow, and nobody sees more
_PROGRESS = ("trial", "epochs", "seconds", "hypervolume")  # columns of the table behind the anytime curve


def progress_figure(curve: pd.DataFrame, members: Sequence[int]) -> go.Figure | None:
    """Draw the hypervolume of the front over what had been spent on it; None before there is any.

    `curve` is what `progress` returns, `members` are the numbers of the front's trials, which are marked. Two buttons
    choose between epochs and time.
    """
    # From its first value, which is most of it: with zero on the axis nothing of what follows would be seen.
    begun = curve[curve["hypervolume"] > 0]
    if begun.empty:
        return None
    # Where it grows, and its end: thousands of trials between change nothing.
    grows = begun["hypervolume"].diff().fillna(1) > 0
    drawn, best = begun[grows | (begun.index == begun.index[-1])], begun[begun["trial"].isin(members)]
    unit, factor = time_unit(curve["seconds"].max())
    titles = {"epochs": "epochs trained", "time": f"work of all workers / {unit}"}
    figure, buttons = new_figure(360), []
    for name, x in {"epochs": curve["epochs"], "time": curve["seconds"] / factor}.items():
        _add_progress(figure, drawn.assign(x=x), best.assign(x=x), shown=name == "epochs")
        visible = [other == name for other in titles for _ in range(2)]
        change = [{"visible": visible}, {"xaxis.title.text": titles[name]}]
        buttons.append({"label": name, "method": "update", "args": change})
    place = {"x": 1, "xanchor": "right", "y": 0.03, "yanchor": "bottom", "bgcolor": "rgba(128,138,150,0.12)"}
    switch = {"type": "buttons", "direction": "right", "buttons": buttons, "showactive": False} | place
    figure.update_layout(updatemenus=[switch], showlegend=False)
    figure.update_xaxes(title_text=titles["epochs"], rangemode="tozero")
    return figure.update_yaxes(title_text="hypervolume")


def curves_figure(trials: Sequence[Trial]) -> go.Figure | None:
    """Draw the learning curves of trials that were trained, the front's in colour; None when none was."""
    trained = [trial for trial in trials if trial.evaluation.curve]
    if not trained:
        return None
    members = front(trained)
    best = {trial.number for trial in members}
    figure = new_figure(420)
    _add_other_curves(figure, [trial for trial in trained if trial.number not in best])
    colours = style.colours(variant(trial, "token_mixing") for trial in trials)
    for trial in members:
        curve = trial.evaluation.curve
        accuracy = [100 * epoch.val_accuracy for epoch in curve]
        figure.add_scatter(
            x=[epoch.epoch for epoch in curve],
            y=accuracy,
            mode="lines+markers",
            line={"color": colours[variant(trial, "token_mixing")], "width": 2},
            marker={"size": 4},
            text=[f"#{trial.number}, epoch {epoch.epoch}: {style.percent(epoch.val_accuracy)}" for epoch in curve],
            hoverinfo="text",
            customdata=[trial.number for _ in curve],
            showlegend=False,
        )
    for name in sorted({variant(trial, "token_mixing") for trial in members}):
        add_legend_entry(figure, name or "front", color=colours[name])
    return figure.update_xaxes(epoch_axis(max(trial.evaluation.epochs for trial in trained))).update_yaxes(
        title_text=ACCURACY
    )


def other_trials(drawn: int, count: int) -> str:
    """What the curves of trials off the front are called, of which so many are drawn."""
    return "other trials" if drawn == count else f"{drawn} of {count:,} other trials"


def _add_progress(figure: go.Figure, drawn: pd.DataFrame, best: pd.DataFrame, shown: bool) -> None:
    """The curve, and on it the trials of `best` with their numbers where there is room."""
    low, high = drawn["hypervolume"].iloc[[0, -1]]
    places = zip(
        best["x"] / max(drawn["x"].iloc[-1], 1e-9), (best["hypervolume"] - low) / max(high - low, 1e-9), strict=True
    )
    points = list(places)
    labelled, on_a_phone = style.spaced(points), style.spaced(points, narrow=True)
    figure.add_scatter(
        x=list(drawn["x"]),
        y=list(drawn["hypervolume"]),
        mode="lines",
        line={"shape": "hv", "color": style.COLOURS[0], "width": 2},
        hoverinfo="skip",
        visible=shown,
    )
    figure.add_scatter(
        x=list(best["x"]),
        y=list(best["hypervolume"]),
        mode="markers+text",
        marker={"color": style.COLOURS[0], "size": 8},
        text=[f"#{trial}" if index in labelled else "" for index, trial in enumerate(best["trial"])],
        # The page takes these where it is narrow.
        meta={"narrow": [f"#{trial}" if index in on_a_phone else "" for index, trial in enumerate(best["trial"])]},
        textposition="bottom right",
        hovertext=[
            f"<b>#{trial}</b><br>hypervolume {reached:.3f}<br>after {counted(epochs, 'epoch')}, {duration(seconds)}"
            for trial, epochs, seconds, reached in zip(*(best[name] for name in _PROGRESS), strict=True)
        ],
        hoverinfo="text",
        customdata=list(best["trial"]),
        cliponaxis=False,
        visible=shown,
    )


def _add_other_curves(figure: go.Figure, others: Sequence[Trial]) -> None:
    """One trace for all that are drawn, with gaps, because hundreds of traces would be slow."""
    drawn = style.spread(others, MOST_CURVES)
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    numbers: list[int | None] = []
    for trial in drawn:
        curve = trial.evaluation.curve
        x += [*(epoch.epoch for epoch in curve), None]
        y += [*(100 * epoch.val_accuracy for epoch in curve), None]
        text += [*(f"#{trial.number} ({trial.status})" for _ in curve), ""]
        numbers += [*(trial.number for _ in curve), None]
    if x:
        figure.add_scatter(
            x=x,
            y=y,
            text=text,
            customdata=numbers,
            hoverinfo="text",
            mode="lines",
            line={"color": style.GREY, "width": 1},
            opacity=0.5,
            name=other_trials(len(drawn), len(others)),
        )
