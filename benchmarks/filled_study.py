"""A study with thousands of finished trials, made in seconds, as a search of `+sweep=pareto` would have left it."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json

from benchmarks.looked_up import made_up_cost, made_up_curve
from explore.evaluation import COMPLETE, Evaluation
from explore.search.space import Space, to_overrides
from explore.search.trial import Proposal

EPOCHS = 10


def proposals(space: Space, *, seed: int = 0) -> Iterator[Proposal]:
    """Proposals at random, each another configuration, without end; their generations are of ten trials each."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    keys: set[str] = set()
    while True:
        values = space.sample(chance.ask())
        generation = len(keys) // 10
        proposal = Proposal(
            values=values,
            distributions=space.distributions(values),
            overrides=to_overrides(values),
            sampler_state={"NSGAIISampler:generation": generation, "NSGAIIISampler:generation": generation},
        )
        if proposal.key not in keys:
            keys.add(proposal.key)
            yield proposal


def evaluation(proposal: Proposal) -> Evaluation:
    """A made-up end of a trial, always the same for a proposal."""
    curve = tuple(made_up_curve(proposal.values, EPOCHS))
    cost = made_up_cost(proposal.values)
    return Evaluation(status=COMPLETE, cost=cost, curve=curve, seconds={"cost": 1.5, "train": 12.5})


def fill(database: Path, study: str, space: Space, number: int) -> None:
    """Add finished trials to a study in an SQLite file until it holds `number`.

    Optuna's tables are written directly: through its interface, 10,000 trials take minutes.
    """
    with sqlite3.connect(database) as connection:
        (identity,) = connection.execute("SELECT study_id FROM studies WHERE study_name = ?", (study,)).fetchone()
        (there,) = connection.execute("SELECT count(*) FROM trials WHERE study_id = ?", (identity,)).fetchone()
        (last,) = connection.execute("SELECT coalesce(max(trial_id), 0) FROM trials").fetchone()
        began = datetime(2026, 1, 1)
        for index, proposal, trial in zip(range(there, number), islice(proposals(space), there, None), count(last + 1)):
            ended = evaluation(proposal)
            start = began + timedelta(seconds=15 * index)
            connection.execute(
                "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete)"
                " VALUES (?, ?, ?, 'COMPLETE', ?, ?)",
                (trial, index, identity, str(start), str(start + timedelta(seconds=14))),
            )
            _insert_parameters(connection, trial, proposal.values, proposal.distributions)
            connection.executemany(
                "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, 'FINITE')",
                [(trial, 0, ended.accuracy), (trial, 1, ended.cost and ended.cost.throughput.images_per_second)],  # type: ignore[union-attr]
            )
            connection.executemany(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
                [(trial, key, json.dumps(value)) for key, value in _attributes(proposal, ended).items()],
            )
    connection.close()


def _insert_parameters(
    connection: sqlite3.Connection, trial: int, values: Mapping[str, Any], kinds: Mapping[str, BaseDistribution]
) -> None:
    connection.executemany(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
        [
            (trial, key, kinds[key].to_internal_repr(value), distribution_to_json(kinds[key]))
            for key, value in values.items()
        ],
    )


def _attributes(proposal: Proposal, ended: Evaluation) -> dict[str, Any]:
    """What claiming, recording and finishing leave with a trial."""
    claimed = {
        "overrides": list(proposal.overrides),
        "sampler_state": dict(proposal.sampler_state),
        "command": " ".join(["python -m explore.train +sweep=pareto training.threads=1", *proposal.overrides]),
        "owner": {"host": "machine", "pid": 1, "started": "1"},
        "heartbeat": 0.0,
        "continues": None,
        "folder": None,
    }
    return {"claim": claimed, "so_far": ended.to_dict(), "evaluation": ended.to_dict()}
