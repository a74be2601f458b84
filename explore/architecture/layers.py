"""What mixings share: their two bases, initial weights, and the views between tokens and images."""

import math
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.parts import exporting
from explore.architecture.plain import plain_linear

Weighted = TypeVar("Weighted", nn.Linear, nn.Conv2d)


class TokenMixing(nn.Module):
    """Base of what mixes across patches: batch × tokens × channels in and out; norm and residual are the block's.

    The result is a new tensor, or a view of what came in: in inference the block adds to it in place.
    """

    position_blind: ClassVar[bool] = False
    """Permuting the patches permutes the result, so that the network has to tell the patches apart itself."""
    class_token: ClassVar[bool] = False
    """Takes a class token in front of the patches."""
    tied_to_grid: ClassVar[bool] = False
    """Its weights are made for one grid: their shapes, or what they mean, follow from its height and width."""
    has_norm: ClassVar[bool] = False
    """Begins with a norm of its own, so that the block needs none before it."""

    def deployed(self) -> nn.Module:
        """A module that computes the same in evaluation at less cost; here the mixing itself."""
        return self


class ChannelMixing(nn.Module):
    """Base of what mixes across the channels of each patch: batch × tokens × channels in and out.

    The result is a new tensor, or a view of what came in: in inference the block adds to it in place.
    """

    class_token: ClassVar[bool] = True
    """Takes a class token in front of the patches."""
    per_patch: ClassVar[bool] = True
    """What comes out at a patch depends on that patch only."""
    empty: ClassVar[bool] = False
    """Does nothing, so that a block leaves its branch out."""

    def deployed(self) -> nn.Module:
        """A module that computes the same in evaluation at less cost; here the mixing itself."""
        return self


def lecun_uniform(layer: Weighted) -> Weighted:
    """Draws the weights with variance 1 / fan-in, sets the bias to zero, and returns the layer.

    The variance is that of the Mixer's official code and keeps the scale of the activations at every width. Uniform
    where that code has a truncated normal, which takes ten times as long on a CPU.
    """
    bound = (3 / layer.weight[0].numel()) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def across_tokens(linear: nn.Linear, x: Tensor) -> Tensor:
    """Applies `linear` to the tokens of each channel: batch × tokens in × channels to batch × tokens out × channels."""
    if not plain_linear(linear):
        return linear(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]
    if torch.is_grad_enabled() and linear.out_features > 4 * x.shape[2]:
        # The backward pass of the form below would make a gradient of W for each image, here larger than x itself.
        return F.linear(x.transpose(1, 2), linear.weight, linear.bias).transpose(1, 2)
    # One batched product W·x + b in place of two transposes around x·Wᵀ + b; `W @ x` would transpose behind the scenes.
    bias = None if linear.bias is None else linear.bias.unsqueeze(1)
    return batched_product(as_autocast(linear.weight).expand(x.shape[0], -1, -1), x, bias)


def batched_product(first: Tensor, second: Tensor, bias: Tensor | None = None) -> Tensor:
    """`first·second + bias` for each of a batch of matrices: batch × rows × inner, batch × inner × columns.

    `bias` is of any shape that fits batch × rows × columns.
    """
    if bias is None:
        return torch.bmm(first, second)
    if torch.compiler.is_compiling() and not exporting():
        # A sum by itself is joined with what follows; in the product it would be written first, and read again.
        return torch.bmm(first, second) + as_autocast(bias)
    return torch.baddbmm(bias, first, second)


def as_autocast(weight: Tensor) -> Tensor:
    """A weight in the dtype that autocast multiplies in, to be repeated for each image: it would cast all of them."""
    kind = weight.device.type
    if weight.is_meta or weight.dtype != torch.float32 or not torch.is_autocast_enabled(kind):
        return weight
    return weight.to(torch.get_autocast_dtype(kind))


def hidden_width(expansion: float, width: int) -> int:
    """Hidden channels of an MLP, `expansion × width` rounded; raises `ValueError` when that leaves none."""
    hidden = round(expansion * width) if math.isfinite(expansion) else 0
    if hidden < 1:
        raise ValueError(f"expansion must give at least one hidden channel, got {expansion} for width {width}")
    return hidden


def dividing(name: str, parts: int, width: int) -> int:
    """Returns a number of parts that `width` can be cut into; raises `ValueError` for any other."""
    if parts < 1 or width % parts:
        allowed = ", ".join(map(str, divisors(width)))
        raise ValueError(f"{name} must divide width, got {parts} and {width}; try {allowed}")
    return parts


def divisors(number: int) -> list[int]:
    """What divides a number, smallest first."""
    return [one for one in range(1, number + 1) if number % one == 0]


def heads_of(width: int, channels: int) -> int:
    """The largest number of heads that leaves each at least so many channels; 1 where the width is smaller."""
    return max(count for count in divisors(width) if count == 1 or width // count >= channels)


def as_image(x: Tensor, grid: Grid) -> Tensor:
    """Batch × tokens × channels to batch × channels × rows × columns, a view in channels-last memory format."""
    return x.reshape(x.shape[0], grid.height, grid.width, x.shape[2]).permute(0, 3, 1, 2)


def as_tokens(image: Tensor) -> Tensor:
    """The inverse of `as_image`."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def odd(kernel: int) -> int:
    """Returns the side of a window that has a centre and reaches a neighbour; raises `ValueError` for any other."""
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"kernel must be an odd number of at least 3, got {kernel}; try 3, 5, 7, 9")
    return kernel
