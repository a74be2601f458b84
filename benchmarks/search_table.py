"""Recorded tables of learning curves: many configurations of a real search space, trained to the end.

A table has two files, `DATA.configurations.parquet` (overrides, parameters, multiply-adds, images/s) and
`DATA.curves.parquet` (a row per configuration, seed and epoch). Its JSON beside them says how it was made.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.origin import origin
from explore.candidate import evaluate, test_accuracy
from explore.config import compose, has_option, vary
from explore.data.dataset import load
from explore.evaluation import COMPLETE
from explore.search.front import losses, non_dominated
from explore.search.proposals import Proposer
from explore.search.space import Space, parse_space

FOLDER = Path(__file__).parent / "tables"
SEEDS = (0, 1, 2)  # the first for all configurations, the others for the best quarter
# Images of other sizes take other patches; the grids of 2 × 2 and 4 × 4 patches are the same.
BASES = {
    "mnist": ("+sweep=pareto", "data=mnist"),
    "digits": ("+sweep=pareto", "data=digits", "space.model.patch_size=choice(2, 4)"),
}
# The time for one figure: a table has many, and its networks are small.
_RUN = ("training.threads=1", "cost.max_seconds=1", "training.rung=1000")


@dataclass(frozen=True)
class Run:
    """One training: the configuration number, its overrides and the seed."""

    number: int
    overrides: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """The name of its result."""
        return f"{self.number:03d}-{self.seed}"


def space_of(data: str) -> Space:
    """The search space of a table."""
    config = compose(BASES[data])
    return parse_space(config.space, lambda key, values: has_option(key, values, config))


def drawn(data: str, count: int) -> list[tuple[str, ...]]:
    """As many configurations of the space of a table, drawn at random, all different and all possible."""
    dataset = load(compose(BASES[data]).data)

    def check(overrides: Sequence[str]) -> None:
        vary(BASES[data], overrides).candidate.check(dataset)

    proposer = Proposer(space=space_of(data), sampler="random", check=check)
    found: dict[str, tuple[str, ...]] = {}
    asked = 0
    while len(found) < count:
        proposal = replace(proposer, seed=asked).propose([])
        asked += 1
        assert proposal is not None
        found.setdefault(proposal.key, tuple(proposal.overrides))
    return list(found.values())


def record(names: Sequence[str], count: int, output: Path, workers: int) -> None:
    """Train what is not trained yet, and write the tables; results are kept one by one in `output`."""
    for data in names:
        (output / data).mkdir(parents=True, exist_ok=True)
        everyone = [Run(number, one, SEEDS[0]) for number, one in enumerate(drawn(data, count))]
        _train(everyone, data, output / data, workers)
        _write(data, count, output / data)
    for data in names:
        configurations = drawn(data, count)
        best = _best_quarter(output / data, count)
        again = [Run(number, configurations[number], seed) for seed in SEEDS[1:] for number in best]
        _train(again, data, output / data, workers)
        _write(data, count, output / data)


def _train(runs: Sequence[Run], data: str, folder: Path, workers: int) -> None:
    missing = [run for run in runs if not (folder / f"{run.name}.json").exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        results = [pool.submit(partial(_record_one, data, folder), run) for run in missing]
        for done, result in enumerate(as_completed(results), 1):
            result.result()
            print(f"{data}: {done} of {len(missing)} runs", flush=True)


def _record_one(data: str, folder: Path, run: Run) -> None:
    candidate = vary((*BASES[data], *_RUN), run.overrides).candidate
    candidate = replace(candidate, training=replace(candidate.training, seed=run.seed))
    work = folder / run.name
    evaluation = evaluate(candidate, work, lambda item: None, folder / "costs")
    result = evaluation.to_dict() | {"overrides": list(run.overrides), "number": run.number, "seed": run.seed}
    result["test_accuracy"] = test_accuracy(candidate, work) if evaluation.status == COMPLETE else None
    partial_file = folder / f"{run.name}.partial"
    partial_file.write_text(json.dumps(result))
    os.replace(partial_file, folder / f"{run.name}.json")
    for file in work.glob("*.ckpt"):
        file.unlink()


def _results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("???-?.json"))]


def _best_quarter(folder: Path, count: int) -> list[int]:
    """The configurations nearest to the front, which decide how good a search is: front, next front and so on."""
    trained = [one for one in _results(folder) if one["status"] == COMPLETE and one["seed"] == SEEDS[0]]
    points = losses([one["curve"][-1]["val_accuracy"] for one in trained], [_throughput(one) for one in trained])
    chosen: list[int] = []
    numbers = np.array([one["number"] for one in trained])
    while len(chosen) < count // 4:
        best = non_dominated(points)
        chosen += numbers[best].tolist()
        numbers, points = numbers[~best], points[~best]
    return sorted(chosen[: count // 4])


def _throughput(result: dict[str, Any]) -> float:
    return float(result["cost"]["throughput"]["images_per_second"])


def _write(data: str, count: int, folder: Path) -> None:
    results = _results(folder)
    first = {one["number"]: one for one in results if one["seed"] == SEEDS[0]}
    configurations = pd.DataFrame(
        {
            "configuration": number,
            "overrides": json.dumps(one["overrides"]),
            "status": one["status"],
            "params": one["cost"]["params"],
            "macs": one["cost"]["macs"],
            "throughput": _throughput(one),
            "settled": one["cost"]["throughput"]["settled"],
            "features": json.dumps(one["cost"]["features"]),
            "cost_seconds": one["seconds"]["build"] + one["seconds"]["cost"],
        }
        for number, one in sorted(first.items())
    )
    curves = pd.DataFrame(
        {
            "configuration": one["number"],
            "seed": one["seed"],
            **{key: epoch[key] for key in ("epoch", "train_loss", "val_loss", "val_accuracy", "seconds")},
            "test_accuracy": one["test_accuracy"] if epoch is one["curve"][-1] else None,
        }
        for one in results
        for epoch in one["curve"]
    )
    FOLDER.mkdir(exist_ok=True)
    configurations.to_parquet(FOLDER / f"{data}.configurations.parquet", compression="zstd", index=False)
    narrow = {"configuration": "int16", "seed": "int8", "epoch": "int8"}
    narrow |= dict.fromkeys(("train_loss", "val_loss", "val_accuracy", "seconds", "test_accuracy"), "float32")
    curves.astype(narrow).to_parquet(FOLDER / f"{data}.curves.parquet", compression="zstd", index=False)
    (FOLDER / f"{data}.json").write_text(json.dumps(_origin(data, count), indent=2) + "\n")


def _origin(data: str, count: int) -> dict[str, Any]:
    test_images = len(load(compose(BASES[data]).data).test)
    command = f"python -m benchmarks.search record data={data} configurations={count}"
    return {**origin(command), "base": BASES[data], "seeds": SEEDS, "test_images": test_images}
