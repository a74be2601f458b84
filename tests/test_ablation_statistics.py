"""What is said of the seeds is what scipy, statsmodels and a textbook say, and what must not matter does not."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.multitest import multipletests

from explore.ablation.records import Difference, Findings, Scores
from explore.ablation.statistics import analyse, bootstrap_intervals, effects, hedges, holm, subsets

LOOKS = (5, 8, 12, 20)
MIXINGS = {"token_mixing": ("mlp", "s2", "pooling"), "channel_mixing": ("mlp", "swiglu")}
THREE = {"token_mixing": ("mlp", "s2"), "model.depth": (1, 2, 4), "norm": ("layer", "none")}
# Howell (2013), "Statistical Methods for Psychology", table 14.3: hours of migraine of nine people in five weeks.
MIGRAINE = [
    [21, 22, 8, 6, 6],
    [20, 19, 10, 4, 4],
    [17, 15, 5, 4, 5],
    [25, 30, 13, 12, 17],
    [30, 27, 13, 8, 6],
    [19, 27, 8, 7, 4],
    [26, 16, 5, 2, 5],
    [17, 18, 8, 1, 5],
    [26, 24, 14, 8, 9],
]


def scores(factors: dict[str, Sequence[Any]], values: Any) -> Scores:
    """All combinations of levels, a column each, the last factor fastest."""
    arms = {" + ".join(map(str, one)): dict(zip(factors, one, strict=True)) for one in product(*factors.values())}
    return Scores(factors=factors, arms=arms, accuracies=pd.DataFrame(np.asarray(values), columns=list(arms)))


def drawn(factors: dict[str, Sequence[Any]], seeds: int, seed: int = 0) -> Scores:
    arms = int(np.prod([len(levels) for levels in factors.values()]))
    random = np.random.default_rng(seed)
    return scores(factors, 0.9 + 0.01 * random.normal(size=(seeds, arms)) + 0.02 * random.normal(size=(seeds, 1)))


def found(of: Scores, margin: float = 0.005) -> Findings:
    return analyse(of, looks=LOOKS, error=0.05, margin=margin)


def test_a_difference_is_that_of_pairs_averaged_over_the_other_factors() -> None:
    given_ = drawn(MIXINGS, 8)
    table = given_.accuracies
    findings = found(given_)
    assert [(one.of, one.name, one.against) for one in findings.levels] == [
        ("token_mixing", "s2", "mlp"),
        ("token_mixing", "pooling", "mlp"),
        ("channel_mixing", "swiglu", "mlp"),
    ]
    s2 = table[["s2 + mlp", "s2 + swiglu"]].mean(axis=1)
    mlp = table[["mlp + mlp", "mlp + swiglu"]].mean(axis=1)
    test = stats.ttest_rel(s2, mlp)
    [one, *_] = findings.levels
    assert (one.mean, one.p, one.seeds) == pytest.approx((float((s2 - mlp).mean()), test.pvalue, 8))
    assert (one.low, one.high) == pytest.approx(tuple(test.confidence_interval(1 - findings.level)))


def test_arms_are_held_against_the_first() -> None:
    given_ = drawn(MIXINGS, 5)
    table = given_.accuracies
    tests = {name: stats.ttest_rel(table[name], table["mlp + mlp"]).pvalue for name in list(given_.arms)[1:]}
    findings = found(given_)
    assert {one.name: one.p for one in findings.arms} == pytest.approx(tests)
    assert [one.p_holm for one in findings.arms] == pytest.approx(multipletests(list(tests.values()), method="holm")[1])
    assert {(one.of, one.against) for one in findings.arms} == {("arm", "mlp + mlp")}


def test_the_correction_is_that_of_holm() -> None:
    """The smallest is multiplied by their number, the next by one less, and none falls below one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([[0.6, 0.7], [0.01, 0.04]]) == pytest.approx(np.array([[1, 1], [0.02, 0.04]]))
    ps = np.random.default_rng(0).uniform(size=12) ** 3
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_the_standardised_difference_has_the_correction_of_hedges() -> None:
    differences = np.array([0.01, 0.02, 0.04, -0.01, 0.03])
    # Hedges (1981), table 1: c(4) = 0.7979
    assert hedges(differences) == pytest.approx(0.7979 * differences.mean() / differences.std(ddof=1), rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    differences=st.lists(st.floats(-1, 1), min_size=2, max_size=8, unique=True),
    middle=st.floats(-1, 1),
    level=st.sampled_from([0.0008, 0.05, 0.3]),
)
def test_a_bootstrap_interval_is_what_a_test_by_signs_does_not_exclude(
    differences: list[float], middle: float, level: float
) -> None:
    """Fisher's test: every sign is as likely as the other, so that the sum seen has a rank among those of all signs."""
    values = np.sort(np.round(differences, 3))
    assume(len(set(values)) == len(values))
    signs = np.array(list(product([1, -1], repeat=len(values))))
    sums = signs @ (values - middle)
    assume(abs(sums[1:] - sums[0]).min() > 1e-6)
    extreme = min((sums <= sums[0]).sum(), (sums >= sums[0]).sum())
    [[low, high]] = bootstrap_intervals(values[None], level)
    stated = subsets(len(values), level).level
    assert (low < middle < high) == (2 * extreme / len(signs) > stated)


def test_bootstrap_intervals_are_of_the_level_or_as_near_as_few_seeds_allow() -> None:
    found = {seeds: subsets(seeds, 0.05).level for seeds in (2, 5, 6, 8, 12, 20)}
    assert found == {2: 0.5, 5: 2 / 32, 6: 2 / 64, 8: 12 / 256, 12: 204 / 4096, 20: 0.05}
    assert subsets(8, 0.0025).level == 2 / 256
    assert bootstrap_intervals(np.array([[0.0, 1.0, 2.0, 5.0, 9.0]]), 0.0008).tolist() == [[0.0, 9.0]]
    assert found_of(8).bootstrap_level == 2 / 256
    assert found_of(12).bootstrap_level == pytest.approx(found_of(12).level, rel=0.03)


def found_of(seeds: int) -> Findings:
    return found(drawn(MIXINGS, seeds))


@pytest.mark.parametrize("draw", ["uniform", "standard_cauchy"])
@pytest.mark.parametrize("seeds", [5, 8])
def test_bootstrap_intervals_are_exact_whatever_the_distribution(draw: str, seeds: int) -> None:
    values = getattr(np.random.default_rng(4), draw)(size=(2, 3000, seeds))
    ends = bootstrap_intervals(values[0] - values[1], 0.05)
    share = np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
    stated = subsets(seeds, 0.05).level
    assert share == pytest.approx(1 - stated, abs=3.5 * (stated * (1 - stated) / 3000) ** 0.5)


def test_the_bootstrap_agrees_with_t_where_there_are_many_seeds() -> None:
    many = np.random.default_rng(1).normal(size=(1, 200))
    [interval] = bootstrap_intervals(many, 0.05)
    expected = stats.ttest_1samp(many[0], 0).confidence_interval(0.95)
    assert interval == pytest.approx(tuple(expected), abs=0.02)


def test_the_analysis_of_variance_is_that_of_a_textbook() -> None:
    weeks = {"week": range(5)}
    [effect] = effects(scores(weeks, MIGRAINE))
    assert (effect.of, effect.df, effect.df_error) == (("week",), 4, 32)
    assert effect.f == pytest.approx(85.04, abs=0.005)
    assert effect.share == pytest.approx(2449.20 / (2449.20 + 230.40), abs=1e-5)
    assert effect.epsilon == pytest.approx(0.684, abs=0.0005)
    assert effect.p == pytest.approx(stats.f.sf(effect.f, 4 * effect.epsilon, 32 * effect.epsilon))


@pytest.mark.parametrize("factors", [MIXINGS, THREE])
def test_effects_are_those_of_statsmodels(factors: dict[str, Sequence[Any]]) -> None:
    given_ = drawn(factors, 6)
    letters = dict(zip(factors, "abc", strict=False))
    rows = [
        {"seed": seed, "accuracy": row[arm], **{letters[key]: str(level) for key, level in levels.items()}}
        for seed, row in given_.accuracies.iterrows()
        for arm, levels in given_.arms.items()
    ]
    table = AnovaRM(pd.DataFrame(rows), "accuracy", "seed", within=list(letters.values())).fit().anova_table
    ours = effects(given_)
    assert {":".join(letters[key] for key in one.of): one.f for one in ours} == pytest.approx(dict(table["F Value"]))
    assert [one.df for one in ours] == table["Num DF"].tolist()
    assert [one.df_error for one in ours] == table["Den DF"].tolist()


def test_epsilon_is_that_of_the_covariance_centred_twice() -> None:
    """Box (1954), "Some theorems on quadratic forms applied in the study of analysis of variance problems, II"."""
    covariance = np.cov(np.array(MIGRAINE), rowvar=False)
    k = len(covariance)
    centred = covariance - covariance.mean(0) - covariance.mean(1)[:, None] + covariance.mean()
    [effect] = effects(scores({"week": range(5)}, MIGRAINE))
    assert effect.epsilon == pytest.approx(np.trace(centred) ** 2 / ((k - 1) * (centred**2).sum()))


@settings(max_examples=6, deadline=None)
@given(data=st.data(), seeds=st.sampled_from([5, 8]))
def test_the_order_of_seeds_does_not_matter_and_neither_does_what_they_share(data: st.DataObject, seeds: int) -> None:
    given_ = drawn(MIXINGS, seeds, seed=data.draw(st.integers(0, 1000)))
    before = found(given_)
    order = data.draw(st.permutations(range(seeds)))
    shift = np.array(data.draw(st.lists(st.floats(-0.5, 0.5), min_size=seeds, max_size=seeds)))
    table = given_.accuracies.iloc[list(order)].add(shift, axis=0)
    after = found(Scores(factors=given_.factors, arms=given_.arms, accuracies=table))
    for one, other in zip((*before.levels, *before.arms), (*after.levels, *after.arms), strict=True):
        assert _numbers(other) == pytest.approx(_numbers(one), abs=1e-9)
    assert [one.f for one in after.effects] == pytest.approx([one.f for one in before.effects])
    assert [one.epsilon for one in after.effects] == pytest.approx([one.epsilon for one in before.effects])


def _numbers(one: Difference) -> list[float]:
    return [one.mean, one.low, one.high, one.bootstrap_low, one.bootstrap_high, one.effect, one.p, one.p_holm]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), seeds=st.sampled_from([2, 5, 20]), gap=st.floats(-0.05, 0.05))
def test_what_is_told_is_outside_of_its_interval_and_what_is_negligible_inside_the_margin(
    seed: int, seeds: int, gap: float
) -> None:
    given_ = drawn(MIXINGS, seeds, seed)
    given_.accuracies["s2 + mlp"] += gap
    findings = found(given_, margin=0.005)
    for one in (*findings.levels, *findings.arms):
        assert one.low <= one.mean <= one.high
        assert one.bootstrap_low <= one.mean + 1e-12
        assert one.mean - 1e-12 <= one.bootstrap_high
        assert one.p <= one.p_holm
        assert not one.different or one.low > 0 or one.high < 0
        assert one.negligible == (max(abs(one.low), abs(one.high)) < 0.005)
    assert findings.settled == all(one.different or one.negligible for one in findings.levels)


def test_a_real_difference_is_told_and_none_is_negligible_with_enough_seeds() -> None:
    random = np.random.default_rng(3)
    given_ = scores(MIXINGS, 0.9 + 0.002 * random.normal(size=(20, 6)))
    given_.accuracies[["s2 + mlp", "s2 + swiglu"]] += 0.02
    findings = found(given_)
    assert [one.different for one in findings.levels] == [True, False, False]
    assert [one.negligible for one in findings.levels] == [False, True, True]
    assert findings.settled
    assert [one.p < 0.001 for one in findings.effects] == [True, False, False]


def test_an_interaction_is_told() -> None:
    given_ = drawn(MIXINGS, 12)
    given_.accuracies["s2 + swiglu"] += 0.05
    interaction = found(given_).effects[-1]
    assert interaction.of == ("token_mixing", "channel_mixing")
    assert interaction.p < 0.001


@pytest.mark.parametrize("seeds", [2, 5, 20])
def test_arms_that_are_identical_do_not_differ(seeds: int) -> None:
    one = np.linspace(0.81, 0.97, seeds)[:, None] + np.zeros(6)
    findings = found(scores(MIXINGS, one))
    for difference in (*findings.levels, *findings.arms):
        assert _numbers(difference) == [0, 0, 0, 0, 0, 0, 1, 1]
        assert difference.negligible
        assert not difference.different
    assert [(effect.f, effect.p, effect.share, effect.epsilon) for effect in findings.effects] == [(0, 1, 0, 1)] * 3
    assert findings.settled


def test_a_difference_without_any_spread_is_sure() -> None:
    values = np.linspace(0.81, 0.97, 5)[:, None] - np.array([0.0, 0.01])
    [one] = found(scores({"channel_mixing": ("mlp", "swiglu")}, values)).levels
    assert _numbers(one) == pytest.approx([-0.01, -0.01, -0.01, -0.01, -0.01, -np.inf, 0, 0])
    assert one.different
    [effect] = effects(scores({"channel_mixing": ("mlp", "swiglu")}, values))
    assert (effect.f, effect.p, effect.share) == (np.inf, 0, 1)


def test_with_one_factor_of_two_levels_all_tests_are_the_same() -> None:
    findings = found(drawn({"channel_mixing": ("mlp", "swiglu")}, 5))
    [level], [arm], [effect] = findings.levels, findings.arms, findings.effects
    assert _numbers(level) == _numbers(arm)
    assert (effect.p, effect.epsilon, effect.df_error) == (pytest.approx(level.p), 1.0, 4)


def test_factors_that_are_not_crossed_are_compared_where_the_rest_is_equal() -> None:
    given_ = drawn(MIXINGS, 5)
    kept = {name: levels for name, levels in given_.arms.items() if name not in ("mlp + swiglu", "pooling + mlp")}
    findings = found(Scores(factors=MIXINGS, arms=kept, accuracies=given_.accuracies[list(kept)]))
    assert findings.effects == []
    means = {(one.of, one.name): one.mean for one in findings.levels}
    table = given_.accuracies.mean()
    assert means == pytest.approx(
        {
            ("token_mixing", "s2"): table["s2 + mlp"] - table["mlp + mlp"],
            ("channel_mixing", "swiglu"): table["s2 + swiglu"] - table["s2 + mlp"],
        }
    ), "nothing is equal to pooling + swiglu but for its token mixing"


def test_the_level_is_that_of_the_look() -> None:
    seven, eight = found(drawn(MIXINGS, 7)), found(drawn(MIXINGS, 8))
    assert seven.level < eight.level < 0.05
    assert (seven.seeds, seven.looks) == (7, LOOKS)


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 seeds, got 1: one seed has no spread"):
        found(drawn(MIXINGS, 1))
