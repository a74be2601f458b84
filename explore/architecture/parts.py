"""How many images a processor takes at once.

What an image becomes inside a network is many times the image. As long as that of all images taken together stays in
the cache, an operator finds there what the one before it left, and the system has no fresh pages of memory to hand out.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad

_BYTES = 2 * 2**20  # of hidden values for each thread, about what stays in its cache
_ROWS = 1024  # fewer, and a matrix product takes a notable share of its time for packing its weight


def images_at_once(batch: int, hidden: int, tokens: int, itemsize: int) -> int:
    """How many of a batch to take at once, when each has so many hidden values of `itemsize` bytes and so many tokens.

    The parts are as equal as they can be.
    """
    by_cache = _BYTES // (hidden * itemsize)
    by_rows = -(-_ROWS // tokens)
    most = max(by_cache, by_rows) * torch.get_num_threads()
    parts = -(-batch // most)
    return -(-batch // max(parts, 1)) or 1


def fit_into_cache(values: int, itemsize: int) -> bool:
    """Whether so many hidden values of `itemsize` bytes need no parts."""
    return values * itemsize <= _BYTES * torch.get_num_threads()


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def runs_now_on_processor(x: Tensor) -> bool:
    """Whether operators run one by one on a processor: nothing is compiled, exported, traced or transformed."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return x.device.type == "cpu" and not traced and not transformed()


def exporting() -> bool:
    """Whether a program is made for others to run, that must do with PyTorch's own operators.

    Read from the flag: in PyTorch 2.11 `is_exporting` is true in whatever is compiled. PyTorch 2.6 has neither, and
    what is compiled there is taken for it.
    """
    return bool(getattr(torch.compiler, "_is_exporting_flag", torch.compiler.is_compiling()))


def transformed() -> bool:
    """Whether operators must be those that PyTorch can transform: for `torch.func` (`vmap`, `grad`, `jvp`) or tangents.

    Asked of the thread and not of a tensor, because a parameter may be transformed where what comes in is not.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
