"""A study with thousands of finished trials, made in seconds, as a search of `+sweep=pareto` would have left it."""

import json
import random
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json

from explore.cost.record import Cost, Throughput
from explore.evaluation import COMPLETE, Epoch, Evaluation
from explore.search.space import Space, to_overrides
from explore.search.study import Proposal

EPOCHS = 10
COST = Cost(
    params=1000,
    macs=1000,
    memory_bytes=1000,
    throughput=Throughput(
        images_per_second=1000.0,
        low=990.0,
        high=1010.0,
        latency_ms=1.0,
        batch_size=256,
        precision="32-true",
        device="none",
        threads=1,
        blocks=15,
        torch_version="none",
    ),
)


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
    """A made-up end of a trial, always the same for a proposal: the larger the slower and the more accurate."""
    chance = random.Random(proposal.key)
    size = float(proposal.values["model.depth"] * proposal.values["model.width"])
    speed = 1e6 / (size + 10) * chance.uniform(0.7, 1.3)
    best = 1 - 0.5 / size**0.4 * chance.uniform(1, 1.5)
    curve = [
        Epoch(
            epoch=n,
            train_loss=chance.uniform(1, 2) / n,
            val_loss=chance.uniform(1, 2) / n,
            val_accuracy=best * (1 - 0.5 / n) / (1 - 0.5 / EPOCHS),
            lr=1e-3 / n,
            seconds=chance.uniform(1, 2),
        )
        for n in range(1, EPOCHS + 1)
    ]
    assert COST.throughput
    timed = replace(COST.throughput, images_per_second=speed, low=0.99 * speed, high=1.01 * speed)
    cost = replace(COST, params=int(1000 * size), macs=int(3000 * size), throughput=timed)
    return Evaluation(status=COMPLETE, cost=cost, curve=tuple(curve), seconds={"cost": 1.5, "train": 12.5})


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
