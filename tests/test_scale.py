"""The benchmark of scale counts what it says: lost and doubled trials are found, bars belong to their rows, simulated
workers are as busy as arithmetic says, where it can say it.

python -m pytest tests/test_scale.py
"""

from dataclasses import replace
from pathlib import Path

import pytest
from filled_studies import cost, curve

from benchmarks.scale import history_rows, rate_rows
from benchmarks.scale_rates import Rate, faults_of
from benchmarks.scale_simulation import Costs, simulate
from benchmarks.table_search import SPACE, begin
from benchmarks.trial_parts import Clock
from explore.evaluation import COMPLETE, Evaluation
from explore.search.proposals import Proposer
from explore.search.space import parse_space

FREE = Costs(propose=0.0, look=0.0, claim=0.0, tell=0.0, beat=0.0)


def test_lost_doubled_and_unfinished_trials_are_found(tmp_path: Path) -> None:
    url, keys = f"sqlite:///{tmp_path}/study.db", []
    study, proposer = begin(url, "some"), Proposer(parse_space(SPACE))
    for _ in range(3):
        proposal = proposer.propose(study.trials())
        assert proposal
        trial = study.claim(proposal, command="", target=9)
        assert trial
        keys.append(proposal.key)
        assert faults_of(url, "some", keys) == [proposal.key, proposal.key], "not finished, and not recorded"
        study.finish(trial, Evaluation(status=COMPLETE, cost=cost(1.0), curve=curve(0.5)))
    assert faults_of(url, "some", keys) == []
    assert faults_of(url, "some", [*keys, "lost"]) == ["lost"]
    assert faults_of(url, "some", [*keys, keys[0]]) == [keys[0]], "looked up twice"
    assert faults_of(url, "some", keys[1:]) == [keys[0]], "recorded, and nobody looked it up"


def test_bars_are_those_of_their_rows() -> None:
    parts = {"tell, the storage's part": [9.0, 0.04, 0.06, 0.07], "propose with speed_aware": [0.04], "claim": [9.0]}
    clock = Clock(parts, {name: [0.5 * one for one in each] for name, each in parts.items()})
    rows = {str(row["name"]): row for number in (100, 1000, 10_000) for row in history_rows(number, clock)}
    assert {name: (row["bar"], row["holds"]) for name, row in rows.items() if row["bar"] is not None} == {
        "tell, the storage's part, after 10,000 trials": (0.05, False),
        "propose with speed_aware, after 10,000 trials": (0.05, True),
    }
    assert rows["claim, after 100 trials"]["processor"] == 4.5
    rate, processor, fine = rate_rows("sqlite", 1, Rate(30.0, 0.02, []), [])
    assert (rate["value"], rate["unit"], processor["value"], fine["holds"]) == (30.0, "trials/s", 0.02, True)
    assert rate_rows("sqlite", 4, Rate(40.0, 0.02, []), ["a"])[2]["holds"] is False


def test_workers_that_wait_for_nothing_are_always_busy() -> None:
    assert simulate(10, [1.0] * 1000, FREE).efficiency == pytest.approx(1.0)


def test_one_worker_spends_the_rest_on_what_a_step_costs() -> None:
    costs = Costs(propose=0.2, look=0.1, claim=0.3, tell=0.4, beat=0.0)
    load = simulate(1, [9.0] * 1000, costs)
    assert load.efficiency == pytest.approx(0.9, abs=1e-3)
    assert load.turn == pytest.approx(0.06, abs=1e-3)
    assert load.storage == pytest.approx(0.07, abs=1e-3)


@pytest.mark.parametrize(("costs", "limit"), [({"propose": 0.5}, 2), ({"claim": 0.25}, 4), ({"look": 0.001}, 10)])
def test_beyond_what_is_done_one_at_a_time_more_workers_do_not_help(costs: dict[str, float], limit: float) -> None:
    """So many steps of 10 s in a second, whoever takes them."""
    load = simulate(100, [10.0] * 20_000, replace(FREE, **costs))
    assert load.efficiency == pytest.approx(min(1.0, limit * 10 / 100), rel=0.02)
    assert max(load.turn, load.storage) == pytest.approx(1.0, rel=0.02)


def test_heartbeats_alone_can_be_too_many() -> None:
    assert simulate(1000, [10.0] * 4000, replace(FREE, beat=0.0075)).storage == pytest.approx(0.5)
    assert simulate(2000, [10.0] * 4000, replace(FREE, beat=0.0075)).efficiency == 0
    assert simulate(2000, [10.0] * 4000, replace(FREE, beat=0.0075, writers=2)).storage == pytest.approx(0.5)
