"""Peak memory of a pass, worked out from shapes: nothing is computed, unless it is asked for."""

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from explore.cost.device import autocast
from explore.cost.hollow import hollow

_CPU = torch.device("cpu")


def peak_memory(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    batch_size: int,
    *,
    precision: str = "32-true",
    training: bool = False,
    watch: AbstractContextManager[Any] | None = None,
    computed: bool = False,
) -> int:
    """Largest number of bytes that live at one time in the tensors of one pass.

    Included: parameters, buffers, the batch of images, activations, the copies that autocast makes of weights and,
    when `training`, everything kept for the backward pass and the gradients. Not included: the state of the optimizer,
    scratch space inside an operator (convolution, matrix product), and what an allocator holds beyond the tensors.
    Operators are those torch chooses on the processor: attention is fused and keeps no tokens × tokens matrix. In
    inference the batch goes through as a whole, as on a GPU; in parts, on a processor, it needs less.

    Args:
        network: takes float `batch × channels × height × width`; on any device, the meta device included; not changed.
        image_shape: channels, height and width of one image, in pixels.
        batch_size: images in the pass.
        precision: `32-true` or `bf16-mixed`.
        training: forward in training mode and backward, instead of inference.
        watch: is entered for the pass, to see its operators.
        computed: take zeros in place of tensors without numbers, which need half a millisecond for every operator. It
            allocates what it returns; a network that no zeros can go through raises an error of its own.
    """
    # Constants that a network keeps outside its buffers are real tensors.
    fake = None if computed else FakeTensorMode(allow_non_fake_inputs=True)
    copy = hollow(network, lambda one: _stand_in(one, fake))
    with fake or nullcontext():
        images = torch.zeros(batch_size, *image_shape, device=_CPU)
        images = images.as_subclass(_Zeros) if computed else images
        live = _LiveStorages([images, *copy.parameters(), *copy.buffers()])
        with (
            nullcontext() if training else torch.inference_mode(),
            autocast(_CPU, precision),
            live,
            watch or nullcontext(),
        ):
            output = copy.train(training)(images)
            if training:
                output.sum().backward()
    return live.peak


class _Zeros(Tensor):
    """What is made of one is one, by which a network sees that it is not asked for numbers and takes no form that was
    found to be fast on this processor."""


def _stand_in(tensor: Tensor, fake: FakeTensorMode | None) -> Tensor:
    if fake is None:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    # Made one by one inside the mode, the weights would take half of the time of all.
    return FakeTensor(fake, torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"), _CPU)


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage from the operator that makes it until the last tensor on it is gone."""

    def __init__(self, resident: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[int, int] = {}
        self.bytes = 0
        self.peak = 0
        self._follow(resident)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._follow([leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)])
        return result

    def _follow(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self.live:
                self.live[key] = storage.nbytes()
                self.bytes += self.live[key]
                weakref.finalize(storage, self._release, key)
        self.peak = max(self.peak, self.bytes)

    def _release(self, key: int) -> None:
        self.bytes -= self.live.pop(key)
