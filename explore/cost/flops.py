"""Multiply-adds of a network, counted by fvcore in a trace; the only file that knows fvcore."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explore.cost.hollow import hollow
from explore.cost.operators import COUNTED, FREE

with warnings.catch_warnings():
    # fvcore scripts its loss functions when it is imported.
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
    from fvcore.nn import FlopCountAnalysis

# Products of weights and numbers in an image from which on it takes longer to compute than the meta device takes, which
# needs milliseconds for every operator that torch has written in Python for it, such as a norm.
_MUCH = 5e9


@dataclass(frozen=True, kw_only=True)
class Macs:
    """Multiply-adds of one image.

    Args:
        total: over all operators.
        by_operator: by name of the operator (`linear`, `convolution`, `matmul`, ...), largest first, zeros left out.
    """

    total: int
    by_operator: dict[str, int]


def count_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> Macs:
    """Counts the multiply-adds of matrix products, convolutions, attention and Fourier transforms for one image.

    One multiply-add counts one, as in the papers of the field; FLOPs as two operations each are twice as many. Biases,
    normalisation, activation functions and pooling are not counted. The network is traced in eval mode, a small one on
    the processor with weights that share one row of zeros, so that only the activations of one image need memory; a
    large one on the meta device, where it costs nothing, unless that is impossible (a convolution cannot be traced).

    Args:
        network: takes float `batch × channels × height × width`; on any device, the meta device included; not
            compiled; not changed.
        image_shape: channels, height and width of one image, in pixels.

    Raises:
        ValueError: an operator that is neither counted nor known to be free.
    """
    analysis = None
    if sum(parameter.numel() for parameter in network.parameters()) * math.prod(image_shape) > _MUCH:
        with suppress(TypeError, RuntimeError):
            analysis = _trace(network, image_shape, "meta", lambda tensor: torch.empty_like(tensor, device="meta"))
    analysis = analysis or _trace(network, image_shape, "cpu", _zeros)
    unknown = sorted(analysis.unsupported_ops())
    if unknown:
        raise ValueError(
            f"every operator must be counted or free, got {', '.join(unknown)}; add a handle to COUNTED or, if its "
            "work is only proportional to its input, its name to FREE (both in explore.cost.operators)"
        )
    by_operator = {name: round(count) for name, count in analysis.by_operator().most_common() if count}
    return Macs(total=sum(by_operator.values()), by_operator=by_operator)


def _trace(
    network: nn.Module, image_shape: tuple[int, int, int], device: str, stand_in: Callable[[Tensor], Tensor]
) -> FlopCountAnalysis:
    """An analysis whose trace has been made, so that reading from it cannot fail."""
    image = torch.zeros(1, *image_shape, device=device)
    analysis = FlopCountAnalysis(hollow(network, stand_in).eval(), image)
    analysis.clear_op_handles().set_op_handle(**COUNTED, **dict.fromkeys(FREE))
    # Operators nobody counts are reported by the caller; a module left out of the pass is no mistake.
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad(), _in_parts():
        analysis.total()
    return analysis


@contextmanager
def _in_parts() -> Iterator[None]:
    """Keep torch from computing a layer of a transformer in one operator, whose work nobody counts."""
    whole = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(whole)


def _zeros(like: Tensor) -> Tensor:
    """Zeros that share the memory of one row, which stays contiguous: a view as complex numbers insists on that."""
    return torch.zeros(like.shape[-1:], dtype=like.dtype).expand(like.shape)
