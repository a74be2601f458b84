"""Rows of a benchmark's result: a figure or the median of several, and whether it keeps to a bar."""

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def row(
    name: str,
    value: float | Sequence[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """Name, value, unit, bar and whether it holds; of several values the median, with the quartiles."""
    values = sorted(value) if isinstance(value, Sequence) else [value]
    middle = statistics.median(values)
    bar = at_most if at_least is None else at_least
    holds = None if bar is None else middle <= bar if at_least is None else middle >= bar
    found: Row = {"name": name, "value": middle, "unit": unit, "bar": bar, "holds": holds}
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        found |= {"low": low, "high": high}
    return found


def shown(one: Row) -> str:
    """A row as a line."""
    spread = f" [{one['low']:.4g} to {one['high']:.4g}]" if "low" in one else ""
    bar = "" if one["bar"] is None else f"   bar {one['bar']}: {'holds' if one['holds'] else 'MISSED'}"
    return f"{one['name']:64} {one['value']:10.4g} {one['unit']}{spread}{bar}"
