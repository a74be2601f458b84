"""What all interactive pictures are drawn on: axes, fonts and legends that fit light and dark pages."""

from functools import partial
from html import escape as escape_html
from typing import Any

import plotly.graph_objects as go

from explore.reporting import style
from explore.search.trial import Trial

ACCURACY = "validation accuracy / %"
WIDE = "wide"  # name of annotations that a phone has no room for
_COUNTED = 10  # epochs that have a tick each
# Plotly's text has a few tags and no entity for quotes.
escape = partial(escape_html, quote=False)
_AXIS = {
    "gridcolor": "rgba(128,138,150,0.22)",
    "linecolor": "rgba(128,138,150,0.6)",
    "showline": True,
    "ticks": "outside",
    "tickcolor": "rgba(128,138,150,0.6)",
    "zeroline": False,
    "title": {"standoff": 12},
}
_TEMPLATE = go.layout.Template(
    layout={
        # Transparent, and grey where colour must be fixed: the page behind decides between light and dark.
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": style.GREY},
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
        "legend": {"orientation": "h", "y": -0.18, "yanchor": "top", "x": 0},
        "hoverlabel": {"align": "left"},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)


def new_figure(height: int) -> go.Figure:
    """An empty figure of so many CSS pixels."""
    return go.Figure(layout={"template": _TEMPLATE, "height": height})


def epoch_axis(most: int) -> dict[str, Any]:
    """The axis of so many epochs: with few of them there would be ticks between two."""
    return {"title_text": "epoch"} | ({"dtick": 1} if most <= _COUNTED else {})


def variant(trial: Trial, key: str) -> str:
    """Return the variant of a trial, escaped; empty where it is no dimension of the search."""
    return escape(str(trial.proposal.values.get(key, "")))


def add_legend_entry(figure: go.Figure, name: str, *, color: str, symbol: str = "circle") -> None:
    """Say in the legend what a colour or a shape means; a click there hides all traces of the same `legendgroup`."""
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={"color": color, "symbol": symbol, "size": 10},
        name=name,
        legendgroup=name,
    )
