"""Products of float32 by oneDNN, where that is faster than the library that torch would call.

Large ones are, on processors with AVX-512: by a tenth (see docs/log.md). That is a rule and not measured at work: two
trainings of a network on one machine would differ in their last digits. With GELU inside, which is for inference only,
it depends on the size, so that the two forms are timed once for each size of layer, in some milliseconds, at its first
pass in a process.
"""

import time
from functools import cache

import torch
from torch import Tensor, nn

from explore.architecture.hidden import activated
from explore.architecture.parts import runs_now_on_processor
from explore.architecture.plain import hooked, plain_linear

# Multiply-adds from which on oneDNN is worth the 15 µs that it takes longer to begin, without GELU and with it.
_LARGE, _LARGE_WITH_GELU = 1.5e7, 1e6
_WORK = 2e7  # multiply-adds of a product that is timed
_ROUNDS = 5
_MARGIN = 1.1  # so that two processes on one machine do not choose differently


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x·Wᵀ + b` of any leading axes × inputs, in the form that is faster here; without gradients."""
    return _by_onednn(x, weight, bias) if _suits_onednn(x, weight) else nn.functional.linear(x, weight, bias)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)`, in the form that is faster here."""
    return _linear(layer, x) if plain_linear(layer) else layer(x)


def linear_and_gelu(layer: nn.Linear, gelu: nn.Module, x: Tensor) -> Tensor:
    """`gelu(layer(x))` for an activation function that need not be GELU; the form of it that is faster here."""
    if not plain_linear(layer):
        return gelu(layer(x))  # type: ignore[no-any-return]
    if not torch.is_grad_enabled() and type(gelu) is nn.GELU and _admits(x, layer.weight):
        outputs, inputs = layer.weight.shape
        large = x.numel() * outputs >= _LARGE_WITH_GELU and not hooked(gelu)
        if large and fused_is_faster(inputs, outputs, gelu.approximate, torch.get_num_threads()):
            return fused(x, layer.weight, layer.bias, gelu.approximate)
    return activated(gelu, _linear(layer, x))


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


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if torch.is_grad_enabled() or not _suits_onednn(x, layer.weight):
        return layer(x)  # type: ignore[no-any-return]
    return _by_onednn(x, layer.weight, layer.bias)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    try:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    except RuntimeError:  # it puts weights into another order first: where memory is short there may be none for that
        return nn.functional.linear(x, weight, bias)
    return result


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return _admits(x, weight) and x.numel() * len(weight) >= _LARGE and _has_avx512()


@cache
def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _admits(x: Tensor, weight: Tensor) -> bool:
    # A tensor of a subclass is a fake one or a stranger.
    if type(x) is not Tensor or not runs_now_on_processor(x):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
