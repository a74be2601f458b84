"""What an ablation asks and what it finds, as plain records: for the tests, the report and the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracies of runs that are compared in pairs of equal seed.

    Args:
        factors: the levels of each factor in the order written; the first of each is what the others are held against.
        arms: the levels of each arm by its name, the first arm is the reference.
        accuracies: a row per seed, a column per arm, as fractions; no value is missing.
    """

    factors: Mapping[str, Sequence[Any]]
    arms: Mapping[str, Mapping[str, Any]]
    accuracies: "pd.DataFrame"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better one level of a factor is than another, or one arm than the reference; accuracies as fractions.

    Args:
        of: the factor; `arm` for whole arms.
        name: the level or arm.
        against: the level or arm that it is compared with.
        mean: mean over the seeds of the paired differences; of a factor, each averaged over the other factors first.
        low: lower end of the interval of the mean by Student's t, at the level of the look.
        high: upper end.
        bootstrap_low: lower end of the bootstrap interval at its level.
        bootstrap_high: upper end.
        effect: standardised mean difference of pairs, with Hedges' correction for few of them.
        p: of the t-test of pairs.
        p_holm: after Holm, for all differences of the same factor, or of all arms.
        seeds: pairs behind it.
        different: whether the corrected test says so at the level of the look.
        negligible: whether the whole interval lies within the margin.
    """

    of: str
    name: str
    against: str
    mean: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    effect: float
    p: float
    p_holm: float
    seeds: int
    different: bool
    negligible: bool


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A line of the analysis of variance with repeated measures: a factor, or an interaction of several.

    `p` is after the correction of Greenhouse and Geisser, by whose `epsilon` both degrees of freedom are multiplied;
    `share` is the partial eta squared.
    """

    of: tuple[str, ...]
    f: float
    df: float
    df_error: float
    epsilon: float
    p: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the seeds so far say.

    Args:
        level: of the tests at this look; the intervals by Student's t are of `1 - level`.
        bootstrap_level: the bootstrap intervals are of `1 - bootstrap_level`, the nearest that so many seeds allow.
        looks: numbers of seeds after which it is looked.
        seeds: number of seeds that were looked at.
        levels: differences of the levels of each factor from its first.
        arms: differences of the arms from the reference.
        effects: main effects and interactions; empty where the factors are not fully crossed.
        settled: whether every difference of levels is told or negligible.
        words: all of it in sentences.
    """

    level: float
    bootstrap_level: float
    looks: Sequence[int]
    seeds: int
    levels: Sequence[Difference]
    arms: Sequence[Difference]
    effects: Sequence[Effect] = ()
    settled: bool = False
    words: Sequence[str] = field(default_factory=tuple)
