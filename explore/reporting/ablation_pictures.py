"""The pictures of an ablation for its page: Plotly figures whose points say what they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from explore.ablation.records import Difference, Findings, Scores
from explore.reporting import style
from explore.reporting.ablation_style import (
    Mark,
    aside,
    bounds,
    clipped,
    coverage,
    crossings,
    curves,
    level_colours,
    listed,
    marks,
    percent,
    points,
    probability,
    signed,
    verdict,
    word,
)
from explore.reporting.canvas import ACCURACY, add_legend_entry, epoch_axis, escape, new_figure
from explore.reporting.intervals import paired, student

# Plotly's names of the shapes of the printed pictures.
_PANEL, _GAP, _LETTER = 220, 24, 7  # CSS pixels of a panel of curves, of what is between two, and of a letter
_ABOVE = {"yref": "container", "y": 1, "yanchor": "top"}  # where a legend may be as high as it has to


def forest_figure(findings: Findings, margin: float) -> go.Figure | None:
    """Draw every difference with its intervals; `margin` is a fraction. None without any."""
    rows = listed(findings)
    if not rows:
        return None
    figure = new_figure(150 + 26 * len(rows))
    figure.add_vrect(-100 * margin, 100 * margin, fillcolor=style.GREY, opacity=0.15, line_width=0)
    figure.add_vline(0, line={"color": style.GREY, "width": 1})
    by_words: dict[str, list[tuple[int, Difference]]] = {}
    for place, row in enumerate(rows):
        if not isinstance(row, str):
            by_words.setdefault(verdict(row).words, []).append((place, row))
    for words, group in by_words.items():
        _add_differences(figure, words, group, findings)
    labels = ["" if isinstance(row, str) else clipped(row.name, 26) for row in rows]
    for place, row in enumerate(rows):
        if isinstance(row, str):
            heading = {"text": f"<b>{escape(row)}</b>", "x": 0, "xref": "paper", "y": place, "xanchor": "left"}
            figure.add_annotation(**heading, xshift=-_LETTER * max(map(len, labels)), showarrow=False)
    figure.update_xaxes(title_text="difference / points")
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[escape(label) for label in labels],
        range=[len(rows) - 0.4, -0.8],
        automargin=True,
        showgrid=False,
        showline=False,
        ticks="",
        fixedrange=True,
    )
    return figure.update_layout(legend=_ABOVE)


def interaction_figures(scores: Scores, level: float) -> Mapping[str, go.Figure]:
    """Draw, for each two factors, the means over the levels of the first, a line for each level of the second.

    The keys say which two.
    """
    colours, found = level_colours(scores), {}
    for first, second, table in crossings(scores):
        figure, means, halves = new_figure(420), table.mean(), paired(table, level)
        lines = [one for one in scores.factors[second] if one in table.columns.get_level_values(1)]
        for number, line in enumerate(lines):
            cells = [(one, line) for one in scores.factors[first]]
            known = [cell in table.columns for cell in cells]
            figure.add_scatter(
                x=[place + aside(number, len(lines)) for place in range(len(cells))],
                y=[100 * means[cell] if here else None for cell, here in zip(cells, known, strict=True)],
                error_y={
                    "array": [100 * halves[cell] if here else None for cell, here in zip(cells, known, strict=True)],
                    "thickness": 1.5,
                    "width": 4,
                },
                mode="lines+markers",
                marker={"symbol": style.SYMBOLS[number % len(style.SYMBOLS)], "size": 9},
                line={"color": colours[second, line], "width": 2},
                hovertext=[
                    f"<b>{escape(f'{style.value(one)}, {style.value(line)}')}</b><br>"
                    f"{percent(means[one, line])} ± {100 * halves[one, line]:.2f}"
                    if here
                    else ""
                    for (one, _), here in zip(cells, known, strict=True)
                ],
                hoverinfo="text",
                name=escape(clipped(style.value(line), 24)),
            )
        names = [escape(clipped(style.value(one), 24)) for one in scores.factors[first]]
        figure.update_xaxes(title_text=escape(word(first)), tickvals=list(range(len(names))), ticktext=names)
        figure.update_layout(legend={**_ABOVE, "title_text": escape(word(second))}, showlegend=True)
        found[f"{word(first)} × {word(second)}"] = figure.update_yaxes(title_text=ACCURACY)
    return found


def plane_figure(scores: Scores, rows: pd.DataFrame, level: float) -> go.Figure | None:
    """Draw the arms that are compared by throughput and accuracy, with the intervals of both."""
    drawn = rows[rows["arm"].isin(scores.arms) & rows["throughput"].notna() & rows["val_accuracy"].notna()]
    if drawn.empty:
        return None
    figure, given, halves = new_figure(480), marks(scores), paired(scores.accuracies, level)
    for row in drawn.to_dict("records"):
        mark, half = given[row["arm"]], 100 * halves[row["arm"]]
        text = (
            f"<b>{escape(row['arm'])}</b><br>{percent(row['val_accuracy'])} ± {half:.2f}<br>"
            f"{style.speed(row['throughput'])} images/s "
            f"({style.speed(row['throughput_low'])}–{style.speed(row['throughput_high'])})<br>"
            f"{style.short(row['macs'])} MACs, {style.short(row['params'])} parameters"
        )
        figure.add_scatter(
            x=[row["throughput"]],
            y=[100 * row["val_accuracy"]],
            error_x={
                "array": [row["throughput_high"] - row["throughput"]],
                "arrayminus": [row["throughput"] - row["throughput_low"]],
                "thickness": 1.2,
                "width": 0,
            },
            error_y={"array": [half], "thickness": 1.2, "width": 0},
            mode="markers+text",
            text=["reference" if row["arm"] == next(iter(scores.arms)) else ""],
            textposition=_beside(row["throughput"], drawn["throughput"]),
            marker={"symbol": style.SYMBOLS[mark.shape % len(style.SYMBOLS)], "size": 10, "color": mark.colour},
            hovertext=[text],
            hoverinfo="text",
            legendgroup=escape(mark.first),
            showlegend=False,
        )
    _add_marks(figure, scores)
    left, right = style.speed_range([*drawn["throughput_low"], *drawn["throughput_high"]])
    ticks = style.log_ticks(left, right)
    words = [style.tick(tick) for tick in ticks]
    figure.update_xaxes(title_text="throughput / images/s", type="log", tickvals=ticks, ticktext=words)
    figure.update_layout(legend={**_ABOVE, "title_text": escape(word(next(iter(scores.factors))))})
    return figure.update_yaxes(title_text=ACCURACY)


def _beside(throughput: float, all_of_them: "pd.Series[float]") -> str:
    """On which side of a point its name has room."""
    return "top left" if throughput**2 > all_of_them.min() * all_of_them.max() else "top right"


def curves_figure(scores: Scores, runs: pd.DataFrame, level: float) -> go.Figure | None:
    """Draw the mean learning curve of each arm with a band: a panel per shape, a line per colour."""
    tables, given = curves(scores, runs), marks(scores)
    panels = list(dict.fromkeys(given[name].rest for name in tables))
    if not panels:
        return None
    height = 110 + (_PANEL + _GAP) * len(panels)
    figure = new_figure(height).set_subplots(
        rows=len(panels),
        shared_xaxes=True,
        shared_yaxes="all",
        vertical_spacing=_GAP / height,
    )
    for number, panel in enumerate(panels, 1):
        place = {"xref": "x domain", "yref": f"y{number if number > 1 else ''} domain", "x": 1, "y": 0}
        figure.add_annotation(
            **place, text=escape(clipped(panel, 40)), xanchor="right", yanchor="bottom", showarrow=False
        )
    shown = set[str]()
    for name, table in tables.items():
        mark = given[name]
        row = panels.index(mark.rest) + 1
        _add_curve(figure, f"<b>{escape(name)}</b>", table, mark, level, row=row, explained=mark.first not in shown)
        shown.add(mark.first)
    figure.update_yaxes(title_text=ACCURACY, range=bounds(tables, level))
    axis = epoch_axis(max(len(table.columns) for table in tables.values()))
    figure.update_xaxes(axis | {"title_text": ""}).update_xaxes(axis, row=len(panels))
    return figure.update_layout(legend={**_ABOVE, "title_text": escape(word(next(iter(scores.factors))))})


def _whiskers(
    means: Sequence[float], ends: Sequence[tuple[float, float]], colour: str, thickness: int
) -> dict[str, Any]:
    """Plotly's error bars; means in percentage points, ends of intervals as fractions."""
    return {
        "array": [100 * high - mean for mean, (_, high) in zip(means, ends, strict=True)],
        "arrayminus": [mean - 100 * low for mean, (low, _) in zip(means, ends, strict=True)],
        "color": colour,
        "thickness": thickness,
        "width": 0,
    }


def _add_differences(
    figure: go.Figure, words: str, group: Sequence[tuple[int, Difference]], findings: Findings
) -> None:
    found = verdict(group[0][1])
    means = [100 * one.mean for _, one in group]
    shape = "square" if found.negligible else "circle"
    figure.add_scatter(
        x=means,
        y=[place + 0.28 for place, _ in group],
        error_x=_whiskers(means, [(one.bootstrap_low, one.bootstrap_high) for _, one in group], found.colour, 1),
        mode="markers",
        marker={"size": 1, "color": found.colour},
        hoverinfo="skip",
        legendgroup=words,
        showlegend=False,
    )
    figure.add_scatter(
        x=means,
        y=[place for place, _ in group],
        error_x=_whiskers(means, [(one.low, one.high) for _, one in group], found.colour, 3),
        mode="markers",
        marker={
            "symbol": shape if found.told or found.negligible else f"{shape}-open",
            "size": 10,
            "color": found.colour,
            "line": {"width": 0 if found.told or found.negligible else 2},
        },
        hovertext=[_said_of(one, findings) for _, one in group],
        hoverinfo="text",
        legendgroup=words,
        name=words,
    )


def _said_of(one: Difference, findings: Findings) -> str:
    lines = [
        f"<b>{escape(one.name)} against {escape(one.against)}</b>: {verdict(one).words}",
        f"{points(one.mean)} points, {coverage(findings.level)} interval {points(one.low)} to {points(one.high)}",
        f"bootstrap {coverage(findings.bootstrap_level)}: {points(one.bootstrap_low)} to {points(one.bootstrap_high)}",
        f"p {probability(one.p_holm)} after Holm, {probability(one.p)} alone",
        f"standardised {signed(one.effect)}, {one.seeds} seeds",
    ]
    return "<br>".join(lines)


def _add_marks(figure: go.Figure, scores: Scores) -> None:
    """The legend: colours first, then shapes."""
    given = marks(scores).values()
    for name, colour in {one.first: one.colour for one in given}.items():
        add_legend_entry(figure, escape(name), color=colour)
    for name, shape in {one.rest: one.shape for one in given if one.rest}.items():
        add_legend_entry(figure, escape(name), color=style.GREY, symbol=style.SYMBOLS[shape % len(style.SYMBOLS)])


def _add_curve(
    figure: go.Figure, title: str, table: pd.DataFrame, mark: Mark, level: float, *, row: int, explained: bool
) -> None:
    epochs, mean, half = list(table.columns), 100 * table.mean(), (100 * student(table, level)).fillna(0.0)
    shared = {"legendgroup": escape(mark.first), "row": row, "col": 1}
    figure.add_scatter(
        x=[*epochs, *epochs[::-1]],
        y=[*(mean + half), *(mean - half)[::-1]],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=f"rgba({','.join(str(int(mark.colour[place : place + 2], 16)) for place in (1, 3, 5))},0.2)",
        hoverinfo="skip",
        showlegend=False,
        **shared,
    )
    figure.add_scatter(
        x=epochs,
        y=list(mean),
        mode="lines",
        line={"color": mark.colour, "width": 2},
        hovertext=[
            f"{title}<br>epoch {epoch}: {at:.2f} % ± {each:.2f}, {len(table)} seeds"
            for epoch, at, each in zip(epochs, mean, half, strict=True)
        ],
        hoverinfo="text",
        name=escape(mark.first),
        showlegend=explained,
        **shared,
    )
