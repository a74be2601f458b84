"""A linear layer and GELU in one operator of oneDNN, where that was measured to be faster than two operators.

With AVX-512 it is: GELU hides behind the product. With AVX2 alone oneDNN's GELU takes longer than PyTorch's. So the two
are timed once for each size of layer, in some milliseconds, at its first pass in a process.
"""

import time
from functools import cache

import torch
from torch import Tensor, nn

from explore.architecture.hidden import activated
from explore.architecture.parts import runs_now_on_processor

_WORK = 2e7  # multiply-adds of a product that is timed
_ROUNDS = 5
_MARGIN = 1.1  # so that two processes on one machine do not choose differently


def linear_and_gelu(linear: nn.Linear, gelu: nn.Module, x: Tensor) -> Tensor:
    """`gelu(linear(x))` for an activation function that need not be GELU; the form of it that is faster here."""
    if not torch.is_grad_enabled() and type(gelu) is nn.GELU and _admits(linear, x):
        outputs, inputs = linear.weight.shape
        if fused_is_faster(inputs, outputs, gelu.approximate, torch.get_num_threads()):
            return fused(x, linear.weight, linear.bias, gelu.approximate)
    return activated(gelu, linear(x))


def fused(x: Tensor, weight: Tensor, bias: Tensor | None, approximate: str) -> Tensor:
    """GELU of `x·Wᵀ + b` by oneDNN; `x` is any leading axes × channels, float32, on a processor, without gradients."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], approximate)
    return result


@cache
def fused_is_faster(inputs: int, outputs: int, approximate: str, threads: int) -> bool:
    """Whether oneDNN's operator is the faster one for a layer of this size with so many threads; timed once."""
    rows = min(1024, max(64, int(_WORK / (inputs * outputs))))
    # Not random: nobody's generator moves for this.
    x, weight, bias = torch.ones(rows, inputs), torch.ones(outputs, inputs), torch.ones(outputs)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_ROUNDS):
        for one, times in seconds.items():
            began = time.perf_counter()
            if one:
                fused(x, weight, bias, approximate)
            else:
                torch.ops.aten.gelu_(nn.functional.linear(x, weight, bias), approximate=approximate)
            times.append(time.perf_counter() - began)
    return min(seconds[True]) * _MARGIN < min(seconds[False])


def _admits(linear: nn.Linear, x: Tensor) -> bool:
    # A tensor of a subclass is a fake one or a stranger.
    if type(x) is not Tensor or not runs_now_on_processor(x) or not torch._C._has_mkldnn:
        return False
    return x.dtype == linear.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
