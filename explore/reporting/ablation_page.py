"""The report of an ablation: one HTML page that needs nothing else, pictures and tables beside it."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from explore.ablation.options import Ablation
from explore.ablation.records import Findings, Scores
from explore.evaluation import COMPLETE
from explore.reporting import ablation_pictures, style
from explore.reporting.ablation_papers import write_papers
from explore.reporting.ablation_printed import write_pictures
from explore.reporting.ablation_style import captions, coverage, percent, points, probability, signed, word
from explore.reporting.ablation_tables import arm_rows, difference_rows, write_tables
from explore.reporting.sections import Column, Page, Picture, Section, Table

_PAGE = "report.html"


def write_ablation(
    folder: Path,
    *,
    name: str,
    options: Ablation,
    scores: Scores,
    findings: Findings | None,
    runs: pd.DataFrame,
    facts: Mapping[str, str],
    commands: Sequence[str],
) -> Path:
    """Write `report.html`, its pictures as PNG and SVG, and all tables; return the page's path.

    Each file is written whole or not at all. `findings` is None before there is anything to analyse; `arm_rows` says
    what `runs` has. `facts` are pairs of a name and a text that people should know, such as images, device and commit;
    `commands` are lines that they can copy.
    """
    rows = arm_rows(options, scores, findings, runs)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".report-") as unfinished:
        inside = Path(unfinished)
        write_tables(options, scores, findings, runs, inside)
        write_papers(options, scores, findings, runs, name, inside)
        write_pictures(scores, findings, rows, runs, options, inside)
        page = Page(
            title=name,
            subtitle=_counts(scores, runs, options, findings),
            words=list(findings.words) if findings else ["No two seeds of all arms are complete yet: nothing is said."],
            facts={**_protocol(options, findings, rows), **facts},
            warnings=list(_warnings(scores, runs)),
            commands=commands,
            sections=list(_sections(options, scores, findings, rows, runs)),
        )
        (inside / _PAGE).write_text(page.html(), encoding="utf-8")
        for path in inside.iterdir():
            os.replace(path, folder / path.name)
    return folder / _PAGE


def _counts(scores: Scores, runs: pd.DataFrame, options: Ablation, findings: Findings | None) -> str:
    crossed = " × ".join(f"{word(key)} ({len(levels)})" for key, levels in scores.factors.items())
    seeds = f"{findings.seeds} of at most {options.max_seeds} seeds compared" if findings else "none compared yet"
    return f"{crossed}: {len(scores.arms)} arms, {seeds}; {(runs['status'] == COMPLETE).sum():,} runs are complete."


def _protocol(options: Ablation, findings: Findings | None, rows: pd.DataFrame) -> dict[str, str]:
    """What was the same for all, and how it is decided what differs."""
    said = {"Matched": "nothing: arms differ in cost as well"}
    if options.match != "none":
        worst = rows["residual"].abs().max()
        what = {"macs": "multiply-adds", "params": "parameters"}.get(options.match, options.match)
        said["Matched"] = f"{what} within {100 * options.tolerance:.3g} % of the first arm's by {word(options.by)}"
        said["Matched"] += "" if pd.isna(worst) else f"; the largest difference is {100 * worst:.2g} %"
    looks = ", ".join(map(str, findings.looks)) if findings else f"{options.seeds} or more"
    said["Seeds"] = (
        f"the same for every arm, compared in pairs; looked at after {looks}, until every difference of levels is told "
        "or negligible"
    )
    said["Error"] = (
        f"told wrongly with a probability of at most {100 * options.error:.3g} % per factor, all looks together"
    )
    if findings:
        said["Error"] += (
            f"; at this look a difference is told where p is below {findings.level:.3g} after Holm's correction for "
            f"all of the same factor, or of all arms, and intervals are of {coverage(findings.level)}"
        )
    said["Negligible"] = f"a difference whose whole interval lies within ±{100 * options.margin:.3g} percentage points"
    return said


def _warnings(scores: Scores, runs: pd.DataFrame) -> Iterator[str]:
    left_out = [name for name in dict.fromkeys(runs["arm"]) if name not in scores.arms]
    if left_out:
        yield f"Not compared, because a run has no result: {', '.join(left_out)}."


def _sections(
    options: Ablation, scores: Scores, findings: Findings | None, rows: pd.DataFrame, runs: pd.DataFrame
) -> Iterator[Section]:
    level = findings.level if findings else options.error
    notes = captions(findings, level, options.margin)
    if findings and (figure := ablation_pictures.forest_figure(findings, options.margin)):
        words = "Differences of accuracy with their intervals"
        yield Section(
            key="forest",
            title="Differences",
            words=notes["forest"],
            picture=Picture(figure=figure, words=words, files=["forest.png", "forest.svg", "differences.csv"]),
            table=_differences_table(findings),
        )
    crossed = ablation_pictures.interaction_figures(scores, level)
    for number, (title, figure) in enumerate(crossed.items()):
        yield Section(
            key=f"interaction-{number}",
            title=f"Interaction of {title}",
            words=notes["interaction"],
            picture=Picture(figure=figure, words=title, files=["interaction.png", "interaction.svg"]),
        )
    if findings and findings.effects:
        words = "Analysis of variance with repeated measures, p after Greenhouse and Geisser. As well in effects.csv."
        yield Section(key="effects", title="Effects", words=words, table=_effects_table(findings))
    if figure := ablation_pictures.plane_figure(scores, rows, level):
        picture = Picture(figure=figure, words="Accuracy over throughput", files=["plane.png", "plane.svg"])
        yield Section(key="plane", title="Accuracy and throughput", words=notes["plane"], picture=picture)
    yield Section(
        key="arms",
        title="Arms",
        words=f"± is half the {coverage(level)} interval of the mean by Student's t. arms.csv has full numbers; "
        "arms.tex and arms.md are for papers.",
        table=_arms_table(rows, scores, options),
    )
    if figure := ablation_pictures.curves_figure(scores, runs, level):
        picture = Picture(figure=figure, words="Learning curves of the arms", files=["curves.png", "curves.svg"])
        yield Section(key="curves", title="Learning curves", words=notes["curves"], picture=picture)
    words = "Copy gives the command that trains a run again. runs.csv has them as well."
    yield Section(key="runs", title="All runs", words=words, table=_runs_table(runs, scores))


def _differences_table(findings: Findings) -> Table:
    rows = difference_rows(findings)
    return Table(
        columns=[
            Column.of("of", [word(of) for of in rows["of"]]),
            Column.of("level or arm", list(rows["name"])),
            Column.of("against", list(rows["against"])),
            Column.of("points", list(rows["mean"]), points),
            *(Column.of(end, list(rows[end]), points) for end in ("low", "high")),
            Column.of("p, Holm", list(rows["p_holm"]), probability),
            Column.of("told", list(rows["different"]), _yes),
            Column.of("negligible", list(rows["negligible"]), _yes),
            Column.of("standardised", list(rows["effect"]), signed),
            Column.of("p", list(rows["p"]), probability),
            *(Column.of(f"bootstrap {end}", list(rows[f"bootstrap_{end}"]), points) for end in ("low", "high")),
        ]
    )


def _yes(told: bool) -> str:
    return "yes" if told else "no"


def _effects_table(findings: Findings) -> Table:
    effects = findings.effects
    return Table(
        columns=[
            Column.of("of", [" × ".join(word(key) for key in one.of) for one in effects]),
            Column.of("F", [one.f for one in effects], lambda f: f"{f:.2f}"),
            Column.of("df", [one.df for one in effects], lambda df: f"{df:.3g}"),
            Column.of("df, error", [one.df_error for one in effects], lambda df: f"{df:.3g}"),
            Column.of("ε", [one.epsilon for one in effects], lambda epsilon: f"{epsilon:.2f}"),
            Column.of("p", [one.p for one in effects], probability),
            Column.of("partial η²", [one.share for one in effects], lambda share: f"{share:.2f}"),
        ]
    )


def _arms_table(rows: pd.DataFrame, scores: Scores, options: Ablation) -> Table:
    free = [options.by] if options.by in rows.columns and rows[options.by].notna().any() else []
    half = rows["high"] - rows["val_accuracy"]
    return Table(
        columns=[
            Column.of("arm", list(rows["arm"])),
            *(Column.of(word(key), list(rows[key]), style.value) for key in free),
            Column.of("val. accuracy", list(rows["val_accuracy"]), percent),
            Column.of("±", list(half), percent),
            Column.of("sd", list(rows["sd"]), percent),
            Column.of("seeds", list(rows["seeds"])),
            Column.of("difference", list(rows["difference"]), points),
            Column.of("p, Holm", list(rows["p_holm"]), probability),
            Column.of("images/s", list(rows["throughput"]), style.speed),
            Column.of("parameters", list(rows["params"]), style.short),
            Column.of("MACs", list(rows["macs"]), style.short),
            Column.of("residual", list(rows["residual"]), lambda fraction: f"{100 * fraction:.2f} %"),
            *([Column.of("reason", list(rows["reason"]), wide=True)] if rows["reason"].notna().any() else []),
        ]
    )


def _runs_table(runs: pd.DataFrame, scores: Scores) -> Table:
    shown = [key for key in scores.factors if key in runs.columns]
    reasons = [reason or None for reason in runs["reason"].fillna("")]
    return Table(
        columns=[
            Column.of("trial", list(runs.index)),
            Column.of("arm", list(runs["arm"])),
            *(Column.of(word(key), list(runs[key]), style.value) for key in shown if len(shown) > 1),
            Column.of("seed", list(runs["seed"])),
            Column.of("status", list(runs["status"])),
            Column.of("val. accuracy", list(runs["val_accuracy"]), percent),
            Column.of("epochs", [len(curve) for curve in runs["curve"]]),
            Column.of("images/s", list(runs["throughput"]), style.speed),
            *([Column.of("reason", reasons, wide=True)] if any(reasons) else []),
        ],
        commands=[str(command) for command in runs["command"]],
        searched=True,
    )
