"""What the seeds of an ablation say: paired differences with their intervals, and the analysis of variance.

Runs of equal seed see the same images in the same order, so that everything is computed from differences within a seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import combinations, product
from math import copysign, inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.special import fdtrc, gammaln, stdtr

from explore.ablation.records import Difference, Effect, Findings, Scores
from explore.ablation.seeds import level as level_after
from explore.search.student import half_width

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
ARM = "arm"
_SUBSETS = 9999
_DECIMALS = 12  # beyond which a difference of accuracies is one of rounding


def analyse(scores: Scores, *, looks: Sequence[int], error: float, margin: float) -> Findings:
    """Compare the levels of each factor with its first, and the arms with the reference.

    Raises ValueError for fewer than two seeds.

    Args:
        scores: accuracies of all seeds so far.
        looks: numbers of seeds after which it is looked; between two of them the level is that of the one before.
        error: probability of a false alarm, all looks together.
        margin: accuracy, as a fraction: smaller differences are of no interest.
    """
    seeds = len(scores.accuracies)
    if seeds < 2:
        raise ValueError(f"an ablation needs the accuracies of at least 2 seeds, got {seeds}: one seed has no spread")
    level = level_after(seeds, looks, error)
    columns: dict[str, Array] = {name: scores.accuracies[name].to_numpy() for name in scores.arms}
    told = [
        one
        for factor, levels in scores.factors.items()
        if levels
        for one in _differences(factor, levels[0], of_factor(scores, factor, columns), level, margin)
    ]
    reference = next(iter(scores.arms))
    return Findings(
        level=level,
        bootstrap_level=subsets(seeds, level).level,
        looks=tuple(looks),
        seeds=seeds,
        levels=told,
        arms=_differences(ARM, reference, of_arms(columns), level, margin),
        effects=effects(scores),
        settled=all(one.different or one.negligible for one in told),
    )


def of_factor(scores: Scores, factor: str, columns: Mapping[str, Array]) -> dict[Any, Array]:
    """How much better each level is than the first, by seed, averaged over pairs of arms that are equal otherwise.

    A level that has no such pair is left out. `columns` has the accuracies of each arm, by seed; the seeds may have
    further axes before them.
    """
    first, *others = scores.factors[factor]
    names = {_rest(levels, factor): name for name, levels in scores.arms.items() if levels.get(factor) == first}
    found: dict[Any, Array] = {}
    for other in others:
        pairs = [
            columns[name] - columns[names[rest]]
            for name, levels in scores.arms.items()
            if levels.get(factor) == other and (rest := _rest(levels, factor)) in names
        ]
        if pairs:
            found[other] = np.mean(pairs, axis=0)
    return found


def of_arms(columns: Mapping[str, Array]) -> dict[str, Array]:
    """How much better each arm is than the first, by seed."""
    reference, *others = columns
    return {name: columns[name] - columns[reference] for name in others}


def _rest(levels: Mapping[str, Any], factor: str) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((key, value) for key, value in levels.items() if key != factor))


@dataclass(frozen=True)
class Judged:
    """What Student's t says of a family of differences: of each the fields of `Difference`; `... × family`."""

    mean: Array
    low: Array
    high: Array
    p: Array
    p_holm: Array
    different: Flags
    negligible: Flags


def family(rows: Mapping[Any, Array]) -> Array:
    """Differences that are corrected for their number, `... × family × seeds`.

    Sorted, so that the order of seeds cannot matter, not even by rounding.
    """
    values = np.round(np.stack(list(rows.values()), axis=-2), _DECIMALS) + 0.0
    return np.sort(values, axis=-1).astype(np.float64, copy=False)


def judge(differences: Array, level: float, margin: float) -> Judged:
    """Look at families of differences, `... × family × seeds`, at a level."""
    mean, spread, seeds = differences.mean(axis=-1), _spread(differences), differences.shape[-1]
    half = half_width(spread, seeds, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(spread > 0, 2 * stdtr(seeds - 1, -abs(mean) / (spread / sqrt(seeds))), mean == 0)
    low, high, p_holm = mean - half, mean + half, holm(p)
    return Judged(mean, low, high, p, p_holm, p_holm <= level, (-margin < low) & (high < margin))


def _differences(of: str, against: Any, rows: Mapping[Any, Array], level: float, margin: float) -> list[Difference]:
    """A family of differences, by name; each has a value per seed."""
    if not rows:
        return []
    values = family(rows)
    found = judge(values, level, margin)
    ends = bootstrap_intervals(values, level)
    return [
        Difference(
            of=of,
            name=str(name),
            against=str(against),
            mean=float(found.mean[place]),
            low=float(found.low[place]),
            high=float(found.high[place]),
            bootstrap_low=float(ends[place, 0]),
            bootstrap_high=float(ends[place, 1]),
            effect=hedges(values[place]),
            p=float(found.p[place]),
            p_holm=float(found.p_holm[place]),
            seeds=values.shape[1],
            different=bool(found.different[place]),
            negligible=bool(found.negligible[place]),
        )
        for place, name in enumerate(rows)
    ]


def bootstrap_intervals(differences: Array, level: float) -> Array:
    """Ends of the bootstrap intervals of means, `rows × 2`, from `rows × seeds`; `subsets` has their level."""
    drawn = subsets(differences.shape[1], level)
    last = len(drawn.weights) - drawn.beyond
    means = np.partition(differences @ drawn.weights.T, (drawn.beyond, last - 1), axis=1)
    ends: Array = np.round(means[:, (drawn.beyond, last - 1)], _DECIMALS) + 0.0
    return ends


@dataclass(frozen=True)
class Subsets:
    """Of whose means an interval is made, `weights` (subsets × seeds), how many are `beyond` an end, and its level."""

    weights: Array
    beyond: int
    level: float


def subsets(seeds: int, level: float) -> Subsets:
    """Subsets of the seeds for an interval of `1 - level`, or of as much as so few seeds allow.

    With each seed in or out, and not with draws with replacement: where differences are as likely above as below their
    middle, whatever their distribution, it lies between two neighbouring means as often as between any others. So
    intervals are exact for few seeds as well. Hartigan (1969), "Using subsample values as typical values". None reaches
    beyond the smallest and the largest difference, which are too near for the level where seeds are few.
    """
    weights = _weights(seeds)
    gaps = len(weights) + 1
    beyond = max(int(level / 2 * gaps + 1e-9), 1) - 1
    return Subsets(weights, beyond, 2 * (beyond + 1) / gaps)


@lru_cache(maxsize=8)
def _weights(seeds: int) -> Array:
    """The weight of each seed in the mean of each subset, always the same ones: all of them, or as many at random."""
    if 2**seeds <= _SUBSETS + 1:
        drawn = np.arange(1, 2**seeds)[:, None] >> np.arange(seeds) & 1
    else:
        drawn = np.random.default_rng(0).integers(0, 2, (_SUBSETS, seeds))
        drawn[~drawn.any(axis=1)] = 1
    weights: Array = drawn / drawn.sum(axis=1, keepdims=True)
    return weights


def hedges(differences: Array) -> float:
    """The mean in units of the standard deviation of the pairs, with the exact correction for few of them.

    Hedges (1981), "Distribution theory for Glass's estimator of effect size and related estimators".
    """
    mean, spread, freedom = float(differences.mean()), float(_spread(differences)), len(differences) - 1
    if not spread:
        return copysign(inf, mean) if mean else 0.0
    correction = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / sqrt(freedom / 2)
    return float(correction * mean / spread)


def _spread(differences: Array) -> Array:
    spread: Array = np.round(differences.std(axis=-1, ddof=1), _DECIMALS)
    return spread


def holm(ps: Any) -> Array:
    """Correct p values for their number, `... × family`; Holm (1979), "A simple sequentially rejective multiple test
    procedure".

    That of statsmodels, against which it is tested, would take two seconds of every report to be loaded.
    """
    given = np.asarray(ps, float)
    order = np.argsort(given, axis=-1)
    stepwise = np.arange(given.shape[-1], 0, -1) * np.take_along_axis(given, order, axis=-1)
    corrected = np.empty_like(given)
    np.put_along_axis(corrected, order, np.minimum(np.maximum.accumulate(stepwise, axis=-1), 1), axis=-1)
    return corrected


def effects(scores: Scores) -> list[Effect]:
    """Main effects and interactions of factors with several levels; none where they are not fully crossed."""
    cells = {tuple(levels.get(factor) for factor in scores.factors): name for name, levels in scores.arms.items()}
    combined = list(product(*scores.factors.values()))
    if len(scores.arms) != len(cells) or set(cells) != set(combined):
        return []
    table = scores.accuracies[[cells[levels] for levels in combined]].to_numpy()
    several = [factor for factor, levels in scores.factors.items() if len(levels) > 1]
    sizes = range(1, len(several) + 1)
    return [_effect(table, scores.factors, of) for size in sizes for of in combinations(several, size)]


def _effect(table: Array, factors: Mapping[str, Sequence[Any]], of: tuple[str, ...]) -> Effect:
    found = f_test(table, factors, of)
    df, df_error = found.df, found.df * (len(table) - 1)
    numbers = {name: float(getattr(found, name)) for name in ("f", "epsilon", "p", "share")}
    return Effect(of=of, df=df, df_error=df_error, **numbers)


@dataclass(frozen=True)
class FTest:
    """Of an effect the fields of `Effect`, each a number for every table."""

    f: Array
    df: int
    epsilon: Array
    p: Array
    share: Array


def f_test(table: Array, factors: Mapping[str, Sequence[Any]], of: Sequence[str]) -> FTest:
    """An F test with repeated measures from orthonormal contrasts.

    A table has a row per seed and a column per arm, the last factor fastest; there may be many, `... × seeds × arms`.
    Winer, Brown and Michels (1991), "Statistical principles in experimental design", chapter 7; epsilon: Greenhouse
    and Geisser (1959), "On methods in the analysis of profile data".
    """
    seeds = table.shape[-2]
    sides = [helmert(len(levels)).T if name in of else np.ones((len(levels), 1)) for name, levels in factors.items()]
    contrasts = np.round(table @ reduce(np.kron, sides), _DECIMALS)
    df, means = contrasts.shape[-1], contrasts.mean(axis=-2, keepdims=True)
    centred = contrasts - means
    covariance = np.swapaxes(centred, -1, -2) @ centred / (seeds - 1)
    signal, noise = seeds * (means**2).sum(axis=(-1, -2)), np.trace(covariance, axis1=-1, axis2=-2)
    total = signal + noise * (seeds - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        epsilon = np.where(noise > 0, noise**2 / (df * (covariance**2).sum(axis=(-1, -2))), 1.0)
        f = np.where(noise > 0, signal / noise, np.where(signal > 0, inf, 0.0))
        p = np.where(noise > 0, fdtrc(epsilon * df, epsilon * df * (seeds - 1), f), signal == 0)
        share = np.where(total > 0, signal / total, 0.0)
    return FTest(f, df, epsilon, p, share)
