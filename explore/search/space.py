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
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Values = dict[str, Any]
Applies = Callable[[str, Mapping[str, Any]], bool]
_EXAMPLES = "choice(2, 4), range(2, 13), interval(0.1, 0.3) or tag(log, interval(1e-4, 1e-2))"


@dataclass(frozen=True)
class Space:
    """Dimensions by their config key, in the order in which they are sampled.

    `applies(key, values)` says whether a dimension exists, given the values chosen before it.
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

    def distributions(self, values: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions that belong to a configuration."""
        return {key: self.dimensions[key] for key in values}

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
        return _categorical(key, override)
    if isinstance(value, RangeSweep):
        return _range(key, sweep, value)
    if isinstance(value, IntervalSweep):
        return _interval(key, sweep, value)
    raise ValueError(f"{key} must be a sweep such as {_EXAMPLES}, got {sweep!r}; a fixed value belongs outside space")


def _categorical(key: str, override: Override) -> BaseDistribution:
    choices = [_plain(choice) for choice in override.sweep_iterator(transformer=lambda element: element)]
    if len(set(choices)) < len(choices):
        raise ValueError(f"choices of {key} must differ, got {choices}")
    return CategoricalDistribution(choices)


def _range(key: str, sweep: str, value: RangeSweep) -> BaseDistribution:
    """`range(2, 13)` ends before 13, as Hydra's does."""
    points = list(value.range())
    if not points:
        raise ValueError(f"{key} must be a range with at least one value, got {sweep}")
    if isinstance(points[0], int):
        step = abs(points[1] - points[0]) if len(points) > 1 else 1
        return IntDistribution(min(points), max(points), step=step, log=_logarithmic(key, value) and step == 1)
    return CategoricalDistribution([float(point) for point in points])


def _interval(key: str, sweep: str, value: IntervalSweep) -> BaseDistribution:
    if value.start is None or value.end is None or not value.start < value.end:
        raise ValueError(f"{key} must be an interval(low, high) with low < high, got {sweep}")
    logarithmic = _logarithmic(key, value)
    if logarithmic and value.start <= 0:
        raise ValueError(f"{key} must begin above 0 on a log scale, got {sweep}")
    return FloatDistribution(float(value.start), float(value.end), log=logarithmic)


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


def _grid_values(key: str, distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    raise ValueError(f"sampler=grid needs choices or ranges, got an interval for {key}; write choice(...) instead")


def _corner_values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def _plain(choice: Any) -> str | int | float | bool:
    if isinstance(choice, QuotedString):
        return choice.text
    if isinstance(choice, str | int | float | bool):
        return choice
    raise ValueError(f"choices must be words, numbers, true or false, got {choice!r}")


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value):
        return "'" + value.replace("'", "\\'") + "'"
    return repr(value) if isinstance(value, float) else str(value)
