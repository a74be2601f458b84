"""Thousands of ablations at once, by the functions that judge one: `analyse` says the same of each."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explore.ablation.options import Ablation
from explore.ablation.records import Scores
from explore.ablation.seeds import level as level_after
from explore.ablation.statistics import bootstrap_intervals, f_test, family, judge, of_arms, of_factor, subsets

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Factors = Mapping[str, tuple[str, ...]]
OPTIONS = Ablation()
DESIGNS: dict[str, Factors] = {
    "5 × 2": {
        "token_mixing": ("mlp", "s2", "pooling", "attention", "convolution"),
        "channel_mixing": ("mlp", "swiglu"),
    },
    "2 arms": {"token_mixing": ("mlp", "s2")},
}
HELPED = "s2"  # the level that a true difference is given to
EVER = "ever, "
_ROWS = 500  # of them at a time, to spare memory


def crossed(factors: Factors, table: Array) -> Scores:
    """Scores of all combinations of levels; `table` has a column for each, the last factor fastest."""
    arms = {" + ".join(one): dict(zip(factors, one, strict=True)) for one in product(*factors.values())}
    return Scores(factors=factors, arms=arms, accuracies=pd.DataFrame(table, columns=list(arms)))


def replay(
    tables: Array, factors: Factors, planned: Sequence[int], difference: float = 0.0, *, bootstrapped: int
) -> pd.DataFrame:
    """Look after 5 seeds, after 8 and so on, as ablations do, until each is settled; one row for each.

    In the columns: seeds at its end; whether the true difference was told (`helped`); what else was told, in the end
    and, behind `EVER`, at any look; how sure intervals of differences of levels say they are, and which part of them
    contains the truth; bootstrap intervals, which take long, of the first so many ablations. `tables` are ablations ×
    seeds × arms, with a true difference of `difference` to be added.
    """
    helped = np.array([HELPED in levels for levels in product(*factors.values())])
    tables = tables + difference * helped
    truths = np.array([difference * (name == HELPED) for levels in factors.values() for name in levels[1:]])
    ended, open_, ever = [], np.arange(len(tables)), pd.DataFrame()
    for seeds in planned:
        if not len(open_):
            break
        level = level_after(seeds, planned, OPTIONS.error)
        told, values, settled = _look(tables[open_, :seeds], factors, level)
        told.index = pd.Index(open_)
        alarms = told.drop(columns="helped")
        ever = pd.DataFrame(np.maximum(ever, alarms)) if len(ever.columns) else alarms
        over = settled | (seeds == planned[-1])
        intervals = _intervals(values[over], level, truths, open_[over], bootstrapped)
        ended.append(told[over].join(ever[over].add_prefix(EVER)).join(intervals).assign(seeds=seeds))
        open_, ever = open_[~over], ever[~over]
    return pd.concat(ended).sort_index()


def _look(tables: Array, factors: Factors, level: float) -> tuple[pd.DataFrame, Array, Flags]:
    """What is told at a look, the differences of levels (ablations × differences × seeds), and who is settled."""
    scores = crossed(factors, tables[0, :0])
    columns = {name: tables[..., place] for place, name in enumerate(scores.arms)}
    values = {factor: family(of_factor(scores, factor, columns)) for factor in factors}
    found = {factor: judge(one, level, OPTIONS.margin) for factor, one in values.items()}
    alone = np.concatenate([one.p <= level for one in found.values()], axis=-1)
    told = {
        "token mixing after Holm": found["token_mixing"].different.any(axis=-1),
        **({"channel mixing": found["channel_mixing"].different.any(axis=-1)} if "channel_mixing" in found else {}),
        "arms after Holm": judge(family(of_arms(columns)), level, OPTIONS.margin).different.any(axis=-1),
        "one difference of levels": alone.mean(axis=-1),
        **({"interaction": f_test(tables, factors, list(factors)).p <= level} if len(factors) > 1 else {}),
        "helped": found["token_mixing"].different[:, factors["token_mixing"].index(HELPED) - 1],
    }
    settled = np.concatenate([one.different | one.negligible for one in found.values()], axis=-1)
    values_of_all = np.concatenate(list(values.values()), axis=-2)
    return pd.DataFrame(told).astype(float), values_of_all, np.asarray(settled.all(axis=-1), bool)


def _intervals(
    values: Array, level: float, truths: Array, numbers: NDArray[np.int64], bootstrapped: int
) -> pd.DataFrame:
    """How sure the intervals are, and which part of those of each ablation contains the truth."""
    columns: dict[str, Array | float] = {}
    for words, stated in (("reported", level), ("95 %", OPTIONS.error)):
        found = judge(values, stated, OPTIONS.margin)
        columns[f"{words}, t"] = ((found.low <= truths) & (truths <= found.high)).mean(axis=-1)
        hits = np.full(len(values), np.nan)
        first = numbers < bootstrapped
        hits[first] = contain(values[first], stated, truths).mean(axis=-1)
        columns[f"{words}, bootstrap"] = hits
    sure = {"stated, t": 1 - level, "stated, bootstrap": 1 - subsets(values.shape[-1], level).level}
    return pd.DataFrame(columns | sure, index=numbers)


def contain(values: Array, level: float, truths: Array) -> Flags:
    """Whether the bootstrap interval of each difference contains the true one; `... × differences × seeds`."""
    rows, expected = values.reshape(-1, values.shape[-1]), np.broadcast_to(truths, values.shape[:-1]).ravel()
    hits = np.empty(len(rows), bool)
    for begun in range(0, len(rows), _ROWS):
        part = slice(begun, begun + _ROWS)
        low, high = bootstrap_intervals(rows[part], level).T
        hits[part] = (low <= expected[part]) & (expected[part] <= high)
    return hits.reshape(values.shape[:-1])
