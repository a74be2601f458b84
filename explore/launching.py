"""What a GPU is given at once: the kernels that an action launches, captured as a CUDA graph.

A pass of a small network is some dozen kernels that keep a GPU busy for a few microseconds each, and Python takes ten
times as long to launch one.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Pool = Any  # of memory: its handle, of a type that torch keeps to itself
_SETTLING = 2  # passes in which libraries do what they do only once


def at_once(action: Callable[[], object], device: torch.device, pool: Pool | None = None) -> Callable[[], object]:
    """What launches all kernels of `action` at once; `action` itself where that cannot be.

    That is on a processor, where the action waits for the device, and where memory is short. It must do the same each
    time, from the same memory to the same memory; what it returns is lost. Memory of a `pool` is shared by all that are
    captured with it, of which only one may be launched at a time.
    """
    if device.type != "cuda":
        return action
    for _ in range(_SETTLING):
        action()
    _, waits = watched(action)
    if waits:
        return action
    try:
        graph, _ = captured(action, device, pool)
    except RuntimeError:
        return action
    return _Launch(graph, action)


@dataclass(frozen=True)
class _Launch:
    """All kernels of an action; keeps the action, whose memory they read and which would be given to others without."""

    graph: torch.cuda.CUDAGraph
    action: Callable[[], object]

    def __call__(self) -> None:
        self.graph.replay()


def watched(action: Callable[[], Result]) -> tuple[Result, str]:
    """Take an action; the words say where it waits for the GPU, and are empty where it does not.

    What waits must not be captured: an attempt could leave the device unusable.
    """
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # which itself warns that it may overlook something
        try:
            result = action()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    waits = (str(one.message) for one in said if "synchronizing CUDA operation" in str(one.message))
    return result, next(waits, "")


def captured(
    action: Callable[[], Result], device: torch.device, pool: Pool | None = None
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """The graph of what an action launches, and what it returned: memory in which there is nothing yet.

    Raises RuntimeError where it cannot be captured; the device is afterwards as it was.
    """
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    own: Any = pool or torch.cuda.graph_pool_handle()  # whose type has no public name
    with torch.cuda.device(device):
        try:
            # Another thread may allocate memory meanwhile, as the one that gathers images from disk.
            with torch.cuda.graph(graph, own, _stream(device), capture_error_mode="thread_local"):
                result = action()
        except RuntimeError:
            _undo(own, current)
            raise
    return graph, result


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where what is meant for a device is captured.

    By default torch captures on the device that was the current one at its first capture, and would find nothing on
    that while another one computes. One for each device, because libraries keep memory for each stream.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _undo(pool: Pool, stream: torch.cuda.Stream) -> None:
    """Take back what a capture that failed leaves behind: its stream, its draws and its memory."""
    torch.cuda.set_stream(stream)
    torch.cuda.synchronize(stream.device)
    generator = torch.cuda.default_generators[stream.device.index]
    generator.graphsafe_set_state(generator.clone_state())  # of which no graph is waiting
    with suppress(RuntimeError, AttributeError):  # where the capture has ended in order, the pool has as well
        torch._C._cuda_endAllocateToPool(stream.device.index, pool)
