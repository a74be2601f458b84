"""Gradients that a GPU launches at once are those that would be found by calling, or it goes on calling.

The GPU is played by a processor here: a graph is played by a call that writes into the same memory each time. What a
real one does is in tests/test_gpu.py.

python -m pytest tests/test_captured.py
"""

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from explore.training.captured import UNCAPTURED, Captured
from explore.training.handing import Batch

STEPS = UNCAPTURED + 6


class OnGpu(Tensor):
    """Says that it lies on a GPU."""

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True


class PlayedGraph:
    """Finds gradients and loss anew in the memory where they lie."""

    def __init__(self, steps: Captured, error: float, places: slice) -> None:
        self.steps = steps
        self.error = error  # of the gradients in these places
        self.places = places

    def replay(self) -> None:
        parameters = self.steps._parameters
        held = [one.grad for one in parameters]
        for one in parameters:
            one.grad = None
        self.steps._loss.copy_(self.steps._work((self.steps._batch[0], self.steps._batch[1])))
        for one, memory, before in zip(parameters, self.steps._gradients, held, strict=True):
            assert memory is not None
            assert one.grad is not None
            memory.copy_(one.grad)
            one.grad = before
        for wrong in self.steps._gradients[self.places]:
            assert wrong is not None
            wrong.mul_(1 + self.error)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a processor play the GPU, some of whose captured gradients are wrong by a share."""

    def play(error: float = 0.0, places: slice = slice(None), memory: float = 0.1) -> None:
        def capture(steps: Captured, batch: Batch) -> None:
            steps._batch = [one.clone() for one in batch]
            states = [one.clone() for one in steps._buffers]
            steps._forget()
            draws = torch.get_rng_state()
            steps._loss = steps._work((steps._batch[0], steps._batch[1])).clone()
            steps._gradients = [one.grad for one in steps._parameters]
            torch.set_rng_state(draws)
            steps._keep(states)  # a capture computes nothing
            steps._graph = PlayedGraph(steps, error, places)  # type: ignore[assignment]

        monkeypatch.setattr(Captured, "_capture", capture)
        monkeypatch.setattr("explore.training.captured._memory_used", lambda device: memory)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: warnings.warn("a prototype", stacklevel=2))

    return play


class Small(nn.Sequential):
    """Keeps statistics and draws random numbers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def batches(sizes: list[int]) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        images = torch.randn(size, 4, generator=generator).as_subclass(OnGpu)
        yield images, torch.randint(3, (size,), generator=generator)


def trained(
    sizes: list[int],
    *,
    waits: bool = False,
    plain: bool = False,
    taken_away: bool = True,
) -> tuple[Captured, dict[str, Tensor], list[float]]:
    """What steps leave, between which others take the gradients away, as Lightning does, unless told otherwise.

    `plain` calls for all.
    """
    torch.manual_seed(0)
    network = Small().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)

    def work(batch: Batch) -> Tensor:
        if waits:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=2)
        images = batch[0].as_subclass(Tensor)
        loss = nn.functional.cross_entropy(network(images), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    steps, losses = Captured(work, network, allowed=not plain), []
    for number, batch in enumerate(batches(sizes)):
        losses.append(float(steps(batch)))
        optimizer.step()
        if taken_away and number % 3 == 2:
            network.zero_grad()
    return steps, copy.deepcopy(network.state_dict()), losses


def check_same(sizes: list[int], because: str = "") -> None:
    steps, weights, losses = trained(sizes)
    _, expected, their_losses = trained(sizes, plain=True)
    assert steps.captured is (because == "")
    assert steps.called_because == because
    assert losses == pytest.approx(their_losses)
    for name, one in weights.items():
        torch.testing.assert_close(one, expected[name])


def test_training_is_that_of_calls_also_where_others_take_the_gradients_away(gpu: Callable[..., None]) -> None:
    gpu()
    check_same([16] * STEPS)


@pytest.mark.parametrize("steps_taken", [UNCAPTURED + 1, UNCAPTURED + 2])
def test_gradients_lie_where_they_will_as_soon_as_they_are_captured(gpu: Callable[..., None], steps_taken: int) -> None:
    gpu()
    steps, _, _ = trained([16] * steps_taken, taken_away=False)
    assert steps.captured
    found = [one.grad for one in steps._parameters]
    assert all(one is other for one, other in zip(found, steps._gradients, strict=True))


def test_a_batch_of_another_shape_is_called_from_then_on(gpu: Callable[..., None]) -> None:
    gpu()
    check_same([16] * (STEPS - 1) + [9, 16, 16], "a batch had another shape")


@pytest.mark.parametrize("error", [0.1, -1.0, torch.nan])
@pytest.mark.parametrize("places", [slice(None), slice(0, 1), slice(-1, None)], ids=["all", "first", "last"])
def test_gradients_that_differ_are_not_used(gpu: Callable[..., None], error: float, places: slice) -> None:
    gpu(error, places)
    check_same([16] * STEPS, "what was captured found another gradient")


def test_a_step_that_fills_the_memory_is_not_captured(gpu: Callable[..., None]) -> None:
    gpu(memory=0.5)
    check_same([16] * STEPS, "50% of the memory was used")


@pytest.mark.filterwarnings("ignore:called a synchronizing CUDA operation")
def test_what_waits_for_the_device_is_not_captured(gpu: Callable[..., None]) -> None:
    gpu()
    steps, _, _ = trained([16] * STEPS, waits=True)
    assert not steps.captured
    assert steps.called_because == "it waits for the device: called a synchronizing CUDA operation"


def test_a_processor_is_called_for_every_batch() -> None:
    calls: list[int] = []
    network = nn.Linear(2, 2)

    def work(batch: Batch) -> Tensor:
        calls.append(len(batch[0]))
        return torch.zeros(())

    steps = Captured(work, network)
    for _ in range(STEPS):
        steps((torch.zeros(5, 2), torch.zeros(5)))
    assert calls == [5] * STEPS
    assert not steps.captured
