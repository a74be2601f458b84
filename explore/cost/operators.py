"""How many multiply-adds an operator costs, read off the shapes in a trace; and which operators count as free.

Multiply-adds are those of matrix products, convolutions, attention and Fourier transforms, as in the papers' FLOPs.
Normalisation, activation functions, pooling and other operators whose work is proportional to their input are free.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Values: TypeAlias = Sequence[Any]
Handle: TypeAlias = Callable[[Values, Values], float | Counter[str]]


def matrix_product(left: int) -> Handle:
    """Counts a product whose left factor is the input number `left`; leading axes may broadcast."""

    def count(inputs: Values, outputs: Values) -> float:
        return math.prod(_shape(outputs[0])) * _shape(inputs[left])[-1]

    return count


def tensordot(inputs: Values, outputs: Values) -> float:
    """Counts a product over several axes: output elements × contracted elements."""
    shape = _shape(inputs[0])
    contracted = _integers(inputs[2]) or []
    return math.prod(_shape(outputs[0])) * math.prod(shape[axis] for axis in contracted)


def einsum(inputs: Values, outputs: Values) -> float:
    """Counts `einsum` of one or two operands; without an axis to contract it is elementwise, hence free.

    Raises:
        ValueError: there are more operands, so that the count depends on the order of the products.
    """
    shapes = [_shape(value) for value in inputs[1].node().inputs()]
    equation = inputs[0].toIValue().replace(" ", "")
    if len(shapes) > 2:
        raise ValueError(f"einsum must have at most 2 operands to be counted, got {equation!r}; write it as products")
    if len(shapes) == 1:
        return 0
    terms, _, result = equation.partition("->")
    operands = terms.split(",")
    # Digits name the axes behind an ellipsis, counted from the last one, as broadcasting does.
    labels = [
        term.replace("...", "".join(str(axis) for axis in reversed(range(len(shape) - len(term) + 3))))
        for term, shape in zip(operands, shapes, strict=True)
    ]
    sizes: dict[str, int] = {}
    for term, shape in zip(labels, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    kept = set(result) if "->" in equation else {label for label in sizes if "".join(operands).count(label) == 1}
    kept = {label for label in sizes if label in kept or label.isdigit()}
    shared = set(labels[0]) & set(labels[1])
    # An axis of one operand that the result lacks is summed before the product, which makes it free.
    return math.prod(sizes[label] for label in shared | kept) if shared - kept else 0


def attention(inputs: Values, outputs: Values) -> float:
    """Counts query × key and weights × value; a mask saves nothing."""
    *batch, queries, channels = _shape(inputs[0])
    keys = _shape(inputs[1])[-2]
    return math.prod(batch) * queries * keys * (channels + _shape(inputs[2])[-1])


def convolution(*, may_be_transposed: bool) -> Handle:
    """Counts every weight once for each position of the output, of the input when the convolution is transposed."""

    def count(inputs: Values, outputs: Values) -> Counter[str]:
        transposed = may_be_transposed and inputs[6].toIValue()
        batch, _, *positions = _shape(inputs[0] if transposed else outputs[0])
        return Counter(convolution=batch * math.prod(positions) * math.prod(_shape(inputs[1])))

    return count


def fourier(*, real: bool, inverse_of_real: bool = False, axes: Sequence[int] | None = None) -> Handle:
    """Counts a fast Fourier transform of N points as 2.5 N log2 N, half of the usual 5 N log2 N operations.

    Args:
        real: half as much, since one side is real.
        inverse_of_real: the real side is the output.
        axes: the transformed axes when the call names none; None means all.
    """

    def count(inputs: Values, outputs: Values) -> float:
        shape = list(_shape(outputs[0] if inverse_of_real else inputs[0]))
        lengths = _integers(inputs[1])
        chosen = _integers(inputs[2]) or axes or range(-len(lengths or shape), 0)
        for axis, length in zip(chosen, lengths or [], strict=False):
            shape[axis] = shape[axis] if length == -1 else length
        return (1.25 if real else 2.5) * math.prod(shape) * sum(math.log2(shape[axis]) for axis in chosen)

    return count


def _fourier_handles() -> dict[str, Handle]:
    handles: dict[str, Handle] = {}
    for suffix, axes in {"fft": None, "fft2": (-2, -1), "fftn": None}.items():
        for prefix in ("", "i"):
            handles[f"aten::fft_{prefix}{suffix}"] = fourier(real=False, axes=axes)
        handles[f"aten::fft_r{suffix}"] = fourier(real=True, axes=axes)
        handles[f"aten::fft_ir{suffix}"] = fourier(real=True, inverse_of_real=True, axes=axes)
    return handles


# All of them, because fvcore's own handles count normalisation, forget axes that the left factor of a matmul is
# broadcast over, and estimate einsum.
COUNTED: dict[str, Handle] = {
    "aten::linear": matrix_product(0),
    "aten::matmul": matrix_product(0),
    "aten::mm": matrix_product(0),
    "aten::bmm": matrix_product(0),
    "aten::mv": matrix_product(0),
    "aten::dot": matrix_product(0),
    "aten::addmm": matrix_product(1),
    "aten::addmm_": matrix_product(1),
    "aten::baddbmm": matrix_product(1),
    "aten::baddbmm_": matrix_product(1),
    # Each row of the left factor meets the matrix of one expert.
    "explore::expert_product": matrix_product(0),
    "aten::tensordot": tensordot,
    "aten::einsum": einsum,
    "aten::scaled_dot_product_attention": attention,
    "aten::_convolution": convolution(may_be_transposed=True),
    "aten::convolution": convolution(may_be_transposed=True),
    # Padding `same` or `valid`.
    "aten::_convolution_mode": convolution(may_be_transposed=False),
    **_fourier_handles(),
}

_ARITHMETIC = """
    __or__ __xor__ abs add addcdiv addcmul angle ceil clamp clamp_max clamp_min cos div eq exp expm1 floor ge gt le lerp
    log log1p logical_and logical_not logical_or logical_xor lt masked_fill maximum minimum mul ne neg pow reciprocal
    round rsqrt rsub sign sin sqrt square sub where
"""
_ACTIVATION = """
    celu elu erf gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid log_softmax mish prelu relu
    relu6 rrelu selu sigmoid silu softmax softplus softshrink tanh threshold
"""
_RANDOM = "alpha_dropout bernoulli dropout feature_dropout rand rand_like randn randn_like"
_REDUCTION = """
    amax amin argmax argmin argsort cumsum linalg_norm linalg_vector_norm logsumexp max mean min norm prod sort std
    std_mean sum topk var var_mean
"""
_NORMALISATION = "batch_norm group_norm instance_norm layer_norm rms_norm"
_POOLING = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d
    grid_sampler max_pool1d max_pool2d upsample_bicubic2d upsample_bilinear2d upsample_nearest1d upsample_nearest2d
"""
_REARRANGEMENT = """
    adjoint alias as_strided broadcast_to channel_shuffle clone col2im complex concat conj diagonal embedding empty_like
    expand_as fft_fftshift fft_ifftshift fill flip gather hstack im2col imag index_select lift_fresh linspace mH mT
    meshgrid movedim new_ones numpy_T ones_like pad pixel_shuffle pixel_unshuffle real reflection_pad1d reflection_pad2d
    repeat repeat_interleave replication_pad1d replication_pad2d reshape_as resolve_conj scatter swapaxes swapdims
    take_along_dim tensor_split tile tril triu unflatten unfold view_as view_as_complex view_as_real vstack zero
"""
_NAMES = (_ARITHMETIC, _ACTIVATION, _RANDOM, _REDUCTION, _NORMALISATION, _POOLING, _REARRANGEMENT)

# Also in place. fvcore itself passes over further operators that only move data.
FREE: set[str] = {f"aten::{name}{ending}" for name in " ".join(_NAMES).split() for ending in ("", "_")}

OTHER = "other"
_KINDS = {
    "product": "linear matmul mm mv dot addmm tensordot einsum",
    "batched_product": "bmm baddbmm",
    "convolution": "convolution _convolution _convolution_mode",
    "attention": "scaled_dot_product_attention",
    "fourier": " ".join(name.removeprefix("aten::") for name in _fourier_handles()),
    "arithmetic": _ARITHMETIC,
    "activation": _ACTIVATION,
    "softmax": "softmax log_softmax _softmax _safe_softmax",
    "reduction": _REDUCTION + _POOLING,
    "normalisation": _NORMALISATION,
    OTHER: _RANDOM + _REARRANGEMENT,
}
# What the time of an operator depends on, by its name; a later kind wins over an earlier one.
KINDS: dict[str, str] = {
    f"aten::{name}{ending}": kind for kind, names in _KINDS.items() for name in names.split() for ending in ("", "_")
} | {"explore::expert_product": "product"}


def _shape(value: Any) -> list[int]:
    shape: list[int] = value.type().sizes()
    return shape


def _integers(value: Any) -> list[int] | None:
    """An integer or a list of integers in a trace, as a list; None for None."""
    if value.node().kind() == "prim::ListConstruct":
        return [item.toIValue() for item in value.node().inputs()]
    constant = value.toIValue()
    return [constant] if isinstance(constant, int) else constant
