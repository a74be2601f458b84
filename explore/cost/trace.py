"""The features of a network and the memory that it takes, from one pass, in which nothing is computed but zeros."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from explore.cost.device import resolve_precision
from explore.cost.features import VIEW, Features, Work
from explore.cost.memory import peak_memory
from explore.cost.operators import COUNTED, KINDS, OTHER

_VECTOR = 16  # numbers in float32 that the widest vector units of processors take at once
_FAR = 4 * 2**20  # bytes
_MUCH = 8e8  # multiply-adds of a pass, from which on it takes longer to compute than to follow without numbers


def features(network: nn.Module, image_shape: tuple[int, int, int], batch_size: int) -> Features:
    """The work of one inference pass, see `memory_and_features`."""
    return memory_and_features(network, image_shape, batch_size)[1]


def memory_and_features(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    batch_size: int,
    *,
    precision: str = "32-true",
    macs: int | None = None,
) -> tuple[int, Features]:
    """What `peak_memory` says of one inference pass, and its work by kind of operator in float32; takes milliseconds.

    Operators that `explore.cost.operators` does not know are taken apart where torch can do so; what is left counts as
    `other`, by its bytes. So networks with operators of their own have features, too.

    Args:
        network: takes float `batch × channels × height × width`; on any device, the meta device included; not
            compiled; not changed.
        image_shape: channels, height and width of one image, in pixels.
        batch_size: images in the pass.
        precision: of the memory, `32-true` or `bf16-mixed`.
        macs: multiply-adds of one image; where there are few, zeros go through the network, which takes less time.
    """
    if macs is not None and macs * batch_size < _MUCH and _is_quick(precision):
        with suppress(Exception):  # of a network that no zeros can go through, such as one that inverts a matrix
            return _memory_and_features(network, image_shape, batch_size, precision, computed=True)
    return _memory_and_features(network, image_shape, batch_size, precision, computed=False)


def _memory_and_features(
    network: nn.Module, image_shape: tuple[int, int, int], batch_size: int, precision: str, *, computed: bool
) -> tuple[int, Features]:
    seen = _Operators()
    memory = peak_memory(network, image_shape, batch_size, watch=seen, computed=computed)
    if precision != "32-true":  # where casts that are made once would count as the work of a pass
        memory = peak_memory(network, image_shape, batch_size, precision=precision, computed=computed)
    return memory, Features(dict(seen.work))


def _is_quick(precision: str) -> bool:
    """Whether this processor has instructions for it; without them a product takes thirty times as long."""
    return precision in ("32-true", resolve_precision("auto", torch.device("cpu")))


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the work of the operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work: defaultdict[str, Work] = defaultdict(Work)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if func.namespace == "prim" or name == "aten::alias":  # a question to a tensor, such as its device
            return func(*args, **kwargs)
        if name not in KINDS:
            # Inference mode leaves operators whole that torch composes of others; a table of all would be long.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        if not func._schema.is_mutable and all(one.untyped_storage()._cdata in known for one in outputs):
            self.work[VIEW] += Work(calls=1)
            return result
        self.work[KINDS.get(name, OTHER)] += _work(_macs(func, args, kwargs, outputs), inputs, outputs)
        return result


def _macs(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], outputs: Sequence[Tensor]) -> int:
    """Multiply-adds by the formula for traced graphs, which know every argument; 0 for an operator without one."""
    schema = func._schema
    if schema.name not in COUNTED:
        return 0
    rest = schema.arguments[len(args) :]
    every = [*args, *(kwargs.get(one.name, one.default_value) for one in rest)]
    count = COUNTED[schema.name]([_Value(one) for one in every], [_Value(one) for one in outputs])
    return round(sum(count.values()) if isinstance(count, Counter) else count)


def _work(macs: int, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    sizes = [tensor.numel() * tensor.element_size() for tensor in (*inputs, *outputs)]
    length = outputs[0].shape[-1] if outputs and outputs[0].dim() else 1
    return Work(
        calls=1,
        macs=macs,
        filled_macs=macs * math.ceil(length / _VECTOR) * _VECTOR // max(1, length),
        bytes=sum(sizes),
        far_bytes=sum(size for size in sizes if size > _FAR),
        rows=sum(tensor.numel() // max(1, tensor.shape[-1]) for tensor in outputs if tensor.dim()),
    )


class _Value:
    """An argument of an operator that runs, with what `explore.cost.operators` asks of a value in a traced graph."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def type(self) -> "_Value":
        return self

    def sizes(self) -> list[int]:
        return list(self.value.shape)

    def node(self) -> "_Value":
        return self

    def kind(self) -> str:
        return "prim::ListConstruct" if isinstance(self.value, Sequence) else "prim::Constant"

    def inputs(self) -> list["_Value"]:
        return [_Value(one) for one in self.value]

    def toIValue(self) -> Any:  # noqa: N802
        return self.value


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
