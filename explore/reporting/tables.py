"""The study as tables: one row per trial, ready for pandas, a spreadsheet or a paper."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from explore.reporting import markdown, style
from explore.search.seeds import Estimate, as_accurate_as, over_seeds, over_seeds_in_test
from explore.search.trial import Trial, front

_FRONT_FIRST = ["trial", "val_accuracy", "test_accuracy", "throughput", "macs", "params"]


def _of_cost(name: str) -> Callable[[Trial], Any]:
    return lambda trial: getattr(trial.evaluation.cost, name, None)


def _of_throughput(name: str) -> Callable[[Trial], Any]:
    return lambda trial: getattr(_of_cost("throughput")(trial), name, None)


_MEASURED: Mapping[str, Callable[[Trial], Any]] = {
    "throughput": _of_throughput("images_per_second"),
    "throughput_low": _of_throughput("low"),
    "throughput_high": _of_throughput("high"),
    "settled": lambda trial: trial.settled,
    "latency_ms": _of_throughput("latency_ms"),
    "macs": _of_cost("macs"),
    "params": _of_cost("params"),
    "memory_bytes": _of_cost("memory_bytes"),
    "epochs": lambda trial: len(trial.evaluation.curve),
    "seconds": lambda trial: sum(trial.evaluation.seconds.values()) if trial.evaluation.seconds else None,
    "batch_size": _of_throughput("batch_size"),
    "precision": _of_throughput("precision"),
    "device": _of_throughput("device"),
}


def trial_rows(trials: Sequence[Trial], tests: Mapping[int, float]) -> pd.DataFrame:
    """Return one row per trial, in the order given; what is not known of a trial is missing in its row.

    `tests` maps trial numbers to test accuracy. Accuracies are fractions, throughput is in images/s with the
    ends of its 95 % interval, `settled` whether that became as narrow as asked, latency in ms for one image, macs are
    multiply-adds of one image, memory is in bytes, seconds are of the whole evaluation, `as_fast_as` are the trials of
    the table from which a comparison of speeds could not tell it apart, `origin` where those come from that the search
    did not find itself, both where there are any. Members that were trained again with other seeds have the number of
    these `seeds`, means over them, the half-widths of their 95 % intervals (`ci95`), and the trials that they are
    `as_accurate_as`. After the fixed columns comes one per sampled dimension under its config key, then `reason` and
    `command`.
    """
    columns: dict[str, list[Any]] = {
        "trial": [trial.number for trial in trials],
        "status": [trial.status for trial in trials],
        "val_accuracy": [trial.accuracy for trial in trials],
        "test_accuracy": [tests.get(trial.number) for trial in trials],
    }
    columns |= {name: [read(trial) for trial in trials] for name, read in _MEASURED.items()}
    shown = {trial.number for trial in trials}
    equally_fast = [", ".join(str(one) for one in trial.alike if one in shown) or None for trial in trials]
    columns |= {"as_fast_as": equally_fast} if any(equally_fast) else {}
    columns |= _over_seeds(trials) if any(trial.retrained for trial in trials) else {}
    origins = [trial.proposal.origin or None for trial in trials]
    columns |= {"origin": origins} if any(origins) else {}
    columns |= {key: [trial.proposal.values.get(key) for trial in trials] for key in dimensions(trials)}
    columns |= {
        "reason": [trial.evaluation.reason for trial in trials],
        "command": [trial.command for trial in trials],
    }
    return pd.DataFrame({name: _column(values) for name, values in columns.items()})


def _over_seeds(trials: Sequence[Trial]) -> Mapping[str, list[Any]]:
    equally_accurate = as_accurate_as(trials)

    def of(name: str, estimates: Sequence[Estimate | None]) -> Mapping[str, list[Any]]:
        return {
            f"{name}_mean": [one.mean if one else None for one in estimates],
            f"{name}_ci95": [one.half if one else None for one in estimates],
        }

    alike = [equally_accurate.get(trial.number, ()) for trial in trials]
    return {
        "seeds": [len(trial.retrained) or None for trial in trials],
        **of("val_accuracy", [over_seeds(trial) for trial in trials]),
        **of("test_accuracy", [over_seeds_in_test(trial) for trial in trials]),
        "as_accurate_as": [", ".join(map(str, each)) or None for each in alike],
    }


def front_rows(trials: Sequence[Trial], tests: Mapping[int, float]) -> pd.DataFrame:
    """Return the rows of the front's members, fastest first; columns as in `trial_rows`, the objectives in front."""
    rows = trial_rows(front(trials), tests)
    return rows[[*_FRONT_FIRST, *(name for name in rows.columns if name not in _FRONT_FIRST)]]


def front_markdown(trials: Sequence[Trial], tests: Mapping[int, float]) -> str:
    """Return the front as people read it, fastest first, with the command of each member."""
    rows, keys = front_rows(trials, tests), dimensions(front(trials))
    known = {name: readable for name, readable in _READABLE.items() if rows[name].notna().all()}
    cells = {heading: rows[name].map(write) for name, (heading, write) in known.items()}
    cells |= {key: rows[key].map(_sampled) for key in keys}
    cells["command"] = rows["command"].map(markdown.code)
    return markdown.table(list(cells), zip(*cells.values(), strict=True), [*keys, "command"])


def _sampled(value: Any) -> str:
    return "" if pd.isna(value) else markdown.plain(style.value(value))


_READABLE: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "trial": ("trial", str),
    "throughput": ("images/s", style.speed),
    "val_accuracy": ("validation", style.percent),
    "test_accuracy": ("test", style.percent),
    "params": ("parameters", style.short),
}


def write_tables(trials: Sequence[Trial], tests: Mapping[int, float], folder: Path) -> None:
    """Write `trials.csv` and `front.csv` into an existing folder."""
    trial_rows(trials, tests).to_csv(folder / "trials.csv", index=False)
    front_rows(trials, tests).to_csv(folder / "front.csv", index=False)


def dimensions(trials: Sequence[Trial]) -> list[str]:
    """Return the config keys that were sampled in any of the trials; sorted, so that related ones are neighbours."""
    return sorted({key for trial in trials for key in trial.proposal.values})


def _column(values: Sequence[Any]) -> "pd.Series[Any]":
    """Keep whole numbers whole where some are missing; pandas alone would write 4 as 4.0."""
    known = [value for value in values if value is not None]
    if not known or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return pd.Series(values, dtype="object")
    return pd.Series(values, dtype="Int64" if all(isinstance(value, int) for value in known) else "float64")
