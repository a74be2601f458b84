"""The report of a study from the study alone: of a search its front, of an ablation its answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from explore.ablation.answer import answer
from explore.ablation.design import Design, design_of
from explore.ablation.runs import representatives, run_rows
from explore.ablation.together import said_of_together
from explore.reporting import style
from explore.reporting.ablation_page import write_ablation
from explore.reporting.ablation_tables import arm_rows, difference_rows
from explore.reporting.page import write_search
from explore.search.rivals import results
from explore.search.study import Study
from explore.search.trial import Trial

# What goes to W&B as well.
ABLATION_PICTURES: tuple[str, ...] = ("forest", "interaction", "plane", "curves")
SEARCH_PICTURES: tuple[str, ...] = ("front",)


def write_report(study: Study, folder: Path) -> Path:
    """Write the page, pictures and tables of a study into its folder; returns the path of the page."""
    design = design_of(study)
    return _write_ablation(study, design, folder) if design else write_search(study, folder)


def ablation_tables(study: Study, design: Design) -> dict[str, pd.DataFrame]:
    """The tables of an ablation by their names: arms, differences, and runs without their curves."""
    trials = results(study)
    (scores, findings), runs = answer(design, trials), run_rows(design, trials)
    return {
        "arms": arm_rows(design.options, scores, findings, runs),
        "differences": difference_rows(findings),
        "runs": runs.drop(columns="curve").reset_index(),
    }


def _write_ablation(study: Study, design: Design, folder: Path) -> Path:
    trials, notes = results(study), study.notes
    scores, findings = answer(design, trials)
    return write_ablation(
        folder,
        name=study.name,
        options=design.options,
        scores=scores,
        findings=findings,
        runs=run_rows(design, trials),
        facts=_facts(notes, design, trials),
        commands=[line for line in (notes.get("command"), notes.get("report")) if line],
    )


def _facts(notes: Mapping[str, Any], design: Design, trials: Sequence[Trial]) -> dict[str, str]:
    data = notes.get("data", {})
    images = f"{data.get('train', 0):,} to train, {data.get('validation', 0):,} to validate"
    found = {"Images": f"{data.get('name', 'unknown')}, {data.get('image_size')} pixels: {images}"}
    if protocols := style.protocols(representatives(design, trials)):
        found["Throughput"] = "; ".join(protocols)
    if notes.get("commit"):
        found["Commit"] = notes["commit"]
    if together := said_of_together(design, trials):
        found["Seeds together"] = together
    if notes.get("ended"):
        found["Ended"] = notes["ended"]
    return found
