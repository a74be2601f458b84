"""The gradient of a batch on a GPU: all kernels launched at once, as the CUDA graph of an earlier step.

A step of a small network is a hundred kernels that take a GPU a few microseconds each, and Python ten times as long to
launch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from explore.training.handing import Batch

# Steps before the one that is captured, in which libraries set up what they do only once.
UNCAPTURED = 3


class Captured:
    """Calls `work`, which leaves the gradient of a batch in `parameters` and returns its loss.

    On a processor it is called for each batch. On a GPU it is called for the first batches; then what it launches is
    captured, and launched again for every batch of that shape. Whoever waits for the device in `work` cannot be
    captured, and neither can a batch of another shape: from then on it is called again. Random numbers are drawn as if
    it had been called.
    """

    def __init__(self, work: Callable[[Batch], Tensor], parameters: Sequence[nn.Parameter]) -> None:
        self._work = work
        self._parameters = parameters
        self._called = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: list[Tensor] = []
        self._loss = torch.empty(0)
        self._allowed = True

    @property
    def captured(self) -> bool:
        """Whether the next batch of the shape of the last one needs no call."""
        return self._graph is not None

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of a batch, whose gradient is then that of the parameters."""
        if self._graph is None and self._allowed and batch[0].is_cuda and self._called >= UNCAPTURED:
            self._capture(batch)
        if self._graph is not None:
            if all(mine.shape == one.shape for mine, one in zip(self._batch, batch, strict=True)):
                for mine, one in zip(self._batch, batch, strict=True):
                    mine.copy_(one)
                self._graph.replay()
                return self._loss.clone()
            self._graph, self._allowed = None, False
        self._called += 1
        self._forget()
        return self._work(batch)

    def _capture(self, batch: Batch) -> None:
        self._batch = [one.clone() for one in batch]
        images, targets = self._batch
        graph = torch.cuda.CUDAGraph()
        # The gradients lie in memory of the graph from here on, which writes them anew each time.
        self._forget()
        current = torch.cuda.current_stream(images.device)
        try:
            # Another thread may allocate memory meanwhile, as the one that gathers images from disk.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._loss = self._work((images, targets))
        except RuntimeError:
            self._allowed = False
            torch.cuda.set_stream(current)  # an ended capture does not always go back to it
            torch.cuda.synchronize(images.device)
        else:
            self._graph = graph

    def _forget(self) -> None:
        for one in self._parameters:
            one.grad = None
