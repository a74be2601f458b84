"""Every form of Hydra's sweep grammar becomes the distribution it means, configurations survive being written as
overrides and read by Hydra again, the grid holds each configuration once, and what cannot be is refused by name."""

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from explore.search.space import Space, parse_space, to_overrides

PARSER = OverridesParser.create()
VARIANTS = {"mixing": "choice(mlp, attention)", "mixing.heads": "choice(1, 2)", "depth": "range(2, 5)"}


def applies(key: str, values: Mapping[str, Any]) -> bool:
    return key != "mixing.heads" or values["mixing"] == "attention"


def read(override: str) -> Any:
    value = PARSER.parse_override(override).value()
    return value.text if isinstance(value, QuotedString) else value


@pytest.mark.parametrize(
    ("sweep", "distribution"),
    [
        ("choice(2, 4, 7)", CategoricalDistribution((2, 4, 7))),
        ("2, 4, 7", CategoricalDistribution((2, 4, 7))),
        ("choice(mlp)", CategoricalDistribution(("mlp",))),
        ("choice('1', 2)", CategoricalDistribution(("1", 2))),
        ("choice(true, false)", CategoricalDistribution((True, False))),
        ("choice('a b', 'it\\'s')", CategoricalDistribution(("a b", "it's"))),
        ("str(choice(1, 2))", CategoricalDistribution(("1", "2"))),
        ("sort(choice(3, 1, 2))", CategoricalDistribution((1, 2, 3))),
        ("range(5)", IntDistribution(0, 4)),
        ("range(2, 13)", IntDistribution(2, 12)),
        ("range(1, 10, 3)", IntDistribution(1, 7, step=3)),
        ("range(10, 2, -3)", IntDistribution(4, 10, step=3)),
        ("range(0, 1000000000)", IntDistribution(0, 999999999)),
        ("tag(log, range(1, 9))", IntDistribution(1, 8, log=True)),
        ("range(0.5, 2, 0.5)", CategoricalDistribution((0.5, 1.0, 1.5))),
        ("float(range(1, 3))", CategoricalDistribution((1.0, 2.0))),
        ("interval(1, 5)", FloatDistribution(1, 5)),
        ("tag(log, interval(1e-4, 1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("int(interval(1, 5))", IntDistribution(1, 5)),
        ("int(tag(log, interval(1, 64)))", IntDistribution(1, 64, log=True)),
    ],
)
def test_every_form_of_the_grammar(sweep: str, distribution: optuna.distributions.BaseDistribution) -> None:
    assert parse_space({"model.depth": sweep}).dimensions == {"model.depth": distribution}


def test_a_shuffled_choice_is_the_same_dimension_for_every_worker() -> None:
    spaces = [parse_space({"width": "shuffle(choice(1, 2, 3, 4, 5, 6))"}).dimensions for _ in range(5)]
    assert all(space == {"width": CategoricalDistribution((1, 2, 3, 4, 5, 6))} for space in spaces)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("4", "depth must be a sweep such as choice(2, 4), range(2, 13), interval(0.1, 0.3)"),
        ("4", "got '4'; for one value write '~space.depth' depth=4"),
        ("", "got ''; for one value write '~space.depth' depth="),
        ("choice(a", "depth must be a sweep such as"),
        ("glob(*)", "depth must be a sweep such as"),
        ("choice(1, 2, 1)", "choices of depth must differ, got [1, 2, 1]"),
        ("choice([1, 2], 3)", "choices of depth must be words, numbers, true or false, got [1, 2]"),
        ("tag(log, choice(1, 2))", "choices of depth have no scale and take no tags, got log"),
        ("range(3, 3)", "depth must be a range with at least one value, got range(3, 3)"),
        ("range(1, 4, 0)", "depth must be a range with at least one value, got range(1, 4, 0)"),
        ("tag(log, range(0, 4))", "depth must be a range of integers above 0 in steps of 1 on a log scale"),
        ("tag(log, range(1, 9, 2))", "depth must be a range of integers above 0 in steps of 1 on a log scale"),
        ("tag(log, range(0.5, 2))", "depth must be a range of integers above 0 in steps of 1 on a log scale"),
        ("tag(lin, range(1, 4))", "tags of depth must be among log, got lin"),
        ("interval(2, 1)", "depth must be an interval(low, high) with low < high, got interval(2, 1)"),
        ("interval(1, inf)", "depth must be an interval(low, high) with low < high, got interval(1, inf)"),
        ("tag(log, interval(0, 1))", "depth must begin above 0 on a log scale, got tag(log, interval(0, 1))"),
        ("tag(lin, interval(0, 1))", "tags of depth must be among log, got lin"),
    ],
)
def test_what_is_no_dimension_is_refused(sweep: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_space({"depth": sweep})


def test_a_space_must_have_a_dimension() -> None:
    with pytest.raises(ValueError, match="space must have at least one dimension, got none; add one such as"):
        parse_space({})


scalars = (
    st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=12)
)


@given(scalars)
@example("1").via("a word that looks like a number")
@example("True").via("a word with another meaning")
@example("null")
@example("1e3")
@example("-1")
@example("a\\'")
@example("\\")
@example("${a}")
@example(1e-5)
@example(1e16)
def test_hydra_reads_back_what_was_written(value: Any) -> None:
    [override] = to_overrides({"key": value})
    back = read(override)
    assert back == value
    assert type(back) is type(value)


def test_overrides_read_well_where_no_quotes_are_needed() -> None:
    values = {"mixing": "mlp", "path": "a/b-c.d", "on": True, "depth": 4, "lr": 0.001}
    assert to_overrides(values) == ["mixing=mlp", "path=a/b-c.d", "on=true", "depth=4", "lr=0.001"]


@given(st.lists(st.integers(-50, 50) | st.text("ab'\\ ,1", max_size=4), min_size=1, max_size=5, unique=True))
def test_choices_written_by_hydras_rules_are_read_as_they_were(choices: list[int | str]) -> None:
    sweep = ", ".join(override.removeprefix("x=") for choice in choices for override in to_overrides({"x": choice}))
    assert parse_space({"x": f"choice({sweep})"}).dimensions["x"] == CategoricalDistribution(choices)


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-5, 5).filter(bool))
def test_a_range_has_the_values_of_pythons(start: int, stop: int, step: int) -> None:
    expected = sorted(range(start, stop, step))
    if not expected:
        with pytest.raises(ValueError, match="at least one value"):
            parse_space({"x": f"range({start}, {stop}, {step})"})
        return
    space = parse_space({"x": f"range({start}, {stop}, {step})"})
    assert [values["x"] for values in space.grid()] == expected
    assert space.size == len(expected)


def test_the_grid_is_complete_and_without_repeats() -> None:
    found = [tuple(sorted(values.items())) for values in parse_space(VARIANTS, applies).grid()]
    mlp = [(("depth", depth), ("mixing", "mlp")) for depth in (2, 3, 4)]
    attention = [
        (("depth", depth), ("mixing", "attention"), ("mixing.heads", heads))
        for depth, heads in itertools.product((2, 3, 4), (1, 2))
    ]
    assert sorted(found) == sorted(mlp + attention)


def test_an_interval_has_no_grid() -> None:
    space = parse_space({"lr": "interval(0, 1)", "depth": "range(3)"})
    assert space.size == math.inf
    with pytest.raises(
        ValueError, match=r"sampler=grid and paired need choices or ranges, got an interval for lr; write choice"
    ):
        list(space.grid())


def test_variants_come_before_their_options_whatever_the_order_in_the_file() -> None:
    space = parse_space(dict(reversed(VARIANTS.items())), applies)
    assert list(space.dimensions).index("mixing") < list(space.dimensions).index("mixing.heads")


def test_a_dimension_that_the_variant_does_not_have_is_not_sampled() -> None:
    space = parse_space(VARIANTS, applies)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        values = space.sample(study.ask())
        assert ("mixing.heads" in values) == (values["mixing"] == "attention")
        assert set(space.distributions(values)) == set(values)
        seen.add(values["mixing"])
    assert seen == {"mlp", "attention"}


def test_sampled_values_are_in_their_distribution_and_plain() -> None:
    sweeps = {"a": "range(2, 9, 3)", "b": "tag(log, interval(0.1, 1))", "c": "int(interval(1, 3))", "d": "choice(x, y)"}
    space = parse_space(sweeps)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        values = space.sample(study.ask())
        assert values["a"] in (2, 5, 8)
        assert 0.1 <= values["b"] <= 1
        assert values["c"] in (1, 2, 3)
        assert values["d"] in ("x", "y")
        assert [type(value) for value in values.values()] == [int, float, int, str]


def test_examples_have_every_choice_and_both_ends() -> None:
    space: Space = parse_space(
        {"mixing": "choice(mlp, pooling)", "depth": "range(2, 9, 2)", "lr": "interval(0.1, 0.2)"}
    )
    assert list(space.examples()) == [
        ("mixing", {"mixing": "mlp"}),
        ("mixing", {"mixing": "pooling"}),
        ("depth", {"depth": 2}),
        ("depth", {"depth": 8}),
        ("lr", {"lr": 0.1}),
        ("lr", {"lr": 0.2}),
    ]
