"""Samplers by name: each makes an Optuna sampler for the next trial of a two-objective study.

A sampler is made anew for every proposal, seeded by the search seed and the number of trials before it, so that a
search that was stopped goes on as if it had not been. `startup` is the number of random trials before a model is used.
"""

import warnings
from collections.abc import Callable

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler

SamplerFactory = Callable[[int, int], BaseSampler]


def _nsga2(seed: int, startup: int) -> BaseSampler:
    return NSGAIISampler(seed=seed, population_size=startup)


def _nsga3(seed: int, startup: int) -> BaseSampler:
    return NSGAIIISampler(seed=seed, population_size=startup)


def _tpe(seed: int, startup: int) -> BaseSampler:
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True)


def _gp(seed: int, startup: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=startup)


def _random(seed: int, startup: int) -> BaseSampler:
    return RandomSampler(seed=seed)


SPEED_AWARE = "speed_aware"  # our own, which decides more than a sampler does: see `speed_aware`
# None: no sampler of Optuna's; the proposals walk through the grid of the space.
SAMPLERS: dict[str, SamplerFactory | None] = {
    "nsga2": _nsga2,  # Deb et al. (2002); `startup` is its population
    "nsga3": _nsga3,  # Deb & Jain (2014); `startup` is its population
    "tpe": _tpe,  # Ozaki et al. (2022), multi-objective tree-structured Parzen estimator
    "gp": _gp,  # Gaussian process with expected hypervolume improvement
    "random": _random,
    "grid": None,
}

# What a sampler is shown of a long study, see `history`: the genetic ones their last generation, these so many trials,
# others all. TPE takes the best tenth as good; the Gaussian process needs time by the cube of their number.
GENETIC = ("nsga2", "nsga3")
MOST_SHOWN = {"tpe": 400, "gp": 150, "random": 0}


def make_sampler(name: str, *, seed: int, startup: int) -> BaseSampler | None:
    """Make the sampler of this name, or None for the grid; raises ValueError with the names there are."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(sorted(SAMPLERS))}, got {name!r}")
    factory = SAMPLERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return factory(seed, startup) if factory else None
