"""The runs of an ablation as a table, for the report and for whoever wants to compute something else."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from explore.ablation.arms import Arm
from explore.ablation.design import Design
from explore.evaluation import COMPLETE
from explore.search.trial import Trial


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
    return pd.DataFrame.from_dict(rows, orient="index", columns=_columns(design)).rename_axis("trial")


def _columns(design: Design) -> list[str]:
    matched = [] if design.options.match == "none" else [design.options.by]
    speed = ["throughput", "throughput_low", "throughput_high"]
    asked = ["arm", *design.factors, "seed", "val_accuracy", "curve", *speed, "macs", "params", *matched]
    return [*asked, "residual", "status", "reason", "command"]


def _representatives(design: Design, trials: Sequence[Trial]) -> dict[str, Trial]:
    found: dict[str, Trial] = {}
    for arm, _, run in design.runs(trials, design.looks[-1]):
        if run and run.status == COMPLETE:
            found.setdefault(arm.name, run)
    return found


def _row(design: Design, arm: Arm, seed: int, run: Trial, timed: Trial | None) -> list[Any]:
    cost = run.evaluation.cost
    speed = timed.evaluation.cost.throughput if timed and timed.evaluation.cost else None
    return [
        *(arm.name, *(arm.levels.get(key) for key in design.factors), seed),
        *(run.accuracy, [epoch.val_accuracy for epoch in run.evaluation.curve]),
        *((speed.images_per_second, speed.low, speed.high) if speed else (None, None, None)),
        *((cost.macs, cost.params) if cost else (None, None)),
        *([] if design.options.match == "none" else [arm.free]),
        *(arm.residual, run.status, run.evaluation.reason, run.command),
    ]
