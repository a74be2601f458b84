"""The tables of an ablation with full numbers: arms, runs, differences and effects, for pandas and spreadsheets."""

from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from explore.ablation.options import Ablation
from explore.ablation.records import Difference, Effect, Findings, Scores
from explore.evaluation import COMPLETE
from explore.reporting.intervals import student

_MEASURED = ["params", "macs", "throughput", "throughput_low", "throughput_high", "residual"]
_LAST = ["epochs", "reason", "command"]


def arm_rows(options: Ablation, scores: Scores, findings: Findings | None, runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: those that are compared in their order, then those that were left out.

    `runs` has one row per run under the number of its trial, with the columns arm, one per factor under its config key,
    the free dimension under its own (`options.by`, where something was matched), seed, status, val_accuracy as a
    fraction, curve (validation accuracy after each epoch), throughput, throughput_low and throughput_high in images/s,
    macs (multiply-adds of one image), params, residual of what was matched as a fraction, reason, command.

    Of an arm: levels, free dimension, what was measured (the first value that is known), seeds, val_accuracy (mean over
    the seeds), sd between them, low and high (Student's interval of the mean at the level of the look); difference from
    the reference with its interval, p_holm, different and negligible, all missing for the reference and for arms that
    are not compared; reason why runs ended without a result. Means of arms that are not compared are of the runs that
    are complete.
    """
    level = findings.level if findings else options.error
    names = list(dict.fromkeys([*scores.arms, *runs["arm"]]))
    shown = [key for key in (*scores.factors, options.by, *_MEASURED) if key in runs.columns]
    known = runs.groupby("arm", sort=False)[shown].first().reindex(names).convert_dtypes()
    complete = runs[(runs["status"] == COMPLETE) & ~runs["arm"].isin(scores.accuracies.columns)]
    others = complete.pivot_table(index="seed", columns="arm", values="val_accuracy")
    accuracies = pd.concat([scores.accuracies, others], axis=1).reindex(columns=names)
    mean, half = accuracies.mean(), student(accuracies, level)
    rows = known.assign(
        seeds=accuracies.count(), val_accuracy=mean, sd=accuracies.std(), low=mean - half, high=mean + half
    )
    by_arm = {difference.name: difference for difference in findings.arms} if findings else {}
    compared = [by_arm.get(name) for name in names]
    for column, field in (("difference", "mean"), ("difference_low", "low"), ("difference_high", "high")):
        rows[column] = [getattr(one, field) if one else None for one in compared]
    for column in ("p_holm", "different", "negligible"):
        rows[column] = [getattr(one, column) if one else None for one in compared]
    reasons = runs[runs["reason"].fillna("") != ""].groupby("arm", sort=False)["reason"].first()
    return rows.assign(reason=reasons.reindex(names)).rename_axis("arm").reset_index()


def difference_rows(findings: Findings | None) -> pd.DataFrame:
    """Return one row per difference, of levels first; columns as the fields of `Difference`."""
    found = [*findings.levels, *findings.arms] if findings else []
    return pd.DataFrame([asdict(one) for one in found], columns=[field.name for field in fields(Difference)])


def write_tables(
    options: Ablation, scores: Scores, findings: Findings | None, runs: pd.DataFrame, folder: Path
) -> None:
    """Write arms.csv, runs.csv, differences.csv and effects.csv with full numbers into an existing folder."""
    counted = runs.assign(epochs=runs["curve"].map(len)).drop(columns="curve")
    effects = [asdict(one) | {"of": " × ".join(one.of)} for one in (findings.effects if findings else ())]
    tables = {
        "arms": arm_rows(options, scores, findings, runs),
        "runs": counted[[*(name for name in counted.columns if name not in _LAST), *_LAST]],
        "differences": difference_rows(findings),
        "effects": pd.DataFrame(effects, columns=[field.name for field in fields(Effect)]),
    }
    for name, table in tables.items():
        # Whole numbers stay whole where some are missing.
        whole = table.convert_dtypes()
        whole.to_csv(folder / f"{name}.csv", index=name == "runs", index_label="trial")
