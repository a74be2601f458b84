"""The pages of a study in W&B: a workspace of its runs and a report. The only file that knows wandb-workspaces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces.expr import And, Metric, Ordering, Summary
from wandb_workspaces.reports.v2.interface import PanelTypes

from explore.ablation.answer import answer
from explore.ablation.design import Design, design_of
from explore.counted import counted
from explore.reporting import markdown, style
from explore.reporting.report import ABLATION_PICTURES, SEARCH_PICTURES, ablation_tables
from explore.reporting.tables import dimensions, front_markdown
from explore.search.rivals import results, tested
from explore.search.study import Study
from explore.search.trial import Trial, candidates, front
from explore.tracking import config_path

_MOST_RUNS = 500  # in a panel; 10 unless said otherwise
_MEAN = "a line is the mean of its runs, the band reaches from the lowest to the highest"


@dataclass(frozen=True, kw_only=True)
class Board:
    """What the pages of a study show.

    Args:
        study: its name, which is that of the group of its runs.
        entity: team or user.
        project: where the runs are.
        axes: the sampled dimensions, by config key, and whether each is sampled on a log scale.
        tables: names of the tables that the run of the study holds.
        pictures: names of its pictures.
        hypervolume: whether it holds the hypervolume over epochs, which an ablation has not.
        words: what came out, in Markdown.
    """

    study: str
    entity: str
    project: str
    axes: Mapping[str, bool]
    tables: Sequence[str]
    pictures: Sequence[str]
    hypervolume: bool
    words: str


def board_of(study: Study, folder: Path, *, entity: str, project: str) -> Board:
    """Read what the pages of a study show; `folder` is that of its pictures.

    Raises ValueError for a study without trials.
    """
    trials, design = results(study), design_of(study)
    if not trials:
        raise ValueError(f"study {study.name} must have trials to be published, got none; run explore.sweep first")
    logs = {key: getattr(one, "log", False) for trial in trials for key, one in trial.proposal.distributions.items()}
    pictures = ABLATION_PICTURES if design else SEARCH_PICTURES
    return Board(
        study=study.name,
        entity=entity,
        project=project,
        axes={key: logs[key] for key in dimensions(trials)},
        tables=list(ablation_tables(study, design)) if design else ["trials"],
        pictures=[name for name in pictures if (folder / f"{name}.png").exists()],
        hypervolume=not design,
        words=_of_an_ablation(design, trials) if design else _of_a_search(study, trials),
    )


def _of_an_ablation(design: Design, trials: Sequence[Trial]) -> str:
    _, findings = answer(design, trials)
    if findings is None:
        return "No two seeds of all arms are complete yet."
    return "\n".join(f"- {markdown.plain(sentence)}" for sentence in findings.words)


def _of_a_search(study: Study, trials: Sequence[Trial]) -> str:
    members = front(trials)
    number = len(candidates(trials))
    count = f"{counted(number, 'candidate')}, {len(members)} of them on the front of accuracy and throughput."
    if not members:
        return count
    tests = tested(study)
    measured = "; ".join(style.protocols(members))
    return f"{count}\n\n{front_markdown(trials, tests)}\n\nThroughput: {markdown.plain(measured)}."


def workspace(board: Board) -> ws.Workspace:
    """A saved view of the study's runs: its trials above, the run of the study below."""
    columns = ["run:notes", "summary:val_accuracy", "summary:throughput", "summary:status"]
    return ws.Workspace(
        entity=board.entity,
        project=board.project,
        name=board.study,
        sections=[
            ws.Section(name="Trials", panels=_of_trials(board), is_open=True),
            ws.Section(name="Study", panels=_of_the_study(board), is_open=True),
        ],
        settings=ws.WorkspaceSettings(max_runs=_MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=And(Metric("Group") == board.study),
            order=[Ordering(Summary("val_accuracy"), ascending=False)],
            pinned_columns=columns,
        ),
    )


def report(board: Board) -> wr.Report:
    """A report: what came out in words, then the panels."""
    return wr.Report(
        entity=board.entity,
        project=board.project,
        title=board.study,
        blocks=[
            wr.MarkdownBlock(board.words),
            wr.H2("Trials"),
            wr.PanelGrid(runsets=[_runs(board, "trial")], panels=_of_trials(board)),
            wr.H2("Study"),
            wr.PanelGrid(runsets=[_runs(board, "study")], panels=_of_the_study(board)),
        ],
        width="fluid",
    )


def _runs(board: Board, job_type: str) -> wr.Runset:
    # Without entity and project it is that of the report, and nobody has to be asked.
    return wr.Runset(name=job_type, filters=And(Metric("Group") == board.study, Metric("JobType") == job_type))


def _of_trials(board: Board) -> list[PanelTypes]:
    columns = [_axis(wr.Config(config_path(key)), key, log) for key, log in board.axes.items()]
    columns += [_axis(wr.SummaryMetric("throughput"), "images/s", True)]
    columns += [_axis(wr.SummaryMetric("val_accuracy"), "validation accuracy", False)]
    told_apart = next(key for key in ("token_mixing", *board.axes) if key in board.axes)
    return [
        wr.ScatterPlot(
            title="Validation accuracy against images/s",
            x=wr.SummaryMetric("throughput"),
            y=wr.SummaryMetric("val_accuracy"),
            log_x=True,
            layout=wr.Layout(w=12, h=9),
        ),
        wr.LinePlot(
            title=f"Validation accuracy after each epoch, by {told_apart}: {_MEAN}",
            x="Step",
            y=["val_accuracy"],
            title_x="epoch",
            groupby=wr.Config(config_path(told_apart)),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=_MOST_RUNS,
            layout=wr.Layout(x=12, w=12, h=9),
        ),
        wr.ParallelCoordinatesPlot(columns=columns, title="Configurations", layout=wr.Layout(y=9, w=24, h=10)),
        wr.ParameterImportancePlot(with_respect_to="val_accuracy", layout=wr.Layout(y=19, w=12, h=9)),
        wr.ParameterImportancePlot(with_respect_to="throughput", layout=wr.Layout(x=12, y=19, w=12, h=9)),
    ]


def _axis(metric: wr.Config | wr.SummaryMetric, name: str, log: bool) -> wr.ParallelCoordinatesPlotColumn:
    return wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=name, log=log)


def _of_the_study(board: Board) -> list[PanelTypes]:
    panels: list[PanelTypes] = []
    if board.hypervolume:
        panels += [
            wr.LinePlot(
                title="Hypervolume over epochs of training",
                x=wr.Metric("epochs"),
                y=["hypervolume"],
                layout=wr.Layout(w=12, h=9),
            )
        ]
    panels += [
        wr.MediaBrowser(title=name, media_keys=[name], num_columns=1, layout=wr.Layout(w=12, h=9))
        for name in board.pictures
    ]
    panels += [wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(w=24, h=12)) for name in board.tables]
    return panels


def save(board: Board, links: Mapping[str, str]) -> dict[str, str]:
    """Save both pages, those that were saved before in their place; returns their addresses. Asks the server."""
    return {
        "workspace": _saved(workspace(board), links.get("workspace"), ("sections", "settings", "runset_settings")),
        "report": _saved(report(board), links.get("report"), ("blocks",)),
    }


def _saved(page: Any, link: str | None, shown: Sequence[str]) -> str:
    """Save a page, or what it shows in the page at `link`, which keeps its name and its address."""
    if link:
        old = type(page).from_url(link)
        for field in shown:
            setattr(old, field, getattr(page, field))
        page = old
    return str(page.save().url)
