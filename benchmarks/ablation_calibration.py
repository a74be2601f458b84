"""Are the errors of an ablation as rare as it says? Ablations of identical arms, whose runs were really trained.

    python -m benchmarks.ablation_calibration [simulations=100000] [format=json]
    python -m benchmarks.ablation_calibration record networks=800

The first replays ablations from the accuracies of one small network that was trained with many seeds; the second trains
it, and goes on where it was stopped. Whatever an ablation of this network against itself tells is a false alarm. It
takes a minute of one core.

Real ablations have two arms and never share a run. Simulated ones draw theirs from all runs: 5 token mixings and 2
channel mixings, or 2 token mixings alone, looked at after 5, 8, 12 and 20 seeds until everything is told or negligible;
to some a true difference is added. Behind ± is the standard error of the simulation.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.ablation_pool import pool, record
from benchmarks.ablation_replay import DESIGNS, EVER, OPTIONS, Factors, contain, replay
from benchmarks.arguments import parse
from benchmarks.origin import print_json
from explore.ablation.seeds import looks
from explore.ablation.statistics import family, judge, subsets

Array = NDArray[np.float64]
Row = dict[str, Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
LOOKS = looks(OPTIONS.seeds, OPTIONS.max_seeds)
REAL = 20
BAR, COVERED = 5.0, (93.0, 97.0)
BATCH, BOOTSTRAPPED = 10_000, 4_000  # bootstrap intervals take long: those of the first so many
LIBRARY = 2_000  # intervals of scipy, which takes long
# What accuracies may look like elsewhere; the last are those of few validation images, with many ties.
OTHERS: dict[str, Draw] = {
    "normal": lambda random, size: random.normal(0.93, 0.014, size),
    "uniform": lambda random, size: random.uniform(0.90, 0.95, size),
    "heavy tails (t with 3 degrees of freedom)": lambda random, size: 0.93 + 0.01 * random.standard_t(3, size),
    "skewed (exponential)": lambda random, size: 0.95 - random.exponential(0.014, size),
    "100 images (binomial)": lambda random, size: random.binomial(100, 0.95, size) / 100,
}


def simulated(draw: Draw, factors: Factors, number: int, difference: float = 0.0) -> pd.DataFrame:
    """Ablations from runs drawn at random; one token mixing is better by `difference`."""
    random = np.random.default_rng(0)
    arms = int(np.prod([len(levels) for levels in factors.values()]))
    parts = [min(BATCH, number - begun) for begun in range(0, number, BATCH)]
    tables = (draw(random, (part, LOOKS[-1], arms)) for part in parts)
    return pd.concat(
        replay(table, factors, LOOKS, difference, bootstrapped=0 if place else BOOTSTRAPPED)
        for place, table in enumerate(tables)
    )


def of_pool(runs: Array) -> Draw:
    """Draws from all runs."""
    return lambda random, size: random.choice(runs, size)


def real(runs: Array) -> tuple[int, pd.DataFrame]:
    """Ablations of two arms that share no run, with as many seeds as the runs suffice for."""
    seeds = min(len(runs) // (2 * REAL), OPTIONS.max_seeds)
    tables = runs[: 2 * REAL * seeds].reshape(REAL, seeds, 2)
    return seeds, replay(tables, DESIGNS["2 arms"], looks(OPTIONS.seeds, seeds), bootstrapped=REAL)


def rate(name: str, shares: Any, **bar: Any) -> Row:
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


def false_alarms(name: str, ended: pd.DataFrame) -> list[Row]:
    """How often ablations without any difference tell one, in the end and, without a bar, at any of their looks."""
    rows = []
    for what in ended.filter(regex=f"^{EVER}").columns.str.removeprefix(EVER):
        rows.append(rate(f"{name}: false alarm, {what}", ended[what], at_most=BAR))
        rows.append(rate("  at any look", ended[EVER + what]))
    return rows


def coverage(name: str, ended: pd.DataFrame, difference: float = 0.0) -> list[Row]:
    """How many intervals of differences of levels contain the true one, after an ablation has ended by itself.

    What is reported is as sure as the last look had to be, which is more than 95 % where it came early.
    """
    rows: list[Row] = []
    for side in ("t", "bootstrap"):
        stated = 100 * float(ended[f"stated, {side}"].mean())
        rows.append({"name": f"{name}: level of the reported intervals, mean, {side}", "value": stated, "unit": "%"})
        bar: Row = {"at_least": COVERED[0]} if difference else {"between": COVERED}
        rows.append(rate(f"{name}: covered, reported, {side}", ended[f"reported, {side}"].dropna(), **bar))
        plain = ended[f"95 %, {side}"].dropna()
        rows.append(rate(f"{name}: covered, intervals of 95 % instead, {side}", plain, between=COVERED))
    return rows


def power(name: str, ended: pd.DataFrame) -> list[Row]:
    """How often the true difference is told, and after how many seeds the ablation ended."""
    mean, error = float(ended["seeds"].mean()), float(stats.sem(ended["seeds"]))
    return [
        rate(f"{name}: told", ended["helped"]),
        {"name": f"{name}: seeds", "value": mean, "unit": "", "error": error},
    ]


def by_seeds(runs: Array, number: int) -> list[Row]:
    """Coverage of 95 % intervals of one difference after a number of seeds fixed before, by kind of interval."""
    random, rows = np.random.default_rng(0), []
    for seeds in LOOKS:
        pairs = random.choice(runs, (2, number, seeds))
        values = family({"": pairs[0] - pairs[1]})
        found = judge(values, OPTIONS.error, OPTIONS.margin)
        stated = 100 * (1 - subsets(seeds, OPTIONS.error).level)
        few = values[:LIBRARY, 0]
        kinds = {
            "t": (found.low <= 0) & (found.high >= 0),
            f"bootstrap ({stated:.4g} %)": contain(values, OPTIONS.error, np.zeros(1)),
            **{f"bootstrap, {method} instead": _of_scipy(few, method) for method in ("percentile", "BCa")},
        }
        for kind, hits in kinds.items():
            bar = {} if "instead" in kind else {"between": COVERED}
            rows.append(rate(f"{seeds} seeds, 2 arms: covered, intervals of 95 %, {kind}", hits.ravel(), **bar))
    return rows


def _of_scipy(values: Array, method: str) -> NDArray[np.bool_]:
    """Whether bootstrap intervals by a method of scipy contain zero, some rows at a time to spare memory."""
    interval = partial(stats.bootstrap, statistic=np.mean, axis=1, n_resamples=999, method=method)
    parts = []
    for rows in np.array_split(values, max(1, len(values) // 50)):
        found = interval((rows,), confidence_level=1 - OPTIONS.error, rng=np.random.default_rng(0)).confidence_interval
        parts.append((found.low <= 0) & (found.high >= 0))
    return np.concatenate(parts)


def measure(simulations: int) -> Iterator[Row]:
    """All rows, as they come."""
    runs = pool()
    yield {"name": "networks trained", "value": len(runs), "unit": ""}
    yield {"name": "standard deviation of their accuracies", "value": 100 * float(runs.std(ddof=1)), "unit": "points"}
    seeds, trained = real(runs)
    name = f"{REAL} real, up to {seeds} seeds"
    yield from [*false_alarms(name, trained), *coverage(name, trained)]
    for design, factors in DESIGNS.items():
        equal = simulated(of_pool(runs), factors, simulations)
        yield from [*false_alarms(design, equal), *coverage(design, equal)]
        for points in (1, 2):
            name, number = f"{design}, {points} point{'s' if points > 1 else ''} better", max(1, simulations // 5)
            better = simulated(of_pool(runs), factors, number, points / 100)
            yield from [*power(name, better), *coverage(name, better, points / 100)]
    for name, draw in OTHERS.items():
        equal = simulated(draw, DESIGNS["2 arms"], simulations)
        yield rate(f"2 arms, {name}: false alarm", equal["arms after Holm"], at_most=BAR)
        yield rate(f"2 arms, {name}: covered, reported, t", equal["reported, t"], between=COVERED)
    yield from by_seeds(runs, max(1, simulations // 5))


def shown(row: Row) -> str:
    """A row as a line."""
    error = f" ± {row['error']:.2f}" if "error" in row else ""
    bar = row.get("bar")
    verdict = "" if bar is None else f"   bar {bar}: {'holds' if row['holds'] else 'MISSED'}"
    return f"{row['name']:70} {row['value']:8.2f} {row['unit']}{error}{verdict}"


def main(arguments: Sequence[str]) -> None:
    """Record or replay."""
    recording = "record" in arguments
    defaults = {"networks": 800} if recording else {"simulations": 100_000}
    asked = parse(arguments, __doc__, defaults, words=["record"])
    if recording:
        record(asked["networks"])
        return
    rows = measure(asked["simulations"])
    if asked["format"] == "json":
        print_json(list(rows))
        return
    for row in rows:
        print(shown(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
