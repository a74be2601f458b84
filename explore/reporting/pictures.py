"""The study as interactive pictures: Plotly figures that fit light and dark pages."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import plotly.graph_objects as go

from explore.counted import counted
from explore.evaluation import COMPLETE
from explore.reporting import style
from explore.reporting.canvas import ACCURACY, WIDE, add_legend_entry, escape, new_figure, variant
from explore.search.seeds import over_seeds
from explore.search.trial import Trial, front

# Plotly's symbols, solid and far apart in shape.
_MOST_POINTS = 1000  # besides the front's; a page with more is slow, and nobody sees more
_STEPS = 4  # heights at which names are written, so that those of neighbours do not meet
_FAR = 4.0  # a reference network beyond this factor would squeeze the trials; the table has it


def front_figure(
    trials: Sequence[Trial], tests: Mapping[int, float], references: Sequence[Mapping[str, Any]]
) -> go.Figure | None:
    """Draw every complete trial by throughput and validation accuracy, and the front as the edge of what is reached.

    `tests` maps trial numbers to test accuracy; `references` have name, throughput and note.
    None without a complete trial.
    """
    complete = [trial for trial in trials if trial.status == COMPLETE]
    if not complete:
        return None
    members = front(complete)
    figure = new_figure(560)
    colours = style.colours(variant(trial, "token_mixing") for trial in trials)
    _add_edge(figure, members)
    best = {trial.number for trial in members}
    others = style.spread([trial for trial in complete if trial.number not in best], _MOST_POINTS)
    _add_points(figure, [*others, *members], best, tests, colours)
    measured = [trial for trial in members if trial.number in tests]
    if measured:
        figure.add_scatter(
            x=[trial.throughput for trial in measured],
            y=[100 * tests[trial.number] for trial in measured],
            mode="markers",
            marker={"symbol": "line-ew-open", "size": 11, "color": style.GREY, "line": {"width": 2}},
            text=[f"#{trial.number} on the test images: {style.percent(tests[trial.number])}" for trial in measured],
            customdata=[trial.number for trial in measured],
            hoverinfo="text",
            name="test accuracy",
            legendrank=1002,
        )
    _add_means(figure, members)
    for index, reference in enumerate(references):
        _add_reference(figure, reference, 0.2 * (index % _STEPS))
    _frame(figure, complete, tests, references, hidden=len(complete) - len(members) - len(others))
    _label(figure, members)
    return figure


def importance_figure(shares: Mapping[str, Mapping[str, float]]) -> go.Figure | None:
    """Draw how much each dimension decides each objective, as `importances` returns it; None without any."""
    weights: dict[str, float] = {}
    for by_dimension in shares.values():
        for key, share in by_dimension.items():
            weights[key] = weights.get(key, 0.0) + share
    if not weights:
        return None
    keys = sorted(weights, key=lambda key: weights[key])
    figure = new_figure(130 + 38 * len(keys))
    # Plotly stacks the groups of horizontal bars upwards; the other way round the legend has the order of the bars.
    for (objective, by_dimension), color in zip(
        reversed(list(shares.items())), (style.COLOURS[1], style.COLOURS[0]), strict=True
    ):
        figure.add_bar(
            y=[escape(key) for key in keys],
            x=[100 * by_dimension.get(key, 0.0) for key in keys],
            orientation="h",
            marker={"color": color},
            hovertemplate="%{x:.0f} %<extra></extra>",
            name=objective,
        )
    figure.update_layout(
        barmode="group", bargap=0.3, legend={"traceorder": "reversed", "y": -60 / (60 + 38 * len(keys))}
    )
    return figure.update_xaxes(title_text="share of the effect / %", rangemode="tozero").update_yaxes(automargin=True)


def _add_points(
    figure: go.Figure, complete: Sequence[Trial], best: set[int], tests: Mapping[int, float], colours: Mapping[str, str]
) -> None:
    channels = sorted({variant(trial, "channel_mixing") for trial in complete})
    symbols = {name: style.SYMBOLS[index % len(style.SYMBOLS)] for index, name in enumerate(channels)}
    for name, color in colours.items():
        group = [trial for trial in complete if variant(trial, "token_mixing") == name]
        if not group:
            continue
        figure.add_scatter(
            x=[trial.throughput for trial in group],
            y=[100 * (trial.accuracy or 0.0) for trial in group],
            mode="markers",
            marker={
                "color": color,
                "symbol": [symbols[variant(trial, "channel_mixing")] for trial in group],
                "size": [12 if trial.number in best else 8 for trial in group],
                "opacity": [1.0 if trial.number in best else 0.5 for trial in group],
                "line": {"width": 0},
            },
            hovertext=[_hover(trial, tests) for trial in group],
            customdata=[trial.number for trial in group],
            hoverinfo="text",
            legendgroup=name,
            showlegend=False,
        )
        if name:
            add_legend_entry(figure, name, color=color)
    for name, symbol in symbols.items():
        if len(symbols) > 1:
            add_legend_entry(figure, f"channel mixing: {name}", color=style.GREY, symbol=symbol)


def _add_edge(figure: go.Figure, members: Sequence[Trial]) -> None:
    figure.add_scatter(
        x=[trial.throughput for trial in reversed(members)],
        y=[100 * (trial.accuracy or 0.0) for trial in reversed(members)],
        mode="lines",
        line={"shape": "vh", "color": style.GREY, "width": 1.5},
        hoverinfo="skip",
        name="front",
        legendrank=1001,
    )


def _add_means(figure: go.Figure, members: Sequence[Trial]) -> None:
    """Means over seeds, with their intervals."""
    again = [(trial, mean) for trial in members if (mean := over_seeds(trial))]
    if not again:
        return
    figure.add_scatter(
        x=[trial.throughput for trial, _ in again],
        y=[100 * mean.mean for _, mean in again],
        error_y={"array": [100 * mean.half for _, mean in again], "color": style.GREY, "thickness": 1.5, "width": 4},
        mode="markers",
        marker={"symbol": "circle-open", "size": 8, "color": style.GREY, "line": {"width": 2}},
        text=[
            f"#{trial.number} with {counted(len(trial.retrained), 'other seed')}: "
            f"{style.plus_minus(mean.mean, mean.half)}"
            for trial, mean in again
        ],
        customdata=[trial.number for trial, _ in again],
        hoverinfo="text",
        name="mean of other seeds, 95 % interval",
        legendrank=1003,
    )


def _add_reference(figure: go.Figure, reference: Mapping[str, Any], height: float) -> None:
    """A line, for it is not trained here, that has its name at a `height` from 0 to 1."""
    name, speed = escape(str(reference["name"])), float(reference["throughput"])
    figure.add_vline(x=speed, line={"dash": "dot", "width": 1, "color": style.GREY})
    figure.add_annotation(
        x=log10(speed),
        y=height,
        yref="paper",
        text=name,
        hovertext=f"<b>{name}</b><br>{style.speed(speed)} images/s<br>{escape(str(reference.get('note', '')))}",
        showarrow=False,
        textangle=-90,
        xanchor="right",
        yanchor="bottom",
    )


def _frame(
    figure: go.Figure,
    complete: Sequence[Trial],
    tests: Mapping[int, float],
    references: Sequence[Mapping[str, Any]],
    hidden: int,
) -> None:
    """Set both axes, and say how many trials lie outside, and how many are `hidden` because there are too many."""
    low, high = style.accuracy_range(complete, list(tests.values()))
    speeds = [trial.throughput or 0.0 for trial in complete]
    near = [r["throughput"] for r in references if min(speeds) / _FAR < r["throughput"] < max(speeds) * _FAR]
    left, right = style.speed_range([*speeds, *near])
    ticks = style.log_ticks(left, right)
    figure.update_xaxes(
        title_text="throughput / images/s",
        type="log",
        range=[log10(left), log10(right)],
        tickvals=ticks,
        ticktext=[style.tick(tick) for tick in ticks],
    )
    figure.update_yaxes(title_text=ACCURACY, range=[low, high])
    outside = sum(100 * (trial.accuracy or 0.0) < low for trial in complete)
    words = [f"{outside} below {low:.0f} % not shown; double-click shows all"] if outside else []
    words += [f"{hidden:,} others, evenly chosen, not drawn"] if hidden else []
    if words:
        figure.add_annotation(
            x=1,
            y=0,
            xref="paper",
            yref="paper",
            showarrow=False,
            xanchor="right",
            yanchor="bottom",
            opacity=0.8,
            text="<br>".join(words),
        )


def _label(figure: go.Figure, members: Sequence[Trial]) -> None:
    """Write the numbers of the front's members beside them, where there is room."""
    (left, right), (low, high) = figure.layout.xaxis.range, figure.layout.yaxis.range
    places = [
        ((log10(trial.throughput or 1.0) - left) / (right - left), (100 * (trial.accuracy or 0.0) - low) / (high - low))
        for trial in members
    ]
    on_a_phone = set(style.spaced(places, narrow=True))
    for index in style.spaced(places):
        trial = members[index]
        figure.add_annotation(
            name="" if index in on_a_phone else WIDE,
            x=log10(trial.throughput or 1.0),
            y=100 * (trial.accuracy or 0.0),
            text=f"#{trial.number}",
            showarrow=False,
            xanchor="left",
            yanchor="bottom",
            xshift=5,
            yshift=3,
        )


def _hover(trial: Trial, tests: Mapping[int, float]) -> str:
    cost = trial.evaluation.cost
    assert cost
    assert cost.throughput
    assert trial.accuracy is not None
    timed = cost.throughput
    tested = f", test {style.percent(tests[trial.number])}" if trial.number in tests else ""
    lines = [
        f"<b>#{trial.number}</b>",
        f"validation {style.percent(trial.accuracy)}{tested}",
        f"{style.speed(timed.images_per_second)} images/s ({style.speed(timed.low)}–{style.speed(timed.high)})",
        f"{style.short(cost.macs)} MACs, {style.short(cost.params)} parameters",
        "",
        *(escape(f"{key}={style.value(sampled)}") for key, sampled in sorted(trial.proposal.values.items())),
    ]
    return "<br>".join(lines)
