"""What a terminal shows of an ablation at its end."""

import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from explore.ablation.answer import answer
from explore.ablation.design import Design
from explore.ablation.records import Findings
from explore.ablation.runs import run_rows
from explore.ablation.together import said_of_together
from explore.command import print_json
from explore.evaluation import COMPLETE, INTERRUPTED, RUNNING
from explore.reporting.ablation_tables import arm_rows
from explore.reporting.ablation_terminal import arms_table
from explore.search.rivals import results
from explore.search.study import Study


def show_verdict(study: Study, design: Design, report: Path, style: str, *, ended: str, go_on: str | None) -> None:
    """Print what the seeds say, as `style`: text for people, or json.

    `ended` is why it ended, `go_on` the command that continues what is unfinished.
    """
    trials = results(study)
    scores, findings = answer(design, trials)
    together = said_of_together(design, trials)
    if style == "json":
        arms = [arm.to_dict() for arm in design.arms]
        print_json(
            {"study": study.name, "arms_matched": arms}
            | _record(findings, seeds=len(scores.accuracies))
            | {"together": together, "report": str(report), "ended": ended or None, "go_on": go_on}
        )
        return
    console = Console(width=max(100, shutil.get_terminal_size((160, 40)).columns))
    console.print()
    if trials:
        rows = arm_rows(design.options, scores, findings, run_rows(design, trials))
        seeds = f"{len(scores.accuracies)} seeds" if findings else "too few seeds to compare"
        console.print(arms_table(rows, title=f"Arms of {study.name}, {seeds}"))
    for trial in trials:
        if trial.status not in (COMPLETE, RUNNING, INTERRUPTED):
            words = f"trial {trial.number} {trial.status}: {trial.evaluation.reason}"
            console.print(words, markup=False, highlight=False, soft_wrap=True)
    console.print()
    for sentence in findings.words if findings else ():
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if together:
        console.print(f"\n{together}", markup=False, highlight=False, soft_wrap=True)
    if ended:
        console.print(f"Ended: {ended}", markup=False, highlight=False)
    console.print(f"\nReport: {report}", markup=False, highlight=False, soft_wrap=True)
    if go_on:
        console.print(f"Go on:  {go_on}", markup=False, highlight=False, soft_wrap=True)


def _record(findings: Findings | None, seeds: int) -> dict[str, Any]:
    """The findings; with too few seeds for any the same keys, with nothing in them."""
    if findings:
        return asdict(findings)
    lists: dict[str, Any] = {"levels": [], "arms": [], "effects": [], "words": []}
    return {one.name: None for one in fields(Findings)} | lists | {"seeds": seeds, "settled": False}
