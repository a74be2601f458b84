"""The search space: dimensions in Hydra's override grammar, sampled with Optuna.

People write what they would type behind a command, with a sweep in place of the value:

    model.patch_size: choice(2, 4, 7)
    model.depth: range(2, 13)
    training.lr: tag(log, interval(1e-4, 1e-2))
    token_mixing: choice(mlp, attention)
    token_mixing.heads: choice(1, 2, 4)

A dimension that the chosen variant does not have (`token_mixing.heads` of `token_mixing=mlp`) is not sampled.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from explore.search.trial import Proposal

Values = dict[str, Any]
Applies = Callable[[str, Mapping[str, Any]], bool]
# What Hydra reads as text without quotes; the grammar has other meanings for some words, and for what may be a number.
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = {"true", "false", "null", "nan", "inf"}
_EXAMPLES = "choice(2, 4), range(2, 13), interval(0.1, 0.3) or tag(log, interval(1e-4, 1e-2))"


@dataclass(frozen=True)
class Space:
    """Dimensions by their config key, in the order in which they are sampled.

    `applies(key, values)` says whether a dimension exists, given the values chosen before it: that of its owner, which
    is `token_mixing` of `token_mixing.heads`, decides.
    """

    dimensions: Mapping[str, BaseDistribution]
    applies: Applies = lambda key, values: True

    def sample(self, trial: optuna.Trial) -> Values:
        """Ask the trial's sampler for a value of every dimension that applies."""
        values: Values = {}
        for key, distribution in self.dimensions.items():
            if self.applies(key, values):
                values[key] = _suggest(trial, key, distribution)
        return values

    def draw(self, generator: np.random.Generator, keep: Sequence[Mapping[str, Any]]) -> list[Values]:
        """Configurations at random, without a sampler: each keeps the values of one of `keep` as far as it has them."""
        drawn: list[Values] = [{} for _ in keep]
        for key, distribution in self.dimensions.items():
            owner, exists = key.partition(".")[0], dict[Any, bool]()
            for values, kept, value in zip(drawn, keep, _drawn(generator, distribution, len(keep)), strict=True):
                variant = values.get(owner)
                if variant not in exists:
                    exists[variant] = self.applies(key, values)
                if exists[variant]:
                    values[key] = kept.get(key, value)
        return drawn

    def nearest(self, wanted: Mapping[str, Any]) -> Values:
        """The configuration nearest to wanted values: numbers move to the nearest one that is allowed, names stay.

        Among choices of numbers above 0 the nearest is that by ratio. None in place of a number, which leaves it to a
        rule, gives one in the middle. Raises ValueError for a name that is no choice and for a dimension of which
        nothing is wanted.
        """
        values: Values = {}
        for key, distribution in self.dimensions.items():
            if self.applies(key, values):
                if key not in wanted:
                    raise ValueError(f"{key} must be given, got nothing; it is a dimension of the space")
                values[key] = _nearest(key, distribution, wanted[key])
        return values

    def distributions(self, values: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions that belong to a configuration."""
        return {key: self.dimensions[key] for key in values}

    def proposal(
        self, values: Mapping[str, Any], *, sampler_state: Mapping[str, Any] = MappingProxyType({}), origin: str = ""
    ) -> Proposal:
        """A configuration of this space as one to be evaluated; see `Proposal`."""
        return Proposal(
            values=values,
            distributions=self.distributions(values),
            overrides=to_overrides(values),
            sampler_state=sampler_state,
            origin=origin,
        )

    @property
    def size(self) -> float:
        """How many configurations there are at most; infinite with an interval."""
        return math.prod(map(_count, self.dimensions.values()))

    def grid(self) -> Iterator[Values]:
        """Every configuration once; raises ValueError where an interval has no grid."""
        axes = {key: _grid_values(key, distribution) for key, distribution in self.dimensions.items()}
        seen = set()
        for combination in itertools.product(*axes.values()):
            values: Values = {}
            for key, value in zip(axes, combination, strict=True):
                if self.applies(key, values):
                    values[key] = value
            identity = tuple(values.items())
            if identity not in seen:
                seen.add(identity)
                yield values

    def examples(self) -> Iterator[tuple[str, Values]]:
        """For every value of every choice, and for both ends of the rest: the key, and a configuration that has it.

        Whoever checks these before the search knows that each dimension exists and takes values of this type.
        """
        for key, distribution in self.dimensions.items():
            for value in _corner_values(distribution):
                yield key, {key: value}


def parse_space(space: Mapping[str, str], applies: Applies = lambda key, values: True) -> Space:
    """Read `key: sweep` pairs; raises ValueError that names the dimension and shows what is possible.

    Variants are sampled before the options that belong to them, whatever their order in the file.
    """
    if not space:
        raise ValueError(f"space must have at least one dimension, got none; add one such as model.depth: {_EXAMPLES}")
    keys = sorted(space, key=lambda key: key.count("."))
    return Space({key: _distribution(key, str(space[key])) for key in keys}, applies)


def to_overrides(values: Mapping[str, Any]) -> list[str]:
    """Write a configuration as overrides, variants first: `["token_mixing=mlp", "model.depth=4"]`."""
    return [f"{key}={_spell(value)}" for key, value in values.items()]


def _distribution(key: str, sweep: str) -> BaseDistribution:
    try:
        override = OverridesParser.create().parse_override(f"{key}={sweep}")
    except HydraException as error:
        raise ValueError(f"{key} must be a sweep such as {_EXAMPLES}, got {sweep!r}") from error
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return _categorical(key, value)
    if isinstance(value, RangeSweep):
        return _range(key, sweep, value)
    if isinstance(value, IntervalSweep):
        return _interval(key, sweep, value)
    raise ValueError(
        f"{key} must be a sweep such as {_EXAMPLES}, got {sweep!r}; for one value write '~space.{key}' {key}={sweep}"
    )


def _categorical(key: str, value: ChoiceSweep) -> BaseDistribution:
    if value.tags:
        raise ValueError(f"choices of {key} have no scale and take no tags, got {', '.join(sorted(value.tags))}")
    # In the order written even after shuffle(...): every worker must read the same dimension.
    choices = [_plain(key, choice) for choice in value.list]
    if len(set(choices)) < len(choices):
        raise ValueError(f"choices of {key} must differ, got {choices}")
    return CategoricalDistribution(choices)


def _range(key: str, sweep: str, value: RangeSweep) -> BaseDistribution:
    """`range(2, 13)` ends before 13, as Hydra's does."""
    logarithmic = _logarithmic(key, value)
    points: Sequence[int] | list[float] = [] if value.step == 0 else _points(value)
    if not points:
        raise ValueError(f"{key} must be a range with at least one value, got {sweep}")
    low, high, step = min(points[0], points[-1]), max(points[0], points[-1]), abs(value.step)
    if logarithmic and (low <= 0 or step != 1 or not isinstance(points, range)):
        raise ValueError(f"{key} must be a range of integers above 0 in steps of 1 on a log scale, got {sweep}")
    if isinstance(points, range):
        return IntDistribution(int(low), int(high), step=int(step), log=logarithmic)
    return CategoricalDistribution(points)


def _points(value: RangeSweep) -> Sequence[int] | list[float]:
    points = value.range()
    return points if isinstance(points, range) else [float(point) for point in points]


def _interval(key: str, sweep: str, value: IntervalSweep) -> BaseDistribution:
    """Real numbers; integers, both ends included, when it was written as `int(interval(1, 8))`."""
    low, high = value.start, value.end
    if low is None or high is None or not -math.inf < low < high < math.inf:
        raise ValueError(f"{key} must be an interval(low, high) with low < high, got {sweep}")
    logarithmic = _logarithmic(key, value)
    if logarithmic and low <= 0:
        raise ValueError(f"{key} must begin above 0 on a log scale, got {sweep}")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=logarithmic)
    return FloatDistribution(float(low), float(high), log=logarithmic)


def _logarithmic(key: str, value: RangeSweep | IntervalSweep) -> bool:
    if unknown := value.tags - {"log"}:
        raise ValueError(f"tags of {key} must be among log, got {', '.join(sorted(unknown))}")
    return "log" in value.tags


def _suggest(trial: optuna.Trial, key: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(key, choices)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(key, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(key, low, high, log=log)
    raise TypeError(f"no way to sample {distribution}")


def _drawn(generator: np.random.Generator, distribution: BaseDistribution, count: int) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return [distribution.choices[place] for place in generator.integers(len(distribution.choices), size=count)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        found = np.exp(generator.uniform(math.log(low - half), math.log(high + half), count))
        found = found.round().astype(int) if half else found.clip(low, high)
    elif isinstance(distribution, FloatDistribution):
        found = generator.uniform(low, high, count)
    else:
        found = distribution.low + distribution.step * generator.integers(int(_count(distribution)), size=count)
    drawn: list[Any] = found.tolist()
    return drawn


def _nearest(key: str, distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        choices: list[Any] = list(distribution.choices)
        for choice in choices:
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        if value is None and all(map(is_number, choices)):
            return sorted(choices)[len(choices) // 2]
        if not is_number(value) or not all(map(is_number, choices)):
            raise ValueError(f"{key} must be one of {', '.join(map(str, choices))}, got {value}")
        factors = min(*choices, value) > 0
        return min(choices, key=lambda choice: abs(math.log(choice / value)) if factors else abs(choice - value))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if value is None:
        value = (distribution.low + distribution.high) / 2
    if not is_number(value):
        raise ValueError(f"{key} must be a number, got {value}")
    inside = min(max(value, distribution.low), distribution.high)
    if isinstance(distribution, FloatDistribution):
        return float(inside)
    return distribution.low + distribution.step * round((inside - distribution.low) / distribution.step)


def is_number(value: Any) -> bool:
    """Whether it has a size, unlike names and true and false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _grid_values(key: str, distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    raise ValueError(
        f"sampler=grid and paired need choices or ranges, got an interval for {key}; write choice(...) instead"
    )


def _count(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return len(range(distribution.low, distribution.high + 1, distribution.step))
    return math.inf


def _corner_values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def _plain(key: str, choice: Any) -> str | int | float | bool:
    if isinstance(choice, QuotedString):
        return choice.text
    if isinstance(choice, str | int | float | bool):
        return choice
    raise ValueError(f"choices of {key} must be words, numbers, true or false, got {choice!r}")


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and (not _WORD.fullmatch(value) or value.lower() in _RESERVED):
        return QuotedString(value, Quote.single).with_quotes()
    return repr(value) if isinstance(value, float) else str(value)
