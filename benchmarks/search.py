"""Searches replayed on recorded learning curves: `python -m benchmarks.search`, and `... record` to make a table.

    data=mnist,digits  methods=speed_aware;tpe;...  seeds=30  workers=1  against=speed_aware  format=text|json
    picture=FILE.png

Each method runs the real search loop on a table, with a simulated clock, until it has 99 % of the hypervolume of the
table on both scales or has spent 4,000 epochs. So that ours does not end before, nothing is too little for it
(`search.tolerance=0 search.stop=off`), but for `speed_aware, to its own end`, which has the defaults. What was run is
kept in `outputs/search-replays` and is not run again, as long as the code and the tables that it follows from stay the
same. Printed are the epochs to shares of the hypervolume, the regret (what is missing of it at fixed budgets) and the
bars. Other methods are held against ours, or the one that is named, by paired tests, corrected for how many they are.
`picture` draws the share over epochs and over seconds.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna

import explore.search
from benchmarks import search_picture
from benchmarks.arguments import parse
from benchmarks.origin import print_json
from benchmarks.search_judge import SCALES, SHARES, Finish, load_table, reached
from benchmarks.search_methods import METHODS, OURS
from benchmarks.search_replay import soonest
from benchmarks.search_statistics import corrected, paired, regrets, spread
from benchmarks.search_table import BASES, FOLDER, record

_NEVER = 1e6  # epochs
_KEPT = Path("outputs/search-replays")
# What a replay follows from, of the benchmark; of the package it is `explore.search`.
_DECIDES = ("search_judge", "search_methods", "search_prior", "search_public", "search_replay", "search_rows")
# How many times fewer epochs ours needs to 95 % of the hypervolume, on each of `SCALES`.
BARS: Mapping[str, tuple[float, float]] = {
    "nsga2": (8.0, 3.0),
    "tpe": (4.0, 2.0),
    "gp": (2.0, 1.5),
    "moasha": (2.5, 3.0),
}


@cache
def _kept() -> Path:
    """The folder of the replays of this code and these tables."""
    package = Path(*explore.search.__path__)
    files = [*package.glob("*.py"), package / "prior.json", *FOLDER.glob("*.parquet")]
    files += [Path(__file__).with_name(f"{name}.py") for name in _DECIDES]
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in sorted(files)))
    return _KEPT / digest.hexdigest()[:12]


def results(data: str, method: str, seeds: int, workers: int) -> list[list[Finish]]:
    """What a method finished with each seed, run now or before."""
    table = load_table(data)
    found = []
    for seed in range(seeds):
        file = _kept() / data / f"{method.replace(', ', '-')}-{workers}-{seed}.json"
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
                of_epochs = spread(epochs)
                found.append(
                    {"data": data, "method": method, "scale": scale, "share": share, "workers": workers}
                    | {"epochs": of_epochs["median"], "low": of_epochs["low"], "high": of_epochs["high"]}
                    | {"all": epochs, "seconds": spread(seconds)["median"], "seeds": seeds}
                )
    return found


def bounds(data: str) -> list[dict[str, Any]]:
    """A row per scale and share: the seconds that no search can do without, however many workers it has."""
    table = load_table(data)
    return [
        {"data": data, "scale": scale, "share": share, "seconds": soonest(table, scale, share)}
        for scale in SCALES
        for share in SHARES
    ]


def bars(found: list[dict[str, Any]], against: str = OURS) -> list[dict[str, Any]]:
    """How many times fewer epochs `against` needs than each other; of ours, whether that is what was aimed at."""
    lines = []
    for asked in _questions(found, SHARES[1]):
        ours = next(row for row in asked if row["method"] == against)
        lines += corrected([_compared(ours, row) for row in asked if row is not ours])
    return lines


def far_end(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether ours needs no more epochs to the last share than the best of the others, of those that have a bar."""
    lines = []
    for asked in _questions(found, SHARES[-1]):
        ours = next(row for row in asked if row["method"] == OURS)
        if others := [row for row in asked if row["method"] in BARS]:
            best = min(others, key=lambda row: float(row["epochs"]))
            ratio = best["epochs"] / ours["epochs"] if np.isfinite(ours["epochs"]) else 0.0
            name = f"{ours['data']}, {ours['scale']}: epochs to {SHARES[-1]:.0%} by the best of the others / ours"
            lines.append({"name": name, "value": ratio, "unit": "×", "bar": 1.0, "holds": ratio >= 1})
    return lines


def _questions(found: list[dict[str, Any]], share: float) -> Iterable[list[dict[str, Any]]]:
    """The rows of each table and scale."""
    questions: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        if row["share"] == share:
            questions.setdefault((row["data"], row["scale"]), []).append(row)
    return questions.values()


def _compared(ours: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    known = BARS if ours["method"] == OURS else {}
    bar = known.get(row["method"], (None, None))[SCALES.index(row["scale"])]
    ratio = row["epochs"] / ours["epochs"] if np.isfinite(ours["epochs"]) else 0.0
    # Two that never arrived are equal.
    logs = [np.log(np.minimum(one["all"], _NEVER)) for one in (ours, row)]
    both = np.max(logs, axis=0) < np.log(_NEVER)
    mean = float(np.exp(np.mean((logs[1] - logs[0])[both]))) if both.any() else None
    name = f"{row['data']}, {row['scale']}: epochs to 95 % by {row['method']} / {_called(ours['method'])}"
    return {"name": name, "value": ratio, "unit": "×", "bar": bar, "p": paired(*logs)} | {
        "holds": None if bar is None else ratio >= bar,
        "mean": mean,
        "arrived": int(both.sum()),
    }


def _called(method: str) -> str:
    return "ours" if method == OURS else method


def regret_rows(data: str, methods: list[str], seeds: int, workers: int, against: str = OURS) -> list[dict[str, Any]]:
    """A row per scale, budget and method: median and quartiles of the regret, as a fraction of the hypervolume.

    With `against` among the methods, the others are compared with it.
    """
    table, found = load_table(data), []
    for scale in SCALES:
        missing = {method: regrets(table, results(data, method, seeds, workers), scale) for method in methods}
        for budget in missing[methods[0]]:
            lines: list[dict[str, Any]] = [
                {"data": data, "scale": scale, "workers": workers, "seeds": seeds, "after": budget, "method": method}
                | {**spread(missing[method][budget]), "all": missing[method][budget]}
                for method in methods
            ]
            compared = [
                {**line, "p": paired(missing[against][budget], line["all"])}
                for line in lines
                if against in methods and line["method"] != against
            ]
            found += [*lines[: len(lines) - len(compared)], *corrected(compared)]
    return found


def main(arguments: Sequence[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    read = partial(parse, arguments, __doc__, choices={"against": METHODS}, words=["record"])
    if "record" in arguments:
        asked = read({"data": (*BASES,), "configurations": 300, "workers": 2})
        record(asked["data"], asked["configurations"], Path("outputs/search-tables"), asked["workers"])
        return
    replays = {"data": (*BASES,), "methods": (*METHODS,), "seeds": 30, "workers": 1, "against": OURS, "picture": ""}
    asked = read(replays)
    names, seeds, workers, against = asked["data"], asked["seeds"], asked["workers"], asked["against"]
    # The first of each list and the one that stands out.
    methods = sorted(asked["methods"], key=lambda method: method != against)
    found = [row for data in names for row in rows(data, methods, seeds, workers)]
    compared = bars(found, against) if against in methods else []
    last = far_end(found) if against == OURS and OURS in methods else []
    missing = [row for data in names for row in regret_rows(data, methods, seeds, workers, against)]
    least = [row for data in names for row in bounds(data)]
    if asked["picture"]:
        runs = {data: {method: results(data, method, seeds, workers) for method in methods} for data in names}
        search_picture.draw({data: load_table(data) for data in names}, runs, workers, Path(asked["picture"]))
    if asked["format"] == "json":
        print_json({"rows": found, "bounds": least, "bars": [*compared, *last], "regrets": missing})
    else:
        _print(found, least, compared, missing, _called(against))
        for line in last:
            print(f"{line['name']}: {line['value']:.2f} ×, bar 1: {'holds' if line['holds'] else 'MISSED'}")


def _print(
    found: list[dict[str, Any]],
    least: list[dict[str, Any]],
    compared: list[dict[str, Any]],
    missing: list[dict[str, Any]],
    against: str,
) -> None:
    for row in found:
        figures = f"{row['epochs']:>7.0f} epochs ({row['low']:.0f} to {row['high']:.0f}), {row['seconds']:>7.0f} s"
        print(f"{row['data']:7} {row['scale']:9} {row['share']:.0%}  {row['method']:24} {figures}")
    for row in least:
        name = f"{row['data']:7} {row['scale']:9} {row['share']:.0%}"
        print(f"{name}  whoever trains all at once{'':23}{row['seconds']:>7.1f} s")
    for row in missing:
        figures = f"{row['median']:>6.1%} missing ({row['low']:.1%} to {row['high']:.1%})"
        test = f", against {against} p = {row['p_holm']:.2g}" if "p_holm" in row else ""
        print(f"{row['data']:7} {row['scale']:9} {row['after']:12}  {row['method']:24} {figures}{test}")
    for line in compared:
        verdict = "" if line["bar"] is None else f", bar {line['bar']:g}: {'holds' if line['holds'] else 'MISSED'}"
        mean = f"geometric mean {line['mean']:.3f} of {line['arrived']} pairs, " if line["arrived"] else ""
        print(f"{line['name']}: {line['value']:.2f} × of medians ({mean}p = {line['p_holm']:.2g}){verdict}")
    print(f"p: Wilcoxon's signed ranks of runs with the same seeds, after Holm for the methods compared with {against}")


if __name__ == "__main__":
    main(sys.argv[1:])
