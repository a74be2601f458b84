"""The runs of an ablation as a table, for the report and for whoever wants to compute something else."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from explore.ablation.arms import Arm
from explore.ablation.design import Design
from explore.evaluation import COMPLETE
from explore.search.study import Trial


def representatives(design: Design, trials: Sequence[Trial]) -> list[Trial]:
    """Of each arm the first run that is complete: all have the same architecture, and so the same speed."""
    return list(_representatives(design, trials).values())


def run_rows(design: Design, trials: Sequence[Trial]) -> pd.DataFrame:
    """A row per run that has begun, seed by seed.

    Columns: arm; one per factor; seed; val_accuracy (a fraction); curve (accuracies after each epoch); throughput in
    images/s with the ends of its 95 % interval, of the arm; macs of one image; params; the value of the free dimension
    under its key, and residual, by which the arm differs from the first in what is matched; status; reason; command.
    The index is the number of the trial.
    """
    speeds = _representatives(design, trials)
    runs = design.runs(trials, design.looks[-1])
    rows = {run.number: _row(design, arm, seed, run, speeds.get(arm.name)) for arm, seed, run in runs if run}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")


def _representatives(design: Design, trials: Sequence[Trial]) -> dict[str, Trial]:
    found: dict[str, Trial] = {}
    for arm, _, run in design.runs(trials, design.looks[-1]):
        if run and run.status == COMPLETE:
            found.setdefault(arm.name, run)
    return found


def _row(design: Design, arm: Arm, seed: int, run: Trial, timed: Trial | None) -> dict[str, Any]:
    cost = run.evaluation.cost
    speed = timed.evaluation.cost.throughput if timed and timed.evaluation.cost else None
    return {
        "arm": arm.name,
        **{key: arm.levels.get(key) for key in design.factors},
        "seed": seed,
        "val_accuracy": run.accuracy,
        "curve": [epoch.val_accuracy for epoch in run.evaluation.curve],
        "throughput": speed.images_per_second if speed else None,
        "throughput_low": speed.low if speed else None,
        "throughput_high": speed.high if speed else None,
        "macs": cost.macs if cost else None,
        "params": cost.params if cost else None,
        **({design.options.by: arm.free} if arm.free is not None else {}),
        "residual": arm.residual,
        "status": run.status,
        "reason": run.evaluation.reason,
        "command": run.command,
    }
