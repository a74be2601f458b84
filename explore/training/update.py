"""What a GPU does with a gradient, a step of the optimizer and of the average of the weights, launched at once."""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from explore.launching import captured


def launch_updates(optimizer: Optimizer, fixed: Callable[[], bool]) -> None:
    """Let an optimizer take its steps as an `Update` does, where its weights are on a GPU."""
    if optimizer.param_groups[0]["params"][0].is_cuda:
        optimizer.step = Update(optimizer, fixed)  # type: ignore[method-assign, assignment]


class Update:
    """Stands in the place of `optimizer.step`, with all that hangs on it, for an optimizer whose weights are on a GPU.

    While the gradients are `fixed`, which is to say that each lies where it lay at the last step, what a step launches
    is captured as a CUDA graph and launched again. The learning rate may change, and what else the optimizer and its
    hooks read must be on the GPU or stay as it is. The first step is an ordinary one, which makes the state.
    """

    def __init__(self, optimizer: Optimizer, fixed: Callable[[], bool]) -> None:
        self.called_because = ""  # in words, why a step that could have been captured was not
        self._optimizer = optimizer
        self._fixed = fixed
        self._step = type(optimizer).step.__get__(optimizer)  # not that of another `Update`
        self._graph: torch.cuda.CUDAGraph | None = None
        self._gradients: list[Tensor | None] = []  # that were captured
        device = optimizer.param_groups[0]["params"][0].device
        self._lr = [torch.zeros((), device=device) for _ in optimizer.param_groups]

    @property
    def captured(self) -> bool:
        """Whether the next step is launched at once, if gradients stay where they are."""
        return self._graph is not None

    def __call__(self, closure: Callable[[], Any] | None = None) -> None:
        """Take a step; `closure`, of which Lightning hands over an empty one, is not called."""
        for lr, group in zip(self._lr, self._optimizer.param_groups, strict=True):
            lr.fill_(group["lr"])
        gradients = [one.grad for group in self._optimizer.param_groups for one in group["params"]]
        if not self._fixed() or not self._optimizer.state or self.called_because:
            self._graph = None
        elif self._graph is None or not all(map(operator.is_, gradients, self._gradients)):
            self._capture(gradients)
        if self._graph is not None:
            self._graph.replay()
            return
        with self._on_gpu(capturable=False):  # an ordinary step rounds the rate as one that is launched does
            self._step()

    def _capture(self, gradients: list[Tensor | None]) -> None:
        self._graph, self._gradients = None, gradients
        try:
            with self._on_gpu(capturable=True):
                self._graph, _ = captured(self._step, self._lr[0].device)
        except RuntimeError as error:
            self.called_because = f"it could not be captured: {error}"

    @contextmanager
    def _on_gpu(self, *, capturable: bool) -> Iterator[None]:
        """The learning rates as numbers on the GPU; afterwards as they were, for schedules and checkpoints."""
        groups = self._optimizer.param_groups
        before = [(group["lr"], group["capturable"]) for group in groups]
        try:
            for lr, group in zip(self._lr, groups, strict=True):
                group["lr"], group["capturable"] = lr, capturable
            yield
        finally:
            for (rate, own), group in zip(before, groups, strict=True):
                group["lr"], group["capturable"] = rate, own
