"""Arms cost the same: the free dimension is found wherever it exists, and what cannot be matched is refused with the
nearest that can."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explore.ablation.arms import Arm, Solution, arm_name, solve
from explore.config import compose, has_option
from explore.data.dataset import load
from explore.definition import without_operation
from explore.matching import matched_arms
from explore.search.space import parse_space

DIGITS = ["+sweep=ablation", "data=digits", "model.patch_size=2", "model.width=16"]


def solved(cost, start, target, tolerance=0.02, near_enough=0.0, most=40) -> Solution:  # type: ignore[no-untyped-def]
    return solve(cost, start, target, tolerance, near_enough=near_enough, most=most)


def arms(*overrides: str) -> list[Arm]:
    given = [*DIGITS, *overrides]
    config = compose(given)
    space = parse_space(config.space, lambda key, values: has_option(key, values, config))
    return matched_arms(config, without_operation(given), space, load(config.data))


@given(
    power=st.floats(0.5, 3),
    factor=st.floats(0.1, 1e6),
    start=st.integers(1, 500),
    wanted=st.integers(1, 5000),
    step=st.sampled_from([1, 2, 3, 8]),
)
def test_whole_numbers_come_as_near_as_any_can(power: float, factor: float, start: int, wanted: int, step: int) -> None:
    """Rules may allow multiples of some number only."""

    def cost(value: float) -> float:
        if value % step:
            raise ValueError("heads must divide width")
        return factor * value**power

    target = factor * wanted**power
    near = [step * math.floor(wanted / step), step * math.ceil(wanted / step)]
    best = min(abs(cost(value) / target - 1) for value in near if value)
    found = solved(cost, start, target, tolerance=math.inf, most=200)
    assert abs(found.cost / target - 1) == pytest.approx(best)
    assert found.cost == cost(found.value)


@given(start=st.floats(0.25, 8), wanted=st.floats(0.1, 20), width=st.integers(32, 512))
def test_an_expansion_is_found_to_a_hidden_channel(start: float, wanted: float, width: int) -> None:
    def cost(expansion: float) -> float:
        return 1000 + max(1, round(expansion * width))

    found = solved(cost, start, cost(wanted))
    assert abs(found.cost / cost(wanted) - 1) <= 0.02
    assert cost(found.value) == found.cost


def test_what_cannot_be_matched_says_what_can() -> None:
    with pytest.raises(ValueError, match=r"the nearest are 1 \(-50.0%\) and 2 \(\+100.0%\)"):
        solved(lambda depth: 100 * 4 ** (depth - 1), 2, 200)
    with pytest.raises(ValueError, match=r"the nearest is 1 \(\+50.0%\)"):
        solved(lambda depth: 150 + 10 * (depth - 1), 3, 100)
    with pytest.raises(ValueError, match="heads must divide width"):
        solved(_refuses, 3, 100)


def _refuses(value: float) -> float:
    raise ValueError("heads must divide width, got 3")


def test_it_stops_where_it_is_near_enough() -> None:
    asked: list[float] = []

    def cost(value: float) -> float:
        asked.append(value)
        return value**2

    solved(cost, 100, 100.5**2, near_enough=0.05)
    assert asked == [100]


@pytest.mark.parametrize(
    ("levels", "name"),
    [
        ({"token_mixing": "s2", "channel_mixing": "swiglu"}, "s2 + swiglu"),
        ({"token_mixing": "attention", "channel_mixing": "mlp", "token_mixing.heads": 2}, "attention (heads 2) + mlp"),
        ({"model.patch_size": 7, "model.depth": 4}, "patch size 7 + depth 4"),
    ],
)
def test_arms_are_called_as_people_call_them(levels: dict[str, object], name: str) -> None:
    assert arm_name(levels) == name


def test_real_networks_are_matched_by_their_multiply_adds() -> None:
    found = arms("ablation.tolerance=0.01", "model.width=32")
    assert [arm.name for arm in found][:3] == ["mlp + mlp", "mlp + swiglu", "s2 + mlp"]
    assert len(found) == 10
    assert all(abs(arm.residual or 0) <= 0.01 for arm in found)
    assert (found[0].free, found[0].residual) == (4.0, 0)
    assert len({arm.free for arm in found}) > 3


def test_real_networks_are_matched_by_their_parameters() -> None:
    fewer = ["space.token_mixing=choice(mlp, s2)", "space.channel_mixing=choice(mlp)"]
    first, second = arms(*fewer, "ablation.match=params", "ablation.by=model.width", "model.width=64")
    assert (first.free, first.residual) == (64, 0)
    assert isinstance(second.free, int)
    assert 0 < abs(second.residual or 0) <= 0.02


def test_throughput_is_matched_by_measuring() -> None:
    short = ["cost.batch_size=32", "cost.max_seconds=0.2", "ablation.match=throughput", "ablation.by=model.width"]
    two = ["space.token_mixing=choice(mlp, pooling)", "space.channel_mixing=choice(mlp)", "ablation.tolerance=0.3"]
    first, second = arms(*short, *two)
    assert first.residual == 0
    assert abs(second.residual or 1) <= 0.3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["ablation.by=token_mixing.heads"],
            r"must be an option of every arm, got token_mixing.heads, which mlp \+ mlp",
        ),
        (["ablation.by=token_mixing"], "must not be a factor of the ablation, got token_mixing"),
        (["ablation.by=model.norm"], "must be a dimension with a number above 0, got model.norm, which is layer"),
        (
            ["ablation.by=model.layers"],
            "got model.layers, which is nothing that exists; try model.width or model.depth",
        ),
        (["space.training.seed=range(0, 3)"], "space.training.seed cannot be a factor"),
        (["space.token_mixing=choice(mlp)", "space.channel_mixing=choice(mlp)"], "needs at least two arms, got one"),
        (["space.model.patch_size=choice(2, 3)"], r"must pass the rules, got mlp \+ mlp \+ patch size 3: patch_size"),
        (["ablation.by=model.depth"], r"(?s)must have the macs of the first.*\n  s2 \+ mlp: the nearest are"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        arms(*overrides)
