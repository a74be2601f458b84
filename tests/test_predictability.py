"""A study says how well speed can be predicted, from each architecture once, and of one protocol alone.

python -m pytest tests/test_predictability.py
"""

from dataclasses import replace

import pytest
from filled_studies import TEMPLATE, cost

from explore.cost.features import Features, Work
from explore.evaluation import COMPLETE, Evaluation
from explore.search.predictability import speed_errors
from explore.search.trial import Trial


def measured(depth: int, device: str = "here", surprise: float = 1.0) -> Trial:
    """Work grows with the depth, and so do the seconds."""
    work = Features({"matmul": Work(calls=depth, macs=10_000 * depth, bytes=500 * depth, rows=depth)})
    known = replace(cost(256 / (1e-3 * depth * surprise), device), features=work)
    return replace(TEMPLATE, evaluation=Evaluation(status=COMPLETE, cost=known))


def test_speed_that_follows_from_the_work_is_predicted() -> None:
    errors = speed_errors([measured(depth) for depth in range(1, 31)])
    assert errors
    assert errors.median < 0.01
    assert errors.rank_correlation == pytest.approx(1)
    assert errors.networks == 30


def test_an_architecture_counts_once_and_a_protocol_by_itself() -> None:
    usual = [measured(depth) for depth in range(1, 26)]
    errors = speed_errors([*usual, *usual, *(measured(depth, "elsewhere", 7.0) for depth in range(1, 26))])
    assert errors
    assert errors.networks == 25
    assert errors.median < 0.01


def test_too_few_say_nothing() -> None:
    usual = [measured(depth) for depth in range(1, 20)]
    assert speed_errors([]) is None
    assert speed_errors([*usual, *usual]) is None
    assert speed_errors([replace(TEMPLATE, evaluation=Evaluation(status=COMPLETE, cost=cost(1000)))] * 40) is None
