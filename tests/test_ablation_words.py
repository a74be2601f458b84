"""What is said of an ablation is what was found: nobody wins whose interval contains zero, and every sentence says how
sure it is, with how many seeds, and what was matched."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explore.ablation.options import MATCHES
from explore.ablation.records import Difference, Effect, Findings
from explore.ablation.words import MATCHED, coverage, sentences

TOKEN, CHANNEL = "token_mixing", "channel_mixing"


def difference(
    name: str, mean: float, half: float, *, of: str = TOKEN, against: str = "mlp", p_holm: float | None = None
) -> Difference:
    low, high = mean - half, mean + half
    p = (0.0001 if low > 0 or high < 0 else 0.5) if p_holm is None else p_holm
    return Difference(
        of=of,
        name=name,
        against=against,
        mean=mean,
        low=low,
        high=high,
        bootstrap_low=low,
        bootstrap_high=high,
        effect=1.0,
        p=p,
        p_holm=p,
        seeds=8,
        different=p < 0.05,
        negligible=low > -0.005 and high < 0.005,
    )


def effect(*of: str, p: float) -> Effect:
    return Effect(of=of, f=4.2, df=2, df_error=14, epsilon=0.75, p=p, share=0.4)


NONE = (effect(TOKEN, p=0.5), effect(CHANNEL, p=0.5), effect(TOKEN, CHANNEL, p=0.5))


def said(
    *levels: Difference, level: float = 0.05, effects: tuple[Effect, ...] = NONE, margin: float = 0.005
) -> list[str]:
    arms = (difference("s2 + mlp", 0.02, 0.01, of="arm", against="mlp + mlp"),)
    findings = Findings(
        level=level, bootstrap_level=level, looks=(8,), seeds=8, levels=levels, arms=arms, effects=effects
    )
    return sentences(findings, matched="macs", margin=margin)


def test_what_was_promised() -> None:
    s2 = difference("s2", 0.013, 0.007)
    swiglu = difference("swiglu", 0.003, 0.006, of=CHANNEL)
    assert said(s2, swiglu) == [
        "token mixing s2 beats mlp by 1.3 points (95 % CI 0.6 to 2.0, 8 seeds, matched MACs)",
        "channel mixing makes no difference that 8 seeds can show "
        "(swiglu against mlp 95 % CI -0.3 to 0.9, 8 seeds, matched MACs)",
        "no interaction that 8 seeds can show",
    ]


def test_whoever_is_better_is_named_first() -> None:
    [line, _] = said(difference("pooling", -0.02, 0.005), level=0.046)
    assert line == "token mixing mlp beats pooling by 2.0 points (95.4 % CI 1.5 to 2.5, 8 seeds, matched MACs)"


def test_what_lies_within_the_margin_is_not_called_better() -> None:
    for mean in (0.001, 0.003):
        [line, _] = said(difference("s2", mean, 0.0015))
        assert line.startswith("token mixing s2 and mlp differ by less than 0.5 points (95 % CI ")
    assert "less than 1 point (" in said(difference("s2", 0.001, 0.002), margin=0.01)[0]


def test_of_a_factor_that_is_known_in_part_each_level_is_said() -> None:
    lines = said(difference("s2", 0.02, 0.01), difference("pooling", 0.0, 0.008))
    assert lines[1] == (
        "token mixing pooling and mlp show no difference that 8 seeds can tell"
        " (95 % CI -0.8 to 0.8, 8 seeds, matched MACs)"
    )


def test_an_interval_that_is_clear_of_zero_without_a_winner_is_explained() -> None:
    unsure = difference("s2", 0.013, 0.007, p_holm=0.08)
    [alone, _] = said(unsure, difference("pooling", 0.0, 0.01))
    assert "8 seeds can show once it is corrected for 2 comparisons (s2" in alone
    [_, beside, _] = said(difference("pooling", 0.03, 0.01), unsure)
    assert "8 seeds can tell once it is corrected for 2 comparisons (95" in beside


def test_arms_speak_where_factors_do_not_tell_all() -> None:
    interacting = (*NONE[:2], effect(TOKEN, CHANNEL, p=0.004))
    lines = said(difference("s2", 0.013, 0.007), effects=interacting)
    assert lines[1:] == [
        "token mixing and channel mixing interact, each is worth more beside some than others"
        " (F(1.5, 10.5) = 4.20, p = 0.004, 8 seeds, matched MACs)",
        "arm s2 + mlp beats mlp + mlp by 2.0 points (95 % CI 1.0 to 3.0, 8 seeds, matched MACs)",
    ]
    assert said(difference("s2", 0.013, 0.007), effects=())[-1].startswith("arm s2 + mlp beats")
    nothing = Findings(
        level=0.05,
        bootstrap_level=0.05,
        looks=(8,),
        seeds=8,
        levels=(),
        arms=(difference("b", 0, 0.01, of="arm", against="a"),),
    )
    assert sentences(nothing, matched="none", margin=0.005) == ["no arm differs from a by what 8 seeds can show"]


def test_one_factor_has_no_interaction_to_speak_of() -> None:
    assert len(said(difference("s2", 0.013, 0.007), effects=NONE[:1])) == 1


def test_everything_that_can_be_matched_has_its_words() -> None:
    assert tuple(MATCHED) == MATCHES


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (0.05, "95 %"),
        (0.046, "95.4 %"),
        (0.00078, "99.92 %"),
        (5e-5, "99.995 %"),
        (6e-6, "99.9994 %"),
        (0.2, "80 %"),
        (0.0000012, "99.9999 %"),
    ],
)
def test_the_level_of_an_interval_is_said_with_few_digits_and_never_as_all(level: float, text: str) -> None:
    assert coverage(level, digits=1) == text


fractions = st.floats(-0.2, 0.2, allow_subnormal=False)


@given(
    means=st.lists(st.tuples(fractions, st.floats(0, 0.2), st.floats(0, 1)), min_size=1, max_size=4),
    level=st.floats(0.0001, 0.2),
    interaction=st.floats(0, 1),
)
def test_nobody_wins_whose_interval_contains_zero(
    means: list[tuple[float, float, float]], level: float, interaction: float
) -> None:
    differences = [
        replace(one, different=p <= level and (one.low > 0 or one.high < 0))
        for number, (mean, half, p) in enumerate(means)
        for one in [difference(f"level{number}", mean, half, p_holm=p)]
    ]
    lines = said(*differences, level=level, effects=(effect(TOKEN, CHANNEL, p=interaction),))
    for line in lines:
        assert ("beats" in line) == bool(re.search(r"beats \S+( \+ \S+)? by \S+ points \(\S+ % CI \S+ to \S+, 8", line))
        if "beats" in line:
            low, high = map(float, re.search(r"CI (\S+) to (\S+),", line).groups())  # type: ignore[union-attr]
            assert 0 < low <= high
        assert "interaction" in line or "no arm" in line or line.endswith("8 seeds, matched MACs)")
    winners = {one.name if one.mean > 0 else one.against for one in differences if one.different and not one.negligible}
    spoken = {line.split(" beats ")[0].removeprefix("token mixing ") for line in lines if line.startswith("token")}
    assert winners == spoken & {*(one.name for one in differences), "mlp"}
