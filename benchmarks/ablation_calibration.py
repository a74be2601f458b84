"""Are the errors of an ablation as rare as it says? Ablations of identical arms, whose runs were really trained.

    python -m benchmarks.ablation_calibration [simulations=2000] [format=json]
    python -m benchmarks.ablation_calibration record networks=800

The first replays ablations from the accuracies of one small network that was trained with many seeds; the second trains
it, and goes on where it was stopped. Whatever an ablation of this network against itself tells is a false alarm. It
takes about ten minutes on one core.

Real ablations have two arms and never share a run. Simulated ones draw theirs from all runs: 5 token mixings and 2
channel mixings, or 2 token mixings alone, looked at after 5, 8, 12 and 20 seeds until everything is told or negligible;
to some a true difference is added. Behind ± is the standard error of the simulation.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.ablation_pool import pool, record
from explore.ablation.options import Ablation
from explore.ablation.records import Difference, Findings, Scores
from explore.ablation.seeds import looks
from explore.ablation.statistics import analyse, bootstrap_intervals, student

Array = NDArray[np.float64]
Row = dict[str, Any]
Factors = dict[str, tuple[str, ...]]
OPTIONS = Ablation()
LOOKS = looks(OPTIONS.seeds, OPTIONS.max_seeds)
DESIGNS: dict[str, Factors] = {
    "5 × 2": {
        "token_mixing": ("mlp", "s2", "pooling", "attention", "convolution"),
        "channel_mixing": ("mlp", "swiglu"),
    },
    "2 arms": {"token_mixing": ("mlp", "s2")},
}
HELPED = "s2"  # the level that a true difference is given to
REAL = 20
BAR, COVERED = 5.0, (93.0, 97.0)


@dataclass(frozen=True)
class Ended:
    """An ablation to its end: what every look found, and what intervals of 95 % would say of the last one."""

    looks: Sequence[Findings]
    plain: Findings

    @property
    def last(self) -> Findings:
        """What is reported."""
        return self.looks[-1]


def crossed(factors: Factors, table: Array) -> Scores:
    """Scores of all combinations of levels; `table` has a column for each, the last factor fastest."""
    arms = {" + ".join(one): dict(zip(factors, one, strict=True)) for one in product(*factors.values())}
    return Scores(factors=factors, arms=arms, accuracies=pd.DataFrame(table, columns=list(arms)))


def run(scores: Scores, planned: Sequence[int]) -> Ended:
    """Look after 5 seeds, after 8 and so on, as an ablation does, until it is settled."""
    found = []
    for seeds in planned:
        known = Scores(factors=scores.factors, arms=scores.arms, accuracies=scores.accuracies[:seeds])
        found.append(analyse(known, looks=planned, error=OPTIONS.error, margin=OPTIONS.margin))
        if found[-1].settled:
            break
    plain = analyse(known, looks=(seeds,), error=OPTIONS.error, margin=OPTIONS.margin)
    return Ended(found, plain)


def simulated(runs: Array, factors: Factors, number: int, difference: float = 0.0) -> list[Ended]:
    """Ablations from runs drawn at random; one token mixing is better by `difference`."""
    random = np.random.default_rng(0)
    arms = list(product(*factors.values()))
    added = np.array([difference if HELPED in levels else 0.0 for levels in arms])
    tables = (random.choice(runs, (LOOKS[-1], len(arms))) + added for _ in range(number))
    return [run(crossed(factors, table), LOOKS) for table in tables]


def real(runs: Array) -> list[Ended]:
    """Ablations of two arms that share no run, as long as the runs suffice."""
    seeds = min(len(runs) // (2 * REAL), OPTIONS.max_seeds)
    tables = runs[: 2 * REAL * seeds].reshape(REAL, seeds, 2)
    return [run(crossed(DESIGNS["2 arms"], table), looks(OPTIONS.seeds, seeds)) for table in tables]


def rate(name: str, shares: Sequence[float], **bar: Any) -> Row:
    """A share in per cent, the mean of one value per ablation, with its standard error."""
    value, error = 100 * float(np.mean(shares)), 100 * float(stats.sem(shares))
    return {"name": name, "value": value, "unit": "%", "error": error, **judged(value, **bar)}


def judged(
    value: float,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    between: tuple[float, float] | None = None,
) -> Row:
    """The bar in words, and whether it is kept; None for both where there is none."""
    if between is not None:
        return {"bar": f"{between[0]:g} to {between[1]:g}", "holds": between[0] <= value <= between[1]}
    if at_least is not None:
        return {"bar": f"at least {at_least:g}", "holds": value >= at_least}
    return {"bar": at_most and f"at most {at_most:g}", "holds": at_most and value <= at_most}


def false_alarms(name: str, ended: Sequence[Ended]) -> list[Row]:
    """How often ablations without any difference tell one, in the end and, without a bar, at any of their looks."""
    rows = []
    for what, tells in _TELLS.items():
        if tells(ended[0].last) is not None:
            rows.append(rate(f"{name}: false alarm, {what}", [tells(one.last) for one in ended], at_most=BAR))
            rows.append(rate("  at any look", [max(map(tells, one.looks)) for one in ended]))
    return rows


def _family(factor: str) -> Callable[[Findings], Any]:
    def tells(findings: Findings) -> bool | None:
        family = [one.different for one in findings.levels if one.of == factor]
        return any(family) if family else None

    return tells


def _interaction(findings: Findings) -> bool | None:
    ps = [one.p for one in findings.effects if len(one.of) > 1]
    return min(ps) <= findings.level if ps else None


# What may be told where nothing is; None where an ablation has no such thing.
_TELLS: dict[str, Callable[[Findings], Any]] = {
    "token mixing after Holm": _family("token_mixing"),
    "channel mixing": _family("channel_mixing"),
    "arms after Holm": lambda findings: any(one.different for one in findings.arms),
    "one difference of levels": lambda findings: np.mean([one.p <= findings.level for one in findings.levels]),
    "interaction": _interaction,
}


def coverage(name: str, ended: Sequence[Ended], difference: float = 0.0) -> list[Row]:
    """How many intervals of differences of levels contain the true one, after an ablation has ended by itself.

    What is reported is as sure as the last look had to be, which is more than 95 % where it came early.
    """
    stated = 100 * float(np.mean([1 - one.last.level for one in ended]))
    rows: list[Row] = [{"name": f"{name}: level of the reported intervals, mean", "value": stated, "unit": "%"}]
    for side, ends in _SIDES.items():
        reported = [_share(one.last, ends, difference) for one in ended]
        bar: Row = {"at_least": COVERED[0]} if difference else {"between": COVERED}
        rows.append(rate(f"{name}: covered, reported, {side}", reported, **bar))
        plain = [_share(one.plain, ends, difference) for one in ended]
        rows.append(rate(f"{name}: covered, intervals of 95 % instead, {side}", plain, between=COVERED))
    return rows


_SIDES: dict[str, Callable[[Difference], tuple[float, float]]] = {
    "t": lambda one: (one.low, one.high),
    "bootstrap": lambda one: (one.bootstrap_low, one.bootstrap_high),
}


def _share(findings: Findings, ends: Callable[[Difference], tuple[float, float]], difference: float) -> float:
    truths = [difference if one.name == HELPED else 0.0 for one in findings.levels]
    intervals = [ends(one) for one in findings.levels]
    return float(np.mean([low <= truth <= high for (low, high), truth in zip(intervals, truths, strict=True)]))


def power(name: str, ended: Sequence[Ended]) -> list[Row]:
    """How often the true difference is told, and after how many seeds the ablation ended."""
    told = [any(one.different for one in each.last.levels if one.name == HELPED) for each in ended]
    seeds = [each.last.seeds for each in ended]
    mean = {"name": f"{name}: seeds", "value": float(np.mean(seeds)), "unit": "", "error": float(stats.sem(seeds))}
    return [rate(f"{name}: told", told), mean]


def by_seeds(runs: Array, number: int) -> list[Row]:
    """Coverage of 95 % intervals of one difference after a number of seeds fixed before, by kind of interval."""
    random, rows = np.random.default_rng(0), []
    for seeds in LOOKS:
        pairs = random.choice(runs, (2, number, seeds))
        values = np.sort(np.round(pairs[0] - pairs[1], 12), axis=1)
        kinds = {
            "t": np.array([student(one, OPTIONS.error)[:2] for one in values]),
            "bootstrap": bootstrap_intervals(values, OPTIONS.error),
            **{f"bootstrap, {method} instead": _of_scipy(values, method) for method in ("percentile", "BCa")},
        }
        for kind, ends in kinds.items():
            hits = [low <= 0 <= high for low, high in ends]
            bar = {} if "instead" in kind else {"between": COVERED}
            rows.append(rate(f"{seeds} seeds, 2 arms: covered, intervals of 95 %, {kind}", hits, **bar))
    return rows


def _of_scipy(values: Array, method: str) -> Array:
    """Bootstrap intervals by a method of scipy, some rows at a time to spare memory."""
    parts = []
    for rows in np.array_split(values, max(1, len(values) // 50)):
        random = np.random.default_rng(0)
        found = stats.bootstrap(
            (rows,), np.mean, axis=1, confidence_level=1 - OPTIONS.error, n_resamples=999, method=method, rng=random
        )
        parts.append(np.column_stack(found.confidence_interval))
    return np.concatenate(parts)


def measure(simulations: int) -> Iterator[Row]:
    """All rows, as they come."""
    runs = pool()
    yield {"name": "networks trained", "value": len(runs), "unit": ""}
    yield {"name": "standard deviation of their accuracies", "value": 100 * float(runs.std(ddof=1)), "unit": "points"}
    trained = real(runs)
    name = f"{REAL} real, up to {trained[0].last.looks[-1]} seeds"
    yield from [*false_alarms(name, trained), *coverage(name, trained)]
    for design, factors in DESIGNS.items():
        equal = simulated(runs, factors, simulations)
        yield from [*false_alarms(design, equal), *coverage(design, equal)]
        for points in (1, 2):
            name, number = f"{design}, {points} point{'s' if points > 1 else ''} better", simulations // 5
            better = simulated(runs, factors, number, points / 100)
            yield from [*power(name, better), *coverage(name, better, points / 100)]
    yield from by_seeds(runs, simulations)


def shown(row: Row) -> str:
    """A row as a line."""
    error = f" ± {row['error']:.2f}" if "error" in row else ""
    bar = row.get("bar")
    verdict = "" if bar is None else f"   bar {bar}: {'holds' if row['holds'] else 'MISSED'}"
    return f"{row['name']:70} {row['value']:8.2f} {row['unit']}{error}{verdict}"


def main(arguments: Sequence[str]) -> None:
    """Record or replay."""
    given = dict(one.split("=", 1) for one in arguments if "=" in one)
    if "record" in arguments:
        record(int(given.get("networks", "800")))
        return
    rows = measure(int(given.get("simulations", "2000")))
    if given.get("format") == "json":
        print(json.dumps(list(rows)))
        return
    for row in rows:
        print(shown(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
