"""How much of a table a search leaves unfound after what it spent, and whether two searches differ: paired tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from benchmarks.search_judge import Array, Finish, Table

BUDGETS = (270, 810, 2430)  # epochs: of 10, 30 and 90 candidates trained to the end


def shares_at(
    table: Table, runs: Sequence[Sequence[Finish]], scale: str, spent: str, budgets: Sequence[float]
) -> Array:
    """The share of the table's hypervolume that each run had at each budget, `runs × budgets`.

    `spent` says what of, `epochs` or `seconds`. A run that ended before keeps what it had.
    """
    found = np.zeros((len(runs), len(budgets)))
    for index, run in enumerate(runs):
        shares = np.append(0.0, table.progress([one.configuration for one in run], scale))
        found[index] = shares[np.searchsorted([getattr(one, spent) for one in run], budgets, side="right")]
    return found


def regrets(table: Table, runs: Sequence[Sequence[Finish]], scale: str) -> dict[str, list[float]]:
    """What was missing of the table's hypervolume, as a fraction, at each of `BUDGETS` and at the end, by run."""
    # Rounded, so that two that found all of it are equal.
    missing = np.round(1 - shares_at(table, runs, scale, "epochs", [*BUDGETS, np.inf]), 9) + 0.0
    return dict(zip([*(f"{budget:,} epochs" for budget in BUDGETS), "the end"], missing.T.tolist(), strict=True))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, each one of the values: those of who never arrived may be infinite."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75], method="lower")
    return {"median": float(median), "low": float(low), "high": float(high)}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The p-value of Wilcoxon's signed-rank test, two-sided, of runs with the same seeds.

    Wilcoxon (1945), "Individual comparisons by ranking methods".
    """
    differences = np.subtract(theirs, ours)
    return float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def corrected(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines with their `p` corrected for their number, as `p_holm`.

    Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    if not lines:
        return []
    holm = multipletests([line["p"] for line in lines], method="holm")[1]
    return [{**line, "p_holm": float(p)} for line, p in zip(lines, holm, strict=True)]
