"""Searches replayed on recorded learning curves: `python -m benchmarks.search`, and `... record` to make a table.

    data=mnist,digits  methods=speed_aware,tpe,...  seeds=30  workers=1  format=text|json

Each method runs the real search loop on a table, with a simulated clock, until it has 99 % of the hypervolume of the
table on both scales or has spent `most` epochs. What was run is kept in `outputs/search-replays` and is not run again.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy.stats import wilcoxon

from benchmarks import search_public
from benchmarks.search_judge import SCALES, SHARES, Finish, Table, load_table, reached
from benchmarks.search_prior import unseen
from benchmarks.search_replay import SpeedUnknown, replay, sampled, speed_aware
from benchmarks.search_rows import Rows
from benchmarks.search_table import BASES, record
from explore.search.prior import unbiased
from explore.search.schedule import Scheduler
from explore.search.speed_aware import SpeedAware

OURS = "speed_aware"
_RUNGS, _WHOLE = (1, 3, 9, 27), (27,)
_MOST = 4000
_KEPT = Path("outputs/search-replays")
Method = Callable[[Table, int, int], list[Finish]]
# How many times fewer epochs ours needs to 95 % of the hypervolume, on each of `SCALES`.
BARS: Mapping[str, tuple[float, float]] = {
    "nsga2": (8.0, 3.0),
    "tpe": (4.0, 2.0),
    "gp": (2.0, 1.5),
    "moasha": (2.5, 3.0),
}


def _loop(scheduler: Callable[[Rows, int], Scheduler], table: Table, seed: int, workers: int) -> list[Finish]:
    return replay(table, lambda rows: scheduler(rows, seed), workers, enough=partial(_enough, table))


def _enough(table: Table, finishes: list[Finish]) -> bool:
    if not finishes:
        return False
    numbers = [one.configuration for one in finishes]
    complete = all(table.progress(numbers, scale)[-1] >= SHARES[-1] for scale in SCALES)
    return complete or finishes[-1].epochs > _MOST


def _of_optuna(sampler: str, startup: int, rungs: tuple[int, ...] = _WHOLE) -> Method:
    return partial(_loop, lambda rows, seed: sampled(rows, sampler, seed, startup, rungs))


def _ours(rungs: tuple[int, ...] = _RUNGS, kind: type[SpeedAware] = SpeedAware, *, prior: bool = True) -> Method:
    def scheduler(rows: Rows, seed: int) -> Scheduler:
        trend = unseen(rows.table.data) if prior else unbiased
        return speed_aware(rows, seed, rungs, kind, trend=trend)

    return partial(_loop, scheduler)


# The start-up of each is the best of those tried for it, see docs/log.md.
METHODS: Mapping[str, Method] = {
    OURS: _ours(),
    "random": _of_optuna("random", 0),
    "nsga2": _of_optuna("nsga2", 12),
    "tpe": _of_optuna("tpe", 10),
    "gp": _of_optuna("gp", 6),
    "moasha": lambda table, seed, workers: search_public.moasha(table, seed, workers, ranked=True),
    "moasha, as released": lambda table, seed, workers: search_public.moasha(table, seed, workers),
    "tpe, pruner": lambda table, seed, workers: search_public.with_pruner(table, "tpe", seed, workers, startup=10),
    "nsga2, pruner": lambda table, seed, workers: search_public.with_pruner(table, "nsga2", seed, workers, startup=12),
    "random, rungs": _of_optuna("random", 0, _RUNGS),
    "tpe, rungs": _of_optuna("tpe", 10, _RUNGS),
    # Ours with a part taken away.
    "speed_aware, no prior": _ours(prior=False),
    "speed_aware, no rungs": _ours(_WHOLE),
    "speed_aware, speed unknown": _ours(kind=SpeedUnknown),
}


def results(data: str, method: str, seeds: int, workers: int) -> list[list[Finish]]:
    """What a method finished with each seed, run now or before."""
    table = load_table(data)
    found = []
    for seed in range(seeds):
        file = _KEPT / data / f"{method.replace(', ', '-')}-{workers}-{seed}.json"
        if not file.exists():
            finishes = METHODS[method](table, seed, workers)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps([asdict(one) for one in finishes]))
        found.append([Finish(**one) for one in json.loads(file.read_text())])
    return found


def rows(data: str, methods: list[str], seeds: int, workers: int) -> list[dict[str, Any]]:
    """A row per method, scale and share: median and quartiles of epochs and simulated seconds; infinite where never."""
    table = load_table(data)
    found = []
    for method in methods:
        runs = results(data, method, seeds, workers)
        for scale in SCALES:
            for share in SHARES:
                ends = [reached(table, run, scale, share) for run in runs]
                epochs = [one.epochs if one else np.inf for one in ends]
                seconds = [one.seconds if one else np.inf for one in ends]
                low, median, high = np.quantile(epochs, [0.25, 0.5, 0.75], method="lower")
                found.append(
                    {"data": data, "method": method, "scale": scale, "share": share, "workers": workers}
                    | {"epochs": float(median), "low": float(low), "high": float(high), "all": epochs}
                    | {"seconds": float(np.quantile(seconds, 0.5, method="lower")), "seeds": seeds}
                )
    return found


def bars(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times fewer epochs ours needs than each other method, and whether that is what was aimed at."""
    lines = []
    for row in found:
        ours = next(one for one in found if one["method"] == OURS and _same_question(one, row))
        if row["method"] == OURS or row["share"] != SHARES[1]:
            continue
        bar = BARS.get(row["method"], (None, None))[SCALES.index(row["scale"])]
        ratio = row["epochs"] / ours["epochs"] if np.isfinite(ours["epochs"]) else 0.0
        logs = np.log(np.minimum(row["all"], 1e6)) - np.log(np.minimum(ours["all"], 1e6))
        p = float(wilcoxon(logs).pvalue) if np.any(logs) else 1.0
        name = f"{row['data']}, {row['scale']}: epochs to 95 % by {row['method']} / ours"
        lines.append({"name": name, "value": ratio, "unit": "×", "bar": bar, "p": p})
        lines[-1]["holds"] = None if bar is None else ratio >= bar
    return lines


def _same_question(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("data", "scale", "share", "workers"))


def main(arguments: list[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given = dict(one.partition("=")[::2] for one in arguments if "=" in one)
    names = given.get("data", ",".join(BASES)).split(",")
    if arguments[:1] == ["record"]:
        count, workers = int(given.get("configurations", 300)), int(given.get("workers", 2))
        record(names, count, Path("outputs/search-tables"), workers)
        return
    methods = given["methods"].split(";") if "methods" in given else list(METHODS)
    seeds, workers = int(given.get("seeds", 30)), int(given.get("workers", 1))
    found = [row for data in names for row in rows(data, methods, seeds, workers)]
    compared = bars(found) if OURS in methods else []
    if given.get("format") == "json":
        print(json.dumps({"rows": found, "bars": compared}, indent=2))
        return
    for row in found:
        spread = f"{row['epochs']:>7.0f} epochs ({row['low']:.0f} to {row['high']:.0f}), {row['seconds']:>7.0f} s"
        print(f"{row['data']:7} {row['scale']:9} {row['share']:.0%}  {row['method']:24} {spread}")
    for line in compared:
        verdict = "" if line["bar"] is None else f", bar {line['bar']:g}: {'holds' if line['holds'] else 'MISSED'}"
        print(f"{line['name']}: {line['value']:.2f} × (paired Wilcoxon p = {line['p']:.2g}){verdict}")


if __name__ == "__main__":
    main(sys.argv[1:])
