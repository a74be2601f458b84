"""A step of the optimizer that is launched at once on a GPU leaves what an ordinary one does.

The GPU is played by a processor here: a graph is played by the step itself, with the numbers that lie in the memory
that was captured. What a real one does is in tests/test_gpu.py.

python -m pytest tests/test_update.py
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from explore.training.optimizer import make_optimizer
from explore.training.options import Training
from explore.training.update import Update

RATES = [0.1, 0.05, 0.2, 0.01, 0.3, 0.02]
CAPTURED_FROM = 2


class PlayedGraph:
    """Takes the step with the rates that lie in memory, whatever the groups say."""

    def __init__(self, update: Update, step: Callable[[], object]) -> None:
        self.update = update
        self.step = step
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        with self.update._on_gpu(capturable=True):
            self.step()


def trained(
    fixed: Callable[[int], bool] | None, moved: int | None = None
) -> tuple[dict[str, Tensor], list[float], Any]:
    """Weights after a step by each of the rates, what a hook saw of them, and the `Update`, if steps were one's.

    Gradients stay where they are but for the step when they are `moved`.
    """
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = make_optimizer(network, Training(weight_decay=0.1))
    seen: list[float] = []
    optimizer.register_step_post_hook(lambda *_: seen.append(float(network.weight.detach().sum())))
    update = None
    if fixed:
        update = Update(optimizer, lambda: fixed(len(seen)))
        optimizer.step = update  # type: ignore[method-assign, assignment]
    for rate in RATES:
        for group in optimizer.param_groups:
            group["lr"] = rate
        network.zero_grad(set_to_none=fixed is None or len(seen) == moved)
        network(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == [rate, rate]
        assert not any(group["capturable"] for group in optimizer.param_groups)
    return network.state_dict(), seen, update


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[PlayedGraph]:
    made: list[PlayedGraph] = []

    def capture(step: Callable[[], object], device: torch.device) -> tuple[PlayedGraph, None]:
        made.append(PlayedGraph(step.__self__.step, step))  # type: ignore[attr-defined]
        return made[-1], None

    monkeypatch.setattr("explore.training.update.captured", capture)
    return made


def test_steps_that_are_launched_at_once_are_ordinary_ones(graphs: list[PlayedGraph]) -> None:
    weights, seen, update = trained(lambda number: number >= CAPTURED_FROM)
    expected, as_seen, _ = trained(None)
    assert update.captured
    assert [graph.replays for graph in graphs] == [len(RATES) - CAPTURED_FROM]
    assert seen == pytest.approx(as_seen)
    for name, one in weights.items():
        torch.testing.assert_close(one, expected[name])


def test_gradients_that_move_are_followed(graphs: list[PlayedGraph]) -> None:
    weights, _, update = trained(lambda number: number in (1, 2, 4))
    expected, _, _ = trained(None)
    assert [graph.replays for graph in graphs] == [2, 1]
    assert not update.captured
    for name, one in weights.items():
        torch.testing.assert_close(one, expected[name])


def test_gradients_that_moved_unnoticed_are_captured_again(graphs: list[PlayedGraph]) -> None:
    """Whoever says that they are fixed may be wrong; a graph would read memory that is not theirs any more."""
    weights, _, _ = trained(lambda number: True, moved=4)
    expected, _, _ = trained(None)
    assert [graph.replays for graph in graphs] == [3, 2]
    for name, one in weights.items():
        torch.testing.assert_close(one, expected[name])


def test_the_first_step_makes_the_state(graphs: list[PlayedGraph]) -> None:
    trained(lambda number: True)
    assert [graph.replays for graph in graphs] == [len(RATES) - 1]


def test_what_cannot_be_captured_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not permitted")

    monkeypatch.setattr("explore.training.update.captured", fail)
    weights, _, update = trained(lambda number: True)
    expected, _, _ = trained(None)
    assert update.called_because == "it could not be captured: not permitted"
    for name, one in weights.items():
        torch.testing.assert_close(one, expected[name])
