"""The gradient of a batch on a GPU: all kernels launched at once, as the CUDA graph of an earlier step.

A step of a small network is a hundred kernels that take a GPU a few microseconds each, and Python ten times as long to
launch.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from explore.launching import captured, watched
from explore.training.handing import Batch

# Steps before the one that is captured, in which libraries do what they do only once.
UNCAPTURED = 3
# By how much a captured gradient may differ from the one that was called, as a share of the largest number in it: no
# more than where sums are taken in another order. What is smaller by so much than others is rounding itself.
_ROUNDING, _NOTHING = 1e-2, 1e-3
_MEMORY = 0.4  # of a GPU's


class Captured:
    """Calls `work`, which leaves the gradient of a batch in the parameters of `network` and returns its loss.

    On a processor it is called for each batch. On a GPU it is called for the first batches; then what it launches is
    captured, and launched again for every batch of that shape. Random numbers are drawn as if it had been called.

    It is called for all of them unless that is `allowed`; where it waits for the device, as a mixture of experts may;
    where so much of the memory is used that launches are not what takes the time, and a graph keeps what a step needs;
    where what was captured does not find the gradient that it finds; and from a batch of another shape on.
    """

    def __init__(self, work: Callable[[Batch], Tensor], network: nn.Module, *, allowed: bool = True) -> None:
        """Keep what to call; `called_because` says in words why nothing is captured, and is empty otherwise."""
        self._work = work
        self._parameters = list(network.parameters())
        self._buffers = list(network.buffers())
        self._called = 0
        self.called_because = "" if allowed else "it was not allowed"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: list[Tensor] = []
        self._loss = torch.empty(0)
        self._gradients: list[Tensor | None] = []

    @property
    def captured(self) -> bool:
        """Whether the next batch of the shape of the last one needs no call."""
        return self._graph is not None

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of a batch, whose gradient is then that of the parameters."""
        if self._graph is not None:
            if all(mine.shape == one.shape for mine, one in zip(self._batch, batch, strict=True)):
                return self._launched(batch)
            self._graph, self.called_because = None, "a batch had another shape"
        self._forget()
        self._called += 1
        if self.called_because or self._called < UNCAPTURED or not batch[0].is_cuda:
            return self._work(batch)
        return self._watched(batch) if self._called == UNCAPTURED else self._compared(batch)

    def _launched(self, batch: Batch) -> Tensor:
        assert self._graph
        for mine, one in zip(self._batch, batch, strict=True):
            mine.copy_(one)
        self._graph.replay()
        # Others may have taken the gradients away, as Lightning does before a validation.
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss.clone()

    def _watched(self, batch: Batch) -> Tensor:
        """Call, and do not capture what waits for the device."""
        loss, waits = watched(lambda: self._work(batch))
        if waits:
            self.called_because = f"it waits for the device: {waits}"
        elif (used := _memory_used(batch[0].device)) >= _MEMORY:
            self.called_because = f"{used:.0%} of the memory was used"
        return loss

    def _compared(self, batch: Batch) -> Tensor:
        """Call, capture, and compare; what the network keeps and draws is afterwards as if it had only been called."""
        device = batch[0].device
        draws = torch.cuda.get_rng_state(device)
        before = [one.clone() for one in self._buffers]
        loss = self._work(batch)
        drawn = torch.cuda.get_rng_state(device)
        after = [one.clone() for one in self._buffers]
        expected = [one.grad for one in self._parameters]
        self._capture(batch)
        if self._graph is not None:
            torch.cuda.set_rng_state(draws, device)
            self._keep(before)
            found = self._launched(batch)
            if not (_alike([found], [loss]) and _alike(self._gradients, expected)):
                self._graph, self.called_because = None, "what was captured found another gradient"
        torch.cuda.set_rng_state(drawn, device)
        self._keep(after)
        if self._graph is not None:  # what was called, in the memory where later gradients lie as well
            for gradient, one in zip(self._gradients, expected, strict=True):
                if gradient is not None and one is not None:
                    gradient.copy_(one)
            expected = self._gradients
        for parameter, gradient in zip(self._parameters, expected, strict=True):
            parameter.grad = gradient
        return loss

    def _capture(self, batch: Batch) -> None:
        images, targets = (one.clone() for one in batch)
        # The gradients lie in memory of the graph from here on, which writes them anew each time.
        self._forget()
        try:
            self._graph, self._loss = captured(lambda: self._work((images, targets)), images.device)
        except RuntimeError as error:
            self.called_because = f"it could not be captured: {error}"
            return
        self._batch = [images, targets]
        self._gradients = [one.grad for one in self._parameters]

    def _forget(self) -> None:
        for one in self._parameters:
            one.grad = None

    @torch.no_grad()
    def _keep(self, buffers: list[Tensor]) -> None:
        for one, kept in zip(self._buffers, buffers, strict=True):
            one.copy_(kept)


def _memory_used(device: torch.device) -> float:
    """The most that was allocated at one time so far, as a share of the device's memory."""
    return torch.cuda.max_memory_allocated(device) / torch.cuda.get_device_properties(device).total_memory


def _alike(found: list[Tensor | None], expected: list[Tensor | None]) -> bool:
    if [one is None for one in found] != [one is None for one in expected]:
        return False
    mine, theirs = ([one.float() for one in each if one is not None] for each in (found, expected))
    largest = torch.stack([one.abs().max() for one in theirs])
    furthest = torch.stack([(one - other).abs().max() for one, other in zip(mine, theirs, strict=True)])
    return bool((furthest <= _ROUNDING * largest.clamp(min=_NOTHING * float(largest.max()))).all())
