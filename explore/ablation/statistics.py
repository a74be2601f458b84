"""What the seeds of an ablation say: paired differences with their intervals, and the analysis of variance.

Runs of equal seed see the same images in the same order, so that everything is computed from differences within a seed.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from itertools import combinations, product
from math import copysign, inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.special import fdtrc, gammaln, ndtr, stdtr, stdtrit

from explore.ablation.records import Difference, Effect, Findings, Scores
from explore.ablation.seeds import level as level_after
from explore.search.student import half_width

Array = NDArray[np.float64]
ARM = "arm"
_RESAMPLES = 9999
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
        for one in _differences(factor, levels[0], _of_factor(scores, factor, columns), level, margin)
    ]
    reference, *others = scores.arms
    against = {name: columns[name] - columns[reference] for name in others}
    return Findings(
        level=level,
        looks=tuple(looks),
        seeds=seeds,
        levels=told,
        arms=_differences(ARM, reference, against, level, margin),
        effects=effects(scores),
        settled=all(one.different or one.negligible for one in told),
    )


def _of_factor(scores: Scores, factor: str, columns: Mapping[str, Array]) -> dict[Any, Array]:
    """How much better each level is than the first, by seed, averaged over pairs of arms that are equal otherwise.

    A level that has no such pair is left out.
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


def _rest(levels: Mapping[str, Any], factor: str) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((key, value) for key, value in levels.items() if key != factor))


def _differences(of: str, against: Any, rows: Mapping[Any, Array], level: float, margin: float) -> list[Difference]:
    """A family of differences, by name; each has a value per seed."""
    if not rows:
        return []
    # Sorted, so that the same seeds in another order are resampled alike.
    values = np.sort(np.round(list(rows.values()), _DECIMALS), axis=1) + 0.0
    seeds = values.shape[1]
    intervals = bootstrap_intervals(values, level)
    tests = [student(one, level) for one in values]
    corrected = holm([p for _, _, p in tests])
    return [
        Difference(
            of=of,
            name=str(name),
            against=str(against),
            mean=float(one.mean()),
            low=low,
            high=high,
            bootstrap_low=float(bootstrap_low),
            bootstrap_high=float(bootstrap_high),
            effect=hedges(one),
            p=p,
            p_holm=p_holm,
            seeds=seeds,
            different=p_holm <= level,
            negligible=-margin < low and high < margin,
        )
        for name, one, (low, high, p), p_holm, (bootstrap_low, bootstrap_high) in zip(
            rows, values, tests, corrected, intervals, strict=True
        )
    ]


def student(differences: Array, level: float) -> tuple[float, float, float]:
    """Ends of the interval of the mean at `1 - level`, and p of the two-sided test, by Student's t."""
    mean, spread, freedom = float(differences.mean()), _spread(differences), len(differences) - 1
    if not spread:
        return mean, mean, float(mean == 0)
    error = spread / sqrt(len(differences))
    half = float(half_width(spread, len(differences), level))
    return mean - half, mean + half, float(2 * stdtr(freedom, -abs(mean) / error))


def bootstrap_intervals(differences: Array, level: float) -> Array:
    """Ends of the bootstrap intervals of means at `1 - level`, `rows × 2`; `differences` is `rows × seeds`.

    Percentiles of the bootstrap, drawn apart by what they lack with few seeds: Hesterberg (2015), "What teachers should
    know about the bootstrap", on narrowness. They never reach beyond the smallest and the largest difference.
    """
    seeds = differences.shape[1]
    apart = ndtr(sqrt(seeds / (seeds - 1)) * stdtrit(seeds - 1, level / 2))
    ends: Array = np.quantile(differences @ _resampled(seeds).T, [apart, 1 - apart], axis=1)
    return np.round(ends, _DECIMALS).T + 0.0


@lru_cache(maxsize=8)
def _resampled(seeds: int) -> Array:
    """The weight of each seed in the mean of each resample, always the same ones, `resamples × seeds`."""
    random = np.random.default_rng(0)
    return random.multinomial(seeds, np.full(seeds, 1 / seeds), size=_RESAMPLES) / seeds


def hedges(differences: Array) -> float:
    """The mean in units of the standard deviation of the pairs, with the exact correction for few of them.

    Hedges (1981), "Distribution theory for Glass's estimator of effect size and related estimators".
    """
    mean, spread, freedom = float(differences.mean()), _spread(differences), len(differences) - 1
    if not spread:
        return copysign(inf, mean) if mean else 0.0
    correction = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / sqrt(freedom / 2)
    return float(correction * mean / spread)


def _spread(differences: Array) -> float:
    return float(np.round(differences.std(ddof=1), _DECIMALS))


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p values for their number; Holm (1979), "A simple sequentially rejective multiple test procedure".

    That of statsmodels, against which it is tested, would take two seconds of every report to be loaded.
    """
    order = np.argsort(ps)
    stepwise = np.arange(len(ps), 0, -1) * np.asarray(ps, float)[order]
    corrected = np.empty(len(ps))
    corrected[order] = np.minimum(np.maximum.accumulate(stepwise), 1)
    return [float(p) for p in corrected]


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
    """An F test with repeated measures from orthonormal contrasts, a row of values per seed.

    Winer, Brown and Michels (1991), "Statistical principles in experimental design", chapter 7; epsilon: Greenhouse
    and Geisser (1959), "On methods in the analysis of profile data".
    """
    seeds = len(table)
    sides = [helmert(len(levels)).T if name in of else np.ones((len(levels), 1)) for name, levels in factors.items()]
    contrasts = np.round(table @ reduce(np.kron, sides), _DECIMALS)
    df = contrasts.shape[1]
    covariance = np.atleast_2d(np.cov(contrasts, rowvar=False))
    signal, noise = seeds * float((contrasts.mean(axis=0) ** 2).sum()), float(np.trace(covariance))
    if not noise:
        epsilon, f, p = 1.0, (inf if signal else 0.0), float(not signal)
    else:
        epsilon = noise**2 / (df * float((covariance**2).sum()))
        f = signal / noise
        p = float(fdtrc(epsilon * df, epsilon * df * (seeds - 1), f))
    total = signal + noise * (seeds - 1)
    share = signal / total if total else 0.0
    return Effect(of=of, f=f, df=df, df_error=df * (seeds - 1), epsilon=epsilon, p=p, share=share)
