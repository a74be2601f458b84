"""What is launched at once is what would have been called, or it is called.

The GPU is played here, but for the last test: capturing is replaced. More of a real one is in tests/test_gpu.py.

python -m pytest tests/test_launching.py
"""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from explore import launching
from explore.launching import at_once

GPU, PROCESSOR = torch.device("cuda", 0), torch.device("cpu")


class Action:
    """Counts its calls."""

    def __init__(self, error: str = "") -> None:
        self.calls, self.error = 0, error

    def __call__(self) -> None:
        self.calls += 1
        if self.error:
            raise RuntimeError(self.error)


class PlayedGraph:
    """Counts its launches."""

    def __init__(self) -> None:
        self.launches = 0

    def replay(self) -> None:
        self.launches += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PlayedGraph]:
    """Lets actions be watched and captured without a GPU."""

    def play(waits: str = "", short: bool = False) -> PlayedGraph:
        graph = PlayedGraph()

        def capture(action: Callable[[], object], device: torch.device, pool: Any) -> tuple[PlayedGraph, None]:
            if short:
                raise torch.OutOfMemoryError("no room")
            return graph, None

        monkeypatch.setattr(launching, "watched", lambda action: (action(), waits))
        monkeypatch.setattr(launching, "captured", capture)
        return graph

    return play


def test_on_a_processor_it_is_the_action_itself() -> None:
    action = Action()
    assert at_once(action, PROCESSOR) is action
    assert action.calls == 0


def test_on_a_gpu_the_graph_is_launched_and_nothing_is_called(gpu: Callable[..., PlayedGraph]) -> None:
    graph, action = gpu(), Action()
    launch = at_once(action, GPU)
    called = action.calls
    launch()
    launch()
    assert (graph.launches, action.calls) == (2, called)


@pytest.mark.parametrize("played", [{"waits": "it waits"}, {"short": True}], ids=["waits", "short of memory"])
def test_what_cannot_be_captured_is_the_action_itself(gpu: Callable[..., PlayedGraph], played: dict[str, Any]) -> None:
    gpu(**played)
    action = Action()
    assert at_once(action, GPU) is action


def test_what_fails_when_it_is_called_is_not_hidden(gpu: Callable[..., PlayedGraph]) -> None:
    gpu()
    with pytest.raises(RuntimeError, match="out of memory"):
        at_once(Action("out of memory"), GPU)


def test_memory_that_kernels_read_is_kept_as_long_as_they_may_be_launched(gpu: Callable[..., PlayedGraph]) -> None:
    gpu()
    action = Action()
    kept, launch = weakref.ref(action), at_once(action, GPU)
    del action
    gc.collect()
    assert kept() is not None
    del launch
    gc.collect()
    assert kept() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_that_share_memory_may_be_launched_in_any_order() -> None:
    pool: Any = torch.cuda.graph_pool_handle()
    kept: dict[int, torch.Tensor] = {}
    layer = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8)).to(GPU)

    def action(batch: torch.Tensor) -> None:
        kept[len(batch)] = layer(batch).clone()

    batches = [torch.randn(size, 32, device=GPU) for size in (4, 512, 1)]
    with torch.inference_mode():
        launches = [at_once(partial(action, one), GPU, pool) for one in batches]
        assert not [one for one in launches if isinstance(one, partial)]
        for place in (1, 2, 0, 1):
            batches[place].normal_()
            launches[place]()
            found = kept[len(batches[place])].clone()
            torch.testing.assert_close(found, layer(batches[place]), atol=1e-4, rtol=1e-3)
