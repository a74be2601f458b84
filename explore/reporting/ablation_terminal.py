"""The arms of an ablation for the end of a command in a terminal."""

from collections.abc import Sequence

import pandas as pd
from rich.markup import escape
from rich.table import Table

from explore.ablation.design import Design
from explore.ablation.runs import run_rows
from explore.counted import counted
from explore.reporting import style
from explore.reporting.ablation_style import points, probability
from explore.reporting.ablation_tables import arm_rows
from explore.search.trial import Trial


def arms_so_far(design: Design, trials: Sequence[Trial]) -> Table:
    """The arms while an ablation goes on: means and intervals, and no verdict."""
    scores = design.scores(trials, design.looks[-1])
    runs = run_rows(design, trials)
    if runs.empty:
        return Table(box=None)
    whole = len(scores.accuracies)
    title = f"After {counted(whole, 'whole seed')}"
    return arms_table(arm_rows(design.options, scores, None, runs), title=title)


def arms_table(rows: pd.DataFrame, title: str) -> Table:
    """Return the arms as a table that rich prints; `rows` are those of `arm_rows`."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("arm", overflow="fold")
    for name in ("val", "seeds", "difference", "p", "img/s", "params", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        half = row["high"] - row["val_accuracy"]
        told = "" if pd.isna(row["different"]) or not row["different"] else "bold"
        table.add_row(
            escape(row["arm"]),
            "" if pd.isna(half) else f"{100 * row['val_accuracy']:.2f} ± {100 * half:.2f} %",
            str(row["seeds"]),
            "" if pd.isna(row["difference"]) else points(row["difference"]),
            "" if pd.isna(row["p_holm"]) else probability(row["p_holm"]),
            "" if pd.isna(row["throughput"]) else style.speed(row["throughput"]),
            "" if pd.isna(row["params"]) else f"{row['params']:,}",
            "" if pd.isna(row["macs"]) else f"{row['macs'] / 1e6:,.2f} M",
            style=told,
        )
    return table
