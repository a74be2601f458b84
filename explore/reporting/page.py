"""The report of a study: one HTML page that needs nothing else, a picture of the front and two tables."""

import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from explore.evaluation import COMPLETE, DIVERGED, FAILED, REFUSED
from explore.reporting import pictures, style
from explore.reporting.importance import LEAST_TRIALS
from explore.reporting.printed import write_front_png
from explore.reporting.progress import front_hypervolume, progress
from explore.reporting.tables import dimensions, front_rows, trial_rows, write_tables
from explore.search.predictability import speed_errors
from explore.search.rivals import results
from explore.search.savings import in_words, savings
from explore.search.study import Study, Trial, front

Write = Callable[[Any], str]
_PAGE = "report.html"
_MOST_ROWS = 1000  # of a table; browsers are slow with more, and the CSV has them all
_NEAR = 0.01  # accuracy that one may give up for speed, as a fraction


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A headline number: what it is, the number, and where it comes from."""

    name: str
    number: str
    unit: str = ""
    note: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table: what people read, and the number that it is sorted by."""

    text: str
    number: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of trials; `commands` repeat the trial of each row."""

    names: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    commands: Sequence[str]

    @cached_property
    def numeric(self) -> Sequence[bool]:
        """Which columns hold numbers, for their alignment."""
        return [any(cell.number is not None for cell in column) for column in zip(*self.rows, strict=True)]


def write_report(study: Study, folder: Path) -> Path:
    """Write `report.html`, `front.png`, `front.csv` and `trials.csv`, each whole or not at all; return the page's path.

    Reads the study alone. Of its notes it knows `test_accuracy` (trial number → fraction), `data`, `command`, `commit`,
    `speeds` (what a comparison of the speeds near the front found) and `references`: published networks on the same
    device, each with name, throughput in images/s, accuracy as a fraction or None, and note.
    """
    trials, notes = results(study), study.notes
    tests = {int(number): float(accuracy) for number, accuracy in notes.get("test_accuracy", {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".report-") as name:
        unfinished = Path(name)
        write_tables(trials, tests, unfinished)
        write_front_png(trials, tests, unfinished / "front.png", _title(study.name, notes))
        curve = progress(trials, study.stretches())
        (unfinished / _PAGE).write_text(_page(study.name, trials, curve, tests, notes), encoding="utf-8")
        for path in unfinished.iterdir():
            os.replace(path, folder / path.name)
    return folder / _PAGE


def _page(
    name: str, trials: Sequence[Trial], curve: pd.DataFrame, tests: Mapping[int, float], notes: Mapping[str, Any]
) -> str:
    references = notes.get("references", [])
    environment = Environment(
        loader=PackageLoader("explore.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": style.percent, "speed": style.speed}
    complete = [trial for trial in trials if trial.status == COMPLETE]
    speeds = [cost.throughput for cost in (trial.evaluation.cost for trial in complete) if cost and cost.throughput]
    return environment.get_template(
        "page.html.j2"
    ).render(
        again=notes.get("report") or shlex.join(["python", "-m", "explore.report", f"study={name}"]),
        title=_title(name, notes),
        notes=notes,
        data=_data(notes.get("data", {})),
        when=_when(trials),
        statuses=Counter(map(style.state, trials)),
        protocols=style.protocols(complete),
        predictable=speed_errors(trials),
        saved=in_words(saved) if (saved := savings(trials)) else None,
        ended=notes.get("ended"),  # why, where it was before the search was full
        unsettled=sum(speed.settled is False for speed in speeds),
        strangers=sorted({name for speed in speeds for name in speed.strangers}),
        tiles=_tiles(complete, tests),
        front=_front_table(complete, tests),
        references=references,
        trials=_table(trial_rows(_listed(trials), tests), dimensions(trials)) if trials else None,
        most_rows=_MOST_ROWS,
        unsuccessful=[trial for trial in trials if trial.status in (REFUSED, DIVERGED, FAILED)][-_MOST_ROWS:],
        least_trials=LEAST_TRIALS,
        figures={
            key: figure.to_json()
            for key, figure in _figures(trials, curve, tests, references).items()
            if figure is not None
        },
        plotly=get_plotlyjs(),
    )


def _listed(trials: Sequence[Trial]) -> Sequence[Trial]:
    """The trials of the large table: of too many, the front's and the latest."""
    if len(trials) <= _MOST_ROWS:
        return trials
    best = front(trials)
    latest = trials[-max(1, _MOST_ROWS - len(best)) :]
    return sorted({trial.number: trial for trial in (*best, *latest)}.values(), key=lambda trial: trial.number)


def _figures(
    trials: Sequence[Trial],
    curve: pd.DataFrame,
    tests: Mapping[int, float],
    references: Sequence[Mapping[str, Any]],
) -> Mapping[str, go.Figure | None]:
    return {
        "front": pictures.front_figure(trials, tests, references),
        "progress": pictures.progress_figure(curve, [trial.number for trial in front(trials)]),
        "curves": pictures.curves_figure(trials),
        "importance": pictures.importance_figure(trials),
    }


def _title(name: str, notes: Mapping[str, Any]) -> str:
    data = notes.get("data", {}).get("name")
    return f"{name} on {data}" if data else name


def _data(data: Mapping[str, Any]) -> str:
    """What is known of the images: `mnist, image size 28, classes 10`."""
    known = {key: value for key, value in data.items() if value is not None}
    return ", ".join(
        str(value) if key == "name" else f"{key.replace('_', ' ')} {value}" for key, value in known.items()
    )


def _when(trials: Sequence[Trial]) -> str:
    """The time from the first start to the last end, which stays the same however often the page is written."""
    times = [time for trial in trials for time in (trial.started, trial.ended) if time]
    if not times:
        return ""
    first, last = min(times), max(times)
    return (
        f"{_minute(first)} to {last:%H:%M}" if first.date() == last.date() else f"{_minute(first)} to {_minute(last)}"
    )


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _tiles(complete: Sequence[Trial], tests: Mapping[int, float]) -> list[Tile]:
    """The numbers that people look for first; none without a complete trial."""
    members = front(complete)
    if not members:
        return []
    best, fastest = members[-1], members[0]
    near = next(trial for trial in members if (trial.accuracy or 0.0) >= (best.accuracy or 0.0) - _NEAR)
    gain = (near.throughput or 0.0) / (best.throughput or 1.0)
    tested = f"test {style.percent(tests[best.number])}, " if best.number in tests else ""
    return [
        Tile(name="Best accuracy", number=style.percent(best.accuracy or 0.0), note=f"{tested}trial {best.number}"),
        Tile(
            name=f"Fastest within {100 * _NEAR:.0f} point",
            number=style.speed(near.throughput or 0.0),
            unit="img/s",
            note=f"{gain:.1f} × the most accurate, {style.percent(near.accuracy or 0.0)}, trial {near.number}",
        ),
        Tile(
            name="Fastest",
            number=style.speed(fastest.throughput or 0.0),
            unit="img/s",
            note=f"{style.percent(fastest.accuracy or 0.0)}, trial {fastest.number}",
        ),
        Tile(name="Front", number=f"{len(members)} of {len(complete)}", note="complete trials are non-dominated"),
        Tile(
            name="Hypervolume",
            number=f"{front_hypervolume(complete):.3f}",
            note="1 = full accuracy over a factor e of speed",
        ),
    ]


def _front_table(complete: Sequence[Trial], tests: Mapping[int, float]) -> Table:
    rows = front_rows(complete, tests)
    return _table(rows.drop(columns=["status", "epochs", "seconds", "memory_bytes"]), dimensions(complete))


# The columns of the tables that people read, and how their numbers are written; the CSV has them all.
_READABLE: Mapping[str, tuple[str, Write]] = {
    "trial": ("trial", str),
    "status": ("status", str),
    "val_accuracy": ("val. accuracy", style.percent),
    "test_accuracy": ("test accuracy", style.percent),
    "throughput": ("images/s", style.speed),
    "as_fast_as": ("as fast as", str),
    "origin": ("from", str),
    "latency_ms": ("latency", lambda ms: f"{ms:.3g} ms"),
    "macs": ("MACs", style.short),
    "params": ("parameters", style.short),
    "memory_bytes": ("memory", lambda size: style.short(size, "B")),
    "epochs": ("epochs", str),
    "seconds": ("time", lambda seconds: f"{seconds:,.0f} s"),
}


def _table(rows: pd.DataFrame, keys: Sequence[str]) -> Table:
    """Leave out what no trial has; the sampled dimensions follow the measured columns."""
    columns = {name: _READABLE[name] for name in rows.columns if name in _READABLE and rows[name].notna().any()}
    columns |= {key: (key, style.value) for key in keys if key in rows.columns}
    cells = [[_cell(value, write) for value in rows[name]] for name, (_, write) in columns.items()]
    return Table(
        names=[heading for heading, _ in columns.values()],
        rows=[list(row) for row in zip(*cells, strict=True)],
        commands=[str(command) for command in rows["command"]],
    )


def _cell(value: Any, write: Write) -> Cell:
    if pd.isna(value):
        return Cell(text="–")
    number = isinstance(value, Real) and not isinstance(value, bool)
    return Cell(text=write(value), number=float(value) if number else None)
