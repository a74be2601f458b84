"""The arms of an ablation, matched: networks are counted on the meta device, or timed beside that of the first arm."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from statistics import median
from typing import Any

import torch

from explore.ablation.arms import Arm, arm_name, solve
from explore.ablation.design import SEED, Design, design_of
from explore.ablation.seeds import looks
from explore.architecture.network import Network
from explore.candidate import Candidate
from explore.comparison import count
from explore.config import has_option, vary
from explore.data.dataset import Dataset
from explore.schema import Config
from explore.search.space import Space, is_number, to_overrides
from explore.search.study import Study
from explore.speeds import time_together

_ALL_HAVE = "try model.width or model.depth, which every arm has"
_COUNTED_AT_MOST, _TIMED_AT_MOST = 40, 12  # values of the free dimension for one arm: a timed one takes seconds


def designed(config: Config, base: Sequence[str], space: Space, dataset: Dataset, study: Study | None) -> Design:
    """The design of an ablation: that of its study where it has begun, because what is timed differs each time.

    Raises ValueError as `matched_arms`.
    """
    asked = config.ablation
    if study and (known := design_of(study)):
        return replace(known, options=replace(known.options, together=asked.together))
    return Design(
        factors=tuple(space.dimensions),
        arms=tuple(matched_arms(config, base, space, dataset)),
        options=asked,
        first_seed=config.training.seed,
        looks=looks(asked.seeds, asked.max_seeds),
    )


def matched_arms(config: Config, base: Sequence[str], space: Space, dataset: Dataset) -> list[Arm]:
    """Every combination of the levels, each at the value of the free dimension that makes it cost what the first does.

    Raises ValueError where a combination breaks a rule, where there is none but the first, and, for all of them at
    once, where costs cannot be made equal within the tolerance, with the nearest that can.
    """
    asked, combinations = config.ablation, list(space.grid())
    if len(combinations) < 2:
        raise ValueError("an ablation needs at least two arms, got one; give a dimension of the space more values")
    arms = [Arm(name=arm_name(levels), levels=levels) for levels in combinations]
    _check_free(config, arms, space)
    first = vary(base, to_overrides(arms[0].levels)).candidate
    matching = _Matching(config, tuple(base), dataset, first)
    matching.check(arms)
    if asked.match == "none":
        return arms
    found: list[Arm] = []
    refused: list[str] = []
    target = matching.target(arms[0])
    for arm in arms:
        try:
            found.append(matching.matched(arm, target))
        except ValueError as error:
            refused.append(f"{arm.name}: {error}")
    if refused:
        raise ValueError(
            f"arms must have the {asked.match} of the first, {arms[0].name}, within {asked.tolerance:.1%}, by "
            f"{asked.by}, which some cannot; take another ablation.by, a larger ablation.tolerance, or leave them out\n"
            + "\n".join(f"  {one}" for one in refused)
        )
    return found


def _check_free(config: Config, arms: Sequence[Arm], space: Space) -> None:
    """Refuse a free dimension that is not free, and a seed that is a factor."""
    by = config.ablation.by
    if SEED in space.dimensions:
        raise ValueError(f"space.{SEED} cannot be a factor: every arm has the same seeds; set the first by {SEED}")
    if config.ablation.match == "none":
        return
    if by in space.dimensions:
        raise ValueError(f"ablation.by must not be a factor of the ablation, got {by}; take another, or match=none")
    if lacking := [arm.name for arm in arms if not has_option(by, arm.levels, config)]:
        raise ValueError(
            f"ablation.by must be an option of every arm, got {by}, which {', '.join(lacking)} lack; {_ALL_HAVE}"
        )


@dataclass(frozen=True)
class _Matching:
    """Costs of arms at values of the free dimension."""

    config: Config
    base: tuple[str, ...]
    dataset: Dataset
    first: Candidate

    @property
    def timed(self) -> bool:
        return self.config.ablation.match == "throughput"

    def check(self, arms: Sequence[Arm]) -> None:
        """Raise ValueError for an arm that breaks a rule at the value that the configuration has."""
        for arm in arms:
            try:
                self.candidate(arm.levels).check(self.dataset)
            except ValueError as error:
                raise ValueError(f"every arm must pass the rules, got {arm.name}: {error}") from error

    def candidate(self, levels: Mapping[str, Any]) -> Candidate:
        return vary(self.base, to_overrides(levels)).candidate

    def start(self, arm: Arm) -> int | float:
        """The value of the free dimension that the configuration has for an arm."""
        by, config = self.config.ablation.by, vary(self.base, to_overrides(arm.levels))
        value: Any = "nothing that exists"
        with suppress(AttributeError):
            value = reduce(getattr, by.split("."), config)
        if not is_number(value) or not value > 0:
            raise ValueError(
                f"ablation.by must be a dimension with a number above 0, got {by}, which is {value}; {_ALL_HAVE}"
            )
        assert isinstance(value, int | float)
        return value

    def target(self, first: Arm) -> float:
        """What all arms are to cost: for throughput as long as the first."""
        return 1.0 if self.timed else self.cost_of(first)(self.start(first))

    def matched(self, arm: Arm, target: float) -> Arm:
        """The arm at the value that comes nearest to a cost; raises ValueError with the nearest that can be had."""
        tolerance = self.config.ablation.tolerance
        if self.timed:
            print(f"Matching the throughput of {arm.name}", file=sys.stderr)
            near_enough, most = tolerance / 2, _TIMED_AT_MOST
        else:
            near_enough, most = tolerance / 4, _COUNTED_AT_MOST
        found = solve(self.cost_of(arm), self.start(arm), target, tolerance, near_enough=near_enough, most=most)
        return replace(arm, free=found.value, cost=found.cost, residual=found.cost / target - 1)

    def cost_of(self, arm: Arm) -> Callable[[int | float], float]:
        """What the arm costs at a value: parameters or multiply-adds when deployed, or time in those of the first."""

        def cost(free: int | float) -> float:
            candidate = self.candidate({**arm.levels, self.config.ablation.by: free})
            candidate.check(self.dataset)
            if self.timed:
                seconds = time_together({0: self.first, 1: candidate}, dict.fromkeys((0, 1), candidate.cost.images))
                return median(own / first for first, own in zip(seconds[0], seconds[1], strict=True))
            with torch.device("meta"):
                network = Network(candidate.architecture(self.dataset))
            counts = count(network)
            return counts.deployed_macs if self.config.ablation.match == "macs" else counts.deployed_params

        return cost
