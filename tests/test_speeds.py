"""Candidates are timed together as each was launched in its own trial, those of one architecture once.

python -m pytest tests/test_speeds.py
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from torch import nn

from explore import speeds
from explore.candidate import Candidate
from explore.config import compose
from explore.cost.options import Measuring
from explore.speeds import time_together

TINY = ("data=digits", "model.patch_size=4", "model.width=8", "model.depth=1", "training.threads=1")
SECONDS = {"trial 1": [1.0, 1.1], "trial 2": [2.0, 2.1], "trial 3": [3.0, 3.1]}


def candidate(*overrides: str) -> Candidate:
    return compose([*TINY, *overrides]).candidate


def test_long_blocks_keep_to_the_shorter_time_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(options: Measuring) -> Measuring:
        asked.append((options.block_seconds, options.max_seconds))
        return Measuring(dispatch="eager")

    monkeypatch.setattr(speeds, "compare_throughput", lambda *rest, **named: ({}, {}))
    monkeypatch.setattr(speeds, "resolve_protocol", resolve)
    for block in (0.01, 0.3):
        time_together({0: candidate("cost.max_seconds=0.3", f"cost.block_seconds={block}")}, {0: 256})
    assert asked == [(0.01, pytest.approx(0.2)), (pytest.approx(0.2), pytest.approx(0.2))]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Plays a comparison in which networks fail, some of which are timed operator by operator for it."""
    candidates = {0: candidate("model.width=8", "model.drop_path=0.1", "model.compile=off")}
    candidates |= {number: candidate(f"model.width={8 * number}") for number in range(1, 4)}

    def play(dispatch: str, failures: Mapping[str, str], left: tuple[str, ...], **given: Any) -> list[int]:
        def compare(networks: Mapping[str, nn.Module], *rest: Any, **named: Any) -> Any:
            assert networks.keys() == SECONDS.keys(), "0 and 1 are the same in evaluation"
            return {name: each for name, each in SECONDS.items() if name not in left}, failures

        def resolve(options: Measuring) -> Any:
            return Measuring(dispatch=dispatch)

        monkeypatch.setattr(speeds, "compare_throughput", compare)
        monkeypatch.setattr(speeds, "resolve_protocol", resolve)
        found = time_together(candidates, dict.fromkeys(candidates, 256), **given)
        assert all(found[number] == SECONDS[f"trial {max(1, number)}"] for number in found)
        return sorted(found)

    return play


UNCAPTURED = {"trial 2": "memory is short"}


def test_what_is_not_launched_as_in_its_own_trial_is_left_out(played: Callable[..., list[int]]) -> None:
    graphs = dict.fromkeys(range(4), "graph")
    assert played("graph", {}, (), dispatches=graphs) == [0, 1, 2, 3]
    assert played("graph", UNCAPTURED, (), dispatches=graphs) == [0, 1, 3]
    assert played("graph", UNCAPTURED, (), dispatches={**graphs, 2: "eager"}) == [0, 1, 2, 3]
    assert played("graph", UNCAPTURED, (), dispatches={**graphs, 2: "eager", 3: "eager"}) == [0, 1, 2]


def test_nobody_is_left_out_where_nothing_was_launched_before(played: Callable[..., list[int]]) -> None:
    assert played("graph", UNCAPTURED, ()) == [0, 1, 2, 3]


def test_what_cannot_be_compiled_is_left_out(played: Callable[..., list[int]]) -> None:
    compiled = dict.fromkeys(range(4), "compiled")
    assert played("compiled", {"trial 1": "no compiler"}, ("trial 1",), dispatches=compiled) == [2, 3]
