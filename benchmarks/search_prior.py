"""The learned prior of a search: `python -m benchmarks.search_prior` fits it to the recorded tables.

Prints first how well it foretells each table when it was fitted to the others, and to the other half of the
configurations, so that it has seen neither the images nor the configuration.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from benchmarks.search_judge import Table, load_table
from benchmarks.search_rows import Rows
from benchmarks.search_table import BASES
from explore.config import compose
from explore.data.dataset import load
from explore.search.predicted import Trend
from explore.search.prior import FILE, PATCHES, Array, Prior
from explore.search.space import Values
from explore.search.surrogate import clipped_logit

_RIDGE = 1.0
_SHOWN = (1, 3, 9, 27)


def fitted(names: Sequence[str], rows: Sequence[int] | None = None) -> Prior:
    """A prior of some of the configurations of some tables."""
    tables = {data: load_table(data) for data in names}
    values = {data: _values(table, rows) for data, table in tables.items()}
    everyone = [one for found in values.values() for one in found]
    prior = Prior(_spans(values), _names(everyone), np.zeros(0), tables[names[0]].epochs)
    design, targets = [], []
    for data, table in tables.items():
        accuracy = table.validation if rows is None else table.validation[list(rows)]
        logits = clipped_logit(accuracy, table.smallest_error)
        seen = np.isfinite(logits)
        times = prior.times(np.arange(1.0, table.epochs + 1))
        terms = np.einsum("ct,ek->cetk", prior.terms(values[data], image_size(data)), times)[seen]
        terms = terms.reshape(len(terms), -1)
        # How far an accuracy rises with the epochs is alike as well: only one constant is taken out for each table.
        targets.append(logits[seen] - logits[seen].mean())
        design.append(terms - terms.mean(0))
    stacked, wanted = np.concatenate(design), np.concatenate(targets)
    penalty = _RIDGE * prior.epochs * np.eye(stacked.shape[1])
    penalty[[1, 2], [1, 2]] = 0  # what all have in common is not small
    weights = np.linalg.solve(stacked.T @ stacked + penalty, stacked.T @ wanted)
    return replace(prior, weights=weights.reshape(-1, 3))


@cache
def image_size(data: str) -> int:
    """Of the images of a table, in pixels."""
    return load(compose(BASES[data]).data).image_size


def save(prior: Prior) -> None:
    """Write it where searches read it."""
    content = {
        "numbers": {key: [round(end, 6) for end in span] for key, span in prior.numbers.items()},
        "names": prior.names,
        "epochs": prior.epochs,
        "weights": np.asarray(prior.weights).round(4).tolist(),
    }
    FILE.write_text(json.dumps(content, separators=(",", ":")) + "\n")


@cache
def unseen(data: str) -> Trend:
    """The prior of the other tables, of which each half of the configurations is foretold by the other half."""
    others, size = [name for name in BASES if name != data], image_size(data)
    table = load_table(data)
    values, epochs = _values(table, None), np.arange(1.0, table.epochs + 1)
    said = np.zeros((len(values), table.epochs))
    for half in (0, 1):
        prior = fitted(others, range(1 - half, len(values), 2))
        for row in range(half, len(values), 2):
            said[row] = prior([values[row]] * table.epochs, epochs, size)
    place = {_key(one): row for row, one in enumerate(values)}

    def trend(configurations: Sequence[Values], epochs: Array) -> Array:
        found: Array = said[[place[_key(one)] for one in configurations], np.asarray(epochs, int) - 1]
        return found

    return trend


def _key(values: Values) -> frozenset[tuple[str, Any]]:
    return frozenset(values.items())


def _values(table: Table, rows: Sequence[int] | None) -> list[Values]:
    known = Rows(table)
    return [known.values_of(row) for row in (range(len(table.overrides)) if rows is None else rows)]


def _spans(values: Mapping[str, Sequence[Values]]) -> dict[str, tuple[float, float]]:
    seen: dict[str, list[float]] = {}
    for data, found in values.items():
        for one in found:
            for key, value in {**one, PATCHES: image_size(data) / one["model.patch_size"]}.items():
                if not isinstance(value, str) and key != "model.patch_size":
                    seen.setdefault(key, []).append(float(np.log(value)))
    return {key: (min(logs), max(logs)) for key, logs in sorted(seen.items())}


def _names(values: Sequence[Values]) -> dict[str, list[str]]:
    seen: dict[str, set[str]] = {}
    for one in values:
        for key, value in one.items():
            if isinstance(value, str):
                seen.setdefault(key, set()).add(value)
    return {key: sorted(found) for key, found in sorted(seen.items())}


def foretold(data: str, epoch: int) -> float:
    """The correlation of what is foretold of a table by the others with what came, in logits of accuracy."""
    table = load_table(data)
    values = _values(table, None)
    came = clipped_logit(table.validation[:, epoch - 1], table.smallest_error)
    seen = np.isfinite(came)
    said = unseen(data)(values, np.full(len(values), epoch))
    return float(np.corrcoef(said[seen], came[seen])[0, 1])


def main() -> None:
    for data in BASES:
        for epoch in _SHOWN:
            print(f"{data}: correlation of logits after epoch {epoch}: {foretold(data, epoch):.2f}")
    save(fitted(list(BASES)))
    print(f"{FILE}: {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
