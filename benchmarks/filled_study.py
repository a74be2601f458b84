"""A study with thousands of finished trials, made in seconds, as a search of `+sweep=pareto` would have left it."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from sqlalchemy import MetaData, create_engine, func, insert, select, text
from sqlalchemy.engine import make_url

from benchmarks.looked_up import made_up_cost, made_up_curve
from explore.evaluation import COMPLETE, Evaluation
from explore.search.space import Space
from explore.search.trial import Proposal

EPOCHS = 10
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
_TOGETHER = 1000  # trials that are written at a time


def proposals(space: Space, *, seed: int = 0) -> Iterator[Proposal]:
    """Proposals at random, each another configuration, without end; their generations are of ten trials each."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    keys: set[str] = set()
    while True:
        values = space.sample(chance.ask())
        generation = len(keys) // 10
        state = {"NSGAIISampler:generation": generation, "NSGAIIISampler:generation": generation}
        proposal = space.proposal(values, sampler_state=state)
        if proposal.key not in keys:
            keys.add(proposal.key)
            yield proposal


def evaluation(proposal: Proposal) -> Evaluation:
    """A made-up end of a trial, always the same for a proposal."""
    curve = tuple(made_up_curve(proposal.values, EPOCHS))
    cost = made_up_cost(proposal.values)
    return Evaluation(status=COMPLETE, cost=cost, curve=curve, seconds={"cost": 1.5, "train": 12.5})


def fill(url: str, study: str, space: Space, number: int, *, running: bool = False) -> None:
    """Add trials to a study in an SQLite file or on a PostgreSQL server until it holds `number`, finished or `running`.

    Optuna's tables are written directly: through its interface, 10,000 trials take minutes.
    """
    engine = create_engine(make_url(url).set(drivername=_DRIVERS[make_url(url).get_backend_name()]))
    tables = MetaData()
    with engine.begin() as connection:
        tables.reflect(connection)
        studies, trials = tables.tables["studies"], tables.tables["trials"]
        identity = connection.scalars(select(studies.c.study_id).where(studies.c.study_name == study)).one()
        there = connection.scalars(select(func.count()).where(trials.c.study_id == identity)).one()
        added = islice(proposals(space), there, number)
        for first in range(there, number, _TOGETHER):
            part = list(islice(added, _TOGETHER))
            rows = [_trial(identity, first + place, running) for place, _ in enumerate(part)]
            numbered = insert(trials).returning(trials.c.trial_id, sort_by_parameter_order=True)
            keys = connection.scalars(numbered, rows).all()
            for name, of_one in _PARTS.items():
                every = [row for key, one in zip(keys, part, strict=True) for row in of_one(key, one)]
                if name != "trial_values" or not running:
                    connection.execute(insert(tables.tables[name]), every)
        if engine.name == "postgresql":
            # As the server has done by itself where a study grew to this, or its plans are those for a small one.
            connection.execute(text("ANALYZE"))
    engine.dispose()


def _trial(study: int, number: int, running: bool) -> dict[str, Any]:
    start = datetime(2026, 1, 1) + timedelta(seconds=15 * number)
    ended = None if running else start + timedelta(seconds=14)
    state = "RUNNING" if running else "COMPLETE"
    return {
        "number": number,
        "study_id": study,
        "state": state,
        "datetime_start": start,
        "datetime_complete": ended,
    }


def _parameters(trial: int, proposal: Proposal) -> list[dict[str, Any]]:
    kinds = proposal.distributions
    return [
        {
            "trial_id": trial,
            "param_name": key,
            "param_value": kinds[key].to_internal_repr(value),
            "distribution_json": distribution_to_json(kinds[key]),
        }
        for key, value in proposal.values.items()
    ]


def _values(trial: int, proposal: Proposal) -> list[dict[str, Any]]:
    ended = evaluation(proposal)
    assert ended.cost
    assert ended.cost.throughput
    both = (ended.accuracy, ended.cost.throughput.images_per_second)
    return [
        {"trial_id": trial, "objective": place, "value": value, "value_type": "FINITE"}
        for place, value in enumerate(both)
    ]


def _attributes(trial: int, proposal: Proposal) -> list[dict[str, Any]]:
    """What claiming, recording and finishing leave with a trial."""
    ended = evaluation(proposal).to_dict()
    claimed = {
        "overrides": list(proposal.overrides),
        "sampler_state": dict(proposal.sampler_state),
        "command": " ".join(["python -m explore.train +sweep=pareto training.threads=1", *proposal.overrides]),
        "owner": {"host": "machine", "pid": 1, "started": "1"},
        "heartbeat": 0.0,
        "continues": None,
        "folder": None,
    }
    every = {"claim": claimed, "so_far": ended, "evaluation": ended}
    return [{"trial_id": trial, "key": key, "value_json": json.dumps(value)} for key, value in every.items()]


_PARTS = {"trial_params": _parameters, "trial_values": _values, "trial_user_attributes": _attributes}
