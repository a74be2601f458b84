"""How much the published figure of throughput varies on a machine that others use, and whether the order is right.

    python -m benchmarks.throughput_noise [device=cpu] [repeats=30] [turns=20] [seconds=3] [only=figure,order,same]
        [batch=256] [load=yes|no] [dispatch=auto]

A process on every core, or one on the GPU, trains a network meanwhile, unless `load=no`. `figure`: small candidates are
measured again and again, in turn with naive timing (the mean of ten passes by the clock on the wall); bars: the largest
over the smallest figure at most 1.10, the quartiles apart by at most 3 % of the median, in at most 1.05 times `seconds`
(3.15 s by default; the median of all). `order`: twelve networks whose speeds, measured at length without the other
processes, are 5 % or more apart, are compared again and again, each time as the front of a search is, in two thirds of
`seconds` for each; bar: no pair in the wrong order. `same`: eight copies of each small candidate are compared in that
way, half as often; bar: at most 5 % of the pairs are told apart, as the intervals of 95 % allow. Half an hour.
Competitors do not take turns: they stand for the programs of others. Networks are launched as by default, on a GPU at
once as a CUDA graph, or as `dispatch` says (eager, graph, compiled); those of naive timing and of competitors operator
by operator. `format=json` prints the rows as JSON.
"""

import copy
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from benchmarks.arguments import parse, refusing
from benchmarks.origin import print_json
from benchmarks.training_devices import wait
from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.cost.device import device_name, resolve_device, resolve_dispatch
from explore.cost.options import AUTO, DISPATCHES, Measuring
from explore.cost.side_by_side import compare_throughput
from explore.cost.speed import alike
from explore.cost.throughput import measure_throughput
from explore.cost.training_step import training_step
from explore.speeds import TIME_BESIDE_OTHERS

SPREAD, QUARTILES, SECONDS, GAP, TOLD = 1.10, 0.03, 3.0, 1.05, 0.05
COUNT, COPIES = 12, 8
LEAST_SECONDS = 0.01  # some blocks
_IMAGE = (1, 28, 28)
_NAIVE_PASSES = 10
_TRUTH_SECONDS = 4.0


@dataclass(frozen=True)
class Options:
    """What the command line may set."""

    repeats: int = 30
    turns: int = 20
    seconds: float = SECONDS
    only: tuple[str, ...] = ("figure", "order", "same")
    device: str = "cpu"
    batch: int = 256
    load: str = "yes"
    dispatch: str = AUTO
    format: str = "text"


def network(patch_size: int, depth: int, width: int, token_mixing: str = "mlp") -> Network:
    """A small candidate for images of 28 pixels, as it is deployed."""
    model = Model(patch_size=patch_size, depth=depth, width=width)
    mixings = Mixing.of(token_mixing), Mixing.of("mlp")
    return Network(architecture(model, *mixings, image_size=28, channels=1, classes=10)).deployed()


def candidates() -> dict[str, Network]:
    """Small candidates of different kinds."""
    return {
        "mlp, patch 4, depth 4, width 64": network(4, 4, 64),
        "mlp, patch 7, depth 2, width 32": network(7, 2, 32),
        "attention, patch 7, depth 3, width 96": network(7, 3, 96, "attention"),
        "convolution, patch 14, depth 1, width 16": network(14, 1, 16, "convolution"),
    }


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The largest over the smallest value, and the distance of the quartiles as a fraction of the median."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return max(values) / min(values), float((high - low) / median)


def wrong_pairs(speeds: Mapping[str, float], truth: Mapping[str, float]) -> int:
    """Pairs of names that are the other way round than in truth."""
    return sum((speeds[a] - speeds[b]) * (truth[a] - truth[b]) <= 0 for a, b in combinations(truth, 2))


def apart(truth: Mapping[str, float], gap: float, count: int) -> dict[str, float]:
    """The first `count` of the speeds, from the fastest, each slower than the one before by `gap` or more."""
    chosen: dict[str, float] = {}
    for name, speed in sorted(truth.items(), key=lambda item: -item[1]):
        if not chosen or speed * gap <= min(chosen.values()):
            chosen[name] = speed
    return dict(list(chosen.items())[:count])


def figures(options: Options) -> list[dict[str, Any]]:
    """Rows of the published figure and of naive timing, under load."""
    rows: list[dict[str, Any]] = []
    for name, one in candidates().items():
        ours, naive, seconds = list[float](), list[float](), list[float]()
        for repeat in range(options.repeats):
            _say(f"{name}: {repeat + 1} of {options.repeats}")
            naive.append(_naive(one, options))
            began = time.perf_counter()
            ours.append(measure_throughput(one, _IMAGE, _protocol(options, options.seconds)).images_per_second)
            seconds.append(time.perf_counter() - began)
        (most, quartiles), (naive_most, naive_quartiles) = spread(ours), spread(naive)
        rows += [
            _row(f"{name}: max/min", most, "×", SPREAD),
            _row(f"{name}: quartiles/median", quartiles, "", QUARTILES),
            _row(f"{name}: seconds", statistics.median(seconds), "s", options.seconds * 1.05),
            _row(f"{name}: max/min, naive", naive_most, "×"),
            _row(f"{name}: quartiles/median, naive", naive_quartiles, ""),
        ]
    return rows


def order(options: Options, networks: Mapping[str, Network], truth: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows of the order under load, for networks whose speeds are known."""
    wrong = []
    for turn in range(options.turns):
        _say(f"order: {turn + 1} of {options.turns}")
        wrong.append(wrong_pairs(_speeds(networks, options.seconds * TIME_BESIDE_OTHERS, options), truth))
    nearest = min(truth[a] / truth[b] for a, b in zip(list(truth), list(truth)[1:], strict=False))
    pairs = len(networks) * (len(networks) - 1) // 2
    return [
        _row(f"order of {len(networks)}: nearest neighbours apart by", nearest, "×"),
        _row(f"order of {len(networks)}: wrong of {pairs * options.turns} pairs", sum(wrong), "", 0),
    ]


def same(options: Options) -> list[dict[str, Any]]:
    """Rows of how many pairs of copies of one network are told apart under load."""
    rows = []
    for name, one in candidates().items():
        copies, told, turns = (
            {str(index): copy.deepcopy(one) for index in range(COPIES)},
            list[bool](),
            options.turns // 2,
        )
        for turn in range(turns):
            _say(f"copies of {name}: {turn + 1} of {turns}")
            timed = _seconds(copies, options.seconds * TIME_BESIDE_OTHERS, options)
            told += [not alike(first, second) for first, second in combinations(timed.values(), 2)]
        rows.append(_row(f"copies of {name}: told apart of {len(told)} pairs", sum(told) / len(told), "", TOLD))
    return rows


def known(options: Options) -> tuple[dict[str, Network], dict[str, float]]:
    """Twelve networks and their speeds without load, 5 % or more apart."""
    every = {
        f"{mixing} {patch}/{depth}/{width}": network(patch, depth, width, mixing)
        for mixing in ("mlp", "pooling")
        for patch, depth, width in [(7, d, w) for d in (1, 2, 3) for w in (16, 32, 48, 64, 96)]
    }
    _say(f"order: the speeds of {len(every)} networks without load")
    truth = apart(_speeds(every, _TRUTH_SECONDS, options), GAP, COUNT)
    if len(truth) < COUNT:
        raise RuntimeError(f"{COUNT} networks must be {GAP}× apart, got {len(truth)} of {len(every)}; is there load?")
    return {name: every[name] for name in truth}, truth


@contextmanager
def load(device: str) -> Iterator[None]:
    """A process on every core that trains a network, or one on a GPU."""
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))
    competitors = [
        context.Process(target=compete, args=(core, device), daemon=True)
        for core in (cores if device == "cpu" else cores[-1:])
    ]
    for one in competitors:
        one.start()
    try:
        time.sleep(8)  # until they have imported torch
        yield
    finally:
        for one in competitors:
            one.kill()
            one.join()


def compete(core: int, device: str) -> None:
    """Train with one core until killed, or until nobody is left to do that."""
    parent = os.getppid()
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    step: Callable[[], None] = training_step(network(7, 2, 64), torch.rand(128, *_IMAGE, device=device), "32-true")
    while os.getppid() == parent:
        step()


def _naive(one: Network, options: Options) -> float:
    images = torch.rand(options.batch, *_IMAGE, device=options.device)
    one.to(options.device)
    with torch.inference_mode():
        one(images)
        wait(images.device)
        began = time.perf_counter()
        for _ in range(_NAIVE_PASSES):
            one(images)
        wait(images.device)
    return _NAIVE_PASSES * len(images) / (time.perf_counter() - began)


def _speeds(networks: Mapping[str, Network], seconds: float, options: Options) -> dict[str, float]:
    timed = _seconds(networks, seconds, options)
    return {name: options.batch / statistics.median(each) for name, each in timed.items()}


def _seconds(networks: Mapping[str, Network], seconds: float, options: Options) -> dict[str, list[float]]:
    return compare_throughput(networks, _IMAGE, _protocol(options, seconds), _say)[0]


def _protocol(options: Options, seconds: float) -> Measuring:
    return Measuring(
        max_seconds=seconds,
        precision="32-true",
        device=options.device,
        batch_size=options.batch,
        dispatch=options.dispatch,
    )


def _row(name: str, value: float, unit: str, bar: float | None = None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": None if bar is None else value <= bar}


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    options = Options(**parse(arguments, __doc__, asdict(Options()), {"load": ("yes", "no"), "dispatch": DISPATCHES}))
    with refusing(arguments):
        device = resolve_device(options.device)
        dispatch = resolve_dispatch(options.dispatch, device)
        if options.seconds < LEAST_SECONDS:
            raise ValueError(f"seconds must be at least {LEAST_SECONDS}, got {options.seconds}")
    options = replace(options, device=str(device))
    torch.set_num_threads(1)
    subjects = known(options) if "order" in options.only else None
    with load(options.device) if options.load == "yes" else nullcontext():
        rows = figures(options) if "figure" in options.only else []
        rows += order(options, *subjects) if subjects else []
        rows += same(options) if "same" in options.only else []
    _say("")
    if options.format == "json":
        print_json(rows, options.device)
        return
    where = f"{device_name(device)}, 1 thread, 32-true, batch {options.batch}"
    print(f"{where}, {dispatch}, torch {torch.__version__}")
    for row in rows:
        bar = "" if row["bar"] is None else f"   bar {row['bar']:g}: {'holds' if row['holds'] else 'MISSED'}"
        print(f"{row['name']:60} {row['value']:8.3f} {row['unit']}{bar}")


if __name__ == "__main__":
    main(sys.argv[1:])
