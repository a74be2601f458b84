"""How well a latency model predicts networks that it was not fitted to.

    python -m benchmarks.latency_model [format=json] [networks=100] [repeats=20] [seed=0] [OVERRIDE ...]

Random networks of the space of `+sweep=pareto` are measured as in a trial, but for a shorter time; an OVERRIDE changes
space, images or protocol as it does for a sweep. The model is fitted to nine tenths of them and asked for the others,
ten times. The bars are for its median error and rank correlation. Beside them: how far the first few networks are off
when they are measured once more, which no model can be better than; and the time that the features of a network take.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import optuna
from torch import nn

from benchmarks.arguments import parse, refusing
from benchmarks.origin import print_json
from explore.candidate import Candidate, build
from explore.config import compose, has_option, vary
from explore.cost.features import Features
from explore.cost.latency_model import FEWEST, Errors, cross_validated
from explore.cost.options import Measuring
from explore.cost.throughput import measure_throughput
from explore.cost.trace import features
from explore.data.dataset import Dataset, load
from explore.schema import Config
from explore.search.space import parse_space, to_overrides

BAR_ERROR, BAR_RANKS = 0.05, 0.98
_SWEEP = "+sweep=pareto"
_SECONDS = 0.8  # for each measurement
_DEFAULTS = {"networks": 100, "repeats": 20, "seed": 0}


def candidates(base: Sequence[str], config: Config, dataset: Dataset, seed: int) -> Iterator[Candidate]:
    """Random candidates of the space, each architecture once, without those that break a rule."""
    space = parse_space(config.space, lambda key, values: has_option(key, values, config))
    chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    seen = set()
    for _ in range(100_000):
        candidate = vary(base, to_overrides(space.sample(chance.ask()))).candidate
        try:
            candidate.check(dataset)
        except ValueError:
            continue
        identity = str(candidate.architecture(dataset))
        if identity not in seen:
            seen.add(identity)
            yield candidate


def seconds_per_pass(network: nn.Module, shape: tuple[int, int, int], options: Measuring) -> tuple[float, int]:
    """Seconds of a pass, and the images in it."""
    speed = measure_throughput(network, shape, options)
    return speed.batch_size / speed.images_per_second, speed.batch_size


def protocol(config: Config) -> Measuring:
    """That of a trial, but shorter."""
    return replace(config.cost, max_seconds=_SECONDS)


def measure(base: Sequence[str], networks: int, repeats: int, seed: int) -> tuple[Errors, list[float], float]:
    """The cross-validated errors, the relative differences of repeated measurements, and milliseconds of a trace."""
    config = compose(base)
    dataset = load(config.data)
    shape = dataset.image_shape
    options = protocol(config)
    chosen = list(islice(candidates(base, config, dataset, seed), networks))
    seconds, known, traced = [], list[Features](), []
    for candidate in chosen:
        network = build(candidate, dataset).deployed()
        taken, images = seconds_per_pass(network, shape, options)
        seconds.append(taken)
        start = time.perf_counter()
        known.append(features(network, shape, images))
        traced.append(time.perf_counter() - start)
    again = [seconds_per_pass(build(one, dataset).deployed(), shape, options)[0] for one in chosen[:repeats]]
    apart = [abs(second / first - 1) for first, second in zip(seconds, again, strict=False)]
    return cross_validated(known, seconds), apart, 1000 * statistics.median(traced)


def rows(errors: Errors, apart: Sequence[float], trace_ms: float) -> list[dict[str, object]]:
    """Rows of name, value, unit, bar and whether it holds."""

    def row(
        name: str, value: float, unit: str, bar: float | None = None, holds: bool | None = None
    ) -> dict[str, object]:
        return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": holds}

    error, ranks = errors.median, errors.rank_correlation
    return [
        row("networks", errors.networks, ""),
        row("median error", 100 * error, "%", 100 * BAR_ERROR, error <= BAR_ERROR),
        row("rank correlation", ranks, "", BAR_RANKS, ranks >= BAR_RANKS),
        row("measured again, median difference", 100 * statistics.median(apart), "%"),
        row("measured again, largest difference", 100 * max(apart), "%"),
        row("features of a network, median", trace_ms, "ms"),
    ]


def main(arguments: Sequence[str]) -> None:
    """Print the errors."""
    own = tuple(f"{key}=" for key in (*_DEFAULTS, "format"))
    overrides = [one for one in arguments if not one.startswith(own)]
    options = parse(arguments, __doc__, _DEFAULTS, words=overrides)
    with refusing(arguments):
        if options["networks"] < FEWEST:
            raise ValueError(f"networks must be at least {FEWEST}, got {options['networks']}; a model needs as many")
        protocol(compose([_SWEEP, *overrides]))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    errors, apart, trace_ms = measure([_SWEEP, *overrides], options["networks"], options["repeats"], options["seed"])
    result = rows(errors, apart, trace_ms)
    if options["format"] == "json":
        print_json(result)
        return
    for row in result:
        above = "at least" if row["name"] == "rank correlation" else "at most"
        bar = "" if row["bar"] is None else f"   bar {above} {row['bar']}: {'holds' if row['holds'] else 'MISSED'}"
        print(f"{row['name']:36} {row['value']:9.3f} {row['unit']}{bar}")


if __name__ == "__main__":
    main(sys.argv[1:])
