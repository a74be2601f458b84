"""The report of a study: one HTML page that needs nothing else, pictures of it and two tables."""

import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from explore.counted import counted
from explore.evaluation import COMPLETE, DIVERGED, FAILED, REFUSED
from explore.reporting import over_time, pictures, style
from explore.reporting.contributions import contributions_section
from explore.reporting.importance import LEAST_TRIALS, importances
from explore.reporting.printed import write_front, write_importance
from explore.reporting.printed_over_time import write_curves, write_progress
from explore.reporting.progress import front_hypervolume, progress
from explore.reporting.sections import Column, Page, Picture, Section, Table, Tile, Write
from explore.reporting.tables import dimensions, front_rows, trial_rows, write_tables
from explore.search.predictability import speed_errors
from explore.search.rivals import results, tested
from explore.search.savings import duration, in_words, savings
from explore.search.study import Study
from explore.search.trial import Trial, front

Shares = Mapping[str, Mapping[str, float]]
_PAGE = "report.html"
_FEW = 10  # trials that a sentence can name
_NEAR = 0.01  # accuracy that one may give up for speed, as a fraction


def write_search(study: Study, folder: Path) -> Path:
    """Write `report.html`, its pictures as PNG and SVG, `front.csv` and `trials.csv`; return the page's path.

    Each file is written whole or not at all. Reads the study alone. Of its notes it knows `test_accuracy` (trial number
    → fraction), `retrained` (trainings with other seeds), `data`, `command`, `commit`, `speeds` (what a comparison of
    the speeds near the front found), `not_compared` (why there was none) and `references`: published networks on the
    same device, each with name, throughput in images/s, accuracy as a fraction or None, note, and mostly macs and
    params.
    """
    trials, notes = results(study), study.notes
    tests = tested(study)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".report-") as name:
        unfinished = Path(name)
        write_tables(trials, tests, unfinished)
        curve, shares = progress(trials, study.stretches()), importances(trials)
        _write_pictures(trials, tests, curve, shares, unfinished, _title(study.name, notes))
        page = _page(study.name, trials, curve, shares, tests, notes)
        (unfinished / _PAGE).write_text(page.html(), encoding="utf-8")
        for path in unfinished.iterdir():
            os.replace(path, folder / path.name)
    return folder / _PAGE


def _write_pictures(
    trials: Sequence[Trial],
    tests: Mapping[int, float],
    curve: pd.DataFrame,
    shares: Shares,
    folder: Path,
    title: str,
) -> None:
    write_front(trials, tests, folder, title)
    write_progress(curve, [trial.number for trial in front(trials)], folder, title)
    write_curves(trials, folder, title)
    write_importance(shares, folder, title)


def _page(
    name: str,
    trials: Sequence[Trial],
    curve: pd.DataFrame,
    shares: Shares,
    tests: Mapping[int, float],
    notes: Mapping[str, Any],
) -> Page:
    complete = [trial for trial in trials if trial.status == COMPLETE]
    statuses = Counter(map(style.state, trials))
    each = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common())
    counts = counted(len(trials), "trial") + (f": {each}" if each else "")
    again = notes.get("report") or shlex.join(["python", "-m", "explore.report", f"study={name}"])
    return Page(
        title=_title(name, notes),
        subtitle=f"{counts}. {_when(trials)}",
        tiles=_tiles(complete, tests),
        words=[] if complete else ["No trial is complete yet, so there is no front to show."],
        facts=dict(_facts(trials, notes)),
        warnings=list(_warnings(complete, notes)),
        commands=[*([notes["command"]] if "command" in notes else []), again],
        sections=list(_sections(trials, complete, curve, shares, tests, notes)),
    )


def _facts(trials: Sequence[Trial], notes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if data := _data(notes.get("data", {})):
        yield "Images", data
    if protocols := style.protocols(trial for trial in trials if trial.status == COMPLETE):
        yield "Throughput", "; ".join(protocols)
    if errors := speed_errors(trials):
        yield (
            "Predicted speed",
            f"A latency model of the {errors.networks} architectures measured here is off by "
            f"{style.percent(errors.median)} at the median and orders them with a rank correlation of "
            f"{errors.rank_correlation:.3f}, cross-validated. Nothing on this page is predicted.",
        )
    if saved := savings(trials):
        yield "Early stopping", in_words(saved)
    if notes.get("ended"):
        yield "Ended", notes["ended"]
    if commit := notes.get("commit"):
        yield "Commit", commit


def _warnings(complete: Sequence[Trial], notes: Mapping[str, Any]) -> Iterator[str]:
    if reason := notes.get("not_compared"):
        yield f"The speeds of the front could not be measured together: {reason}. What differs little may be equal."
    if (ways := len(style.protocols(complete))) > 1:
        yield f"Throughput was measured in {ways} ways. Compare trials only within one of them."
    speeds = [cost.throughput for cost in (trial.evaluation.cost for trial in complete) if cost and cost.throughput]
    if unsettled := [trial.number for trial in complete if trial.settled is False]:
        names = f" ({', '.join(map(str, unsettled))})" if len(unsettled) <= _FEW else ""
        yield (
            f"The speed of {len(unsettled)} of these trials{names} did not settle within its time: its interval is "
            "wider than was asked for."
        )
    if strangers := sorted({name for speed in speeds for name in speed.strangers}):
        yield f"Others used the GPU while speed was measured: {', '.join(strangers)}."


def _sections(
    trials: Sequence[Trial],
    complete: Sequence[Trial],
    curve: pd.DataFrame,
    shares: Shares,
    tests: Mapping[int, float],
    notes: Mapping[str, Any],
) -> Iterator[Section]:
    references = notes.get("references", [])
    if figure := pictures.front_figure(trials, tests, references):
        words = "Validation accuracy over throughput of all complete trials, with the front"
        yield Section(
            key="front",
            title="Accuracy–throughput front",
            words=" ".join([*_of_the_front(notes), *_of_the_seeds(trials)]),
            picture=_picture("front", figure, words),
            table=_front_table(complete, tests),
        )
    if references:
        yield Section(
            key="references",
            title="Published networks",
            words="On this device, by the same protocol, with inputs of the size of these images.",
            table=_references_table(references),
        )
    if figure := over_time.progress_figure(curve, [trial.number for trial in front(trials)]):
        yield Section(
            key="progress",
            title="Progress",
            words="The area under the front, over error rates below 1 and speeds above the slowest complete trial, "
            "with speed on a natural log scale. Over what had been spent on it: by all workers together, and on those "
            "that were stopped, too. Where a member of the front was complete, it has its number. While it grows, "
            "more trials help.",
            picture=_picture("progress", figure, "Hypervolume of the front over epochs of training or seconds of work"),
        )
    if figure := over_time.curves_figure(trials):
        words = "Validation accuracy over epochs of every trained trial"
        picture = _picture("curves", figure, words)
        yield Section(key="curves", title="Learning curves", words="In colour: members of the front.", picture=picture)
    if section := contributions_section(complete):
        yield section
    if trials:
        yield _importance(shares, len(complete))
        yield Section(
            key="trials",
            title="All trials",
            words="Click on a heading to sort. trials.csv has them as well.",
            table=_table(trial_rows(trials, tests), dimensions(trials), searched=True),
        )
    if unsuccessful := [trial for trial in trials if trial.status in (REFUSED, DIVERGED, FAILED)]:
        yield Section(key="unsuccessful", title="Trials without a result", table=_reasons_table(unsuccessful))


def _picture(name: str, figure: go.Figure, words: str) -> Picture:
    return Picture(figure=figure, words=words, files=[f"{name}.png", f"{name}.svg"])


def _of_the_front(notes: Mapping[str, Any]) -> Iterator[str]:
    yield "Members of the front are large and numbered: no other trial is both as accurate and as fast."
    yield "Accuracy is that after the last epoch. A click on a point copies the command that trains it again."
    if "test_accuracy" in notes:
        yield "Test accuracy was measured once, for the front alone."
    if "speeds" in notes:
        yield (
            "Their speeds and those of their rivals were measured again side by side; where the comparison cannot tell "
            "two apart, as it never can after a few turns only, the table says so."
        )


def _of_the_seeds(trials: Sequence[Trial]) -> Iterator[str]:
    if again := [one for trial in trials for one in trial.retrained]:
        took, epochs = duration(sum(one.seconds for one in again)), sum(one.epochs for one in again)
        yield (
            f"Members were trained again with other seeds, {counted(len(again), 'training')} of "
            f"{counted(epochs, 'epoch')} and {took} in all, which count nowhere else. Hollow circles "
            "are their means with 95 % intervals by Student's t; the training of the search, which was picked for "
            "going well, is not in them. Members are as accurate as each other where the differences of trainings "
            "with equal seeds cannot tell them apart."
        )


def _importance(shares: Shares, complete: int) -> Section:
    title = "What mattered"
    if figure := pictures.importance_figure(shares):
        return Section(
            key="importance",
            title=title,
            words="Share of each dimension in being among the best quarter of trials, by PED-ANOVA. Shares of one "
            "objective add up to 100 %; they say how much, not in which direction. "
            "A search draws few candidates at random, so that what goes along with what mattered has a share as well.",
            picture=_picture(
                "importance", figure, "Importance of each dimension of the search for accuracy and for throughput"
            ),
        )
    there = f"there {'are' if complete != 1 else 'is'} {complete}"
    words = f"Importances need {LEAST_TRIALS} complete trials of a searched space; {there}."
    return Section(key="importance", title=title, words=words)


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
        Tile(name="Front", number=f"{len(members)} of {len(complete):,}", note="complete trials are non-dominated"),
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
    "as_fast_as": ("speed not told apart from", str),
    "seeds": ("seeds", str),
    "val_accuracy_mean": ("mean val.", style.percent),
    "val_accuracy_ci95": ("±", style.percent),
    "test_accuracy_mean": ("mean test", style.percent),
    "test_accuracy_ci95": ("±", style.percent),
    "as_accurate_as": ("as accurate as", str),
    "origin": ("from", str),
    "latency_ms": ("latency", lambda ms: f"{ms:.3g} ms"),
    "macs": ("MACs", style.short),
    "params": ("parameters", style.short),
    "memory_bytes": ("memory", lambda size: style.short(size, "B")),
    "epochs": ("epochs", str),
    "seconds": ("time", lambda seconds: f"{seconds:,.0f} s"),
}


def _table(rows: pd.DataFrame, keys: Sequence[str], *, searched: bool = False) -> Table:
    """Leave out what no trial has; what cannot be told apart comes first, the sampled dimensions last."""
    columns = {name: read for name, read in _READABLE.items() if name in rows.columns and rows[name].notna().any()}
    columns |= {key: (key, style.value) for key in keys if key in rows.columns}
    return Table(
        columns=[Column.of(heading, list(rows[name]), write) for name, (heading, write) in columns.items()],
        commands=[str(command) for command in rows["command"]],
        searched=searched,
    )


def _references_table(references: Sequence[Mapping[str, Any]]) -> Table:
    def of(key: str) -> list[Any]:
        return [reference.get(key) for reference in references]

    columns = [
        Column.of("network", of("name")),
        Column.of("images/s", of("throughput"), style.speed),
        Column.of("MACs", of("macs"), style.short),
        Column.of("parameters", of("params"), style.short),
        Column.of("note", of("note"), wide=True),
    ]
    return Table(columns=[column for column in columns if column.known])


def _reasons_table(trials: Sequence[Trial]) -> Table:
    return Table(
        columns=[
            Column.of("trial", [trial.number for trial in trials]),
            Column.of("status", [trial.status for trial in trials]),
            Column.of("reason", [trial.evaluation.reason for trial in trials], wide=True),
        ],
        commands=[trial.command for trial in trials],
    )
