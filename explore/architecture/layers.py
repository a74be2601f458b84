"""The parts that every architecture is made of; tensors are batch × tokens × channels unless said otherwise.

Blocks are pre-norm residual blocks as in the MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601, Fig. 1) and ViT
(Dosovitskiy et al., 2020, arXiv 2010.11929, eq. 2-3): `x + mixing(norm(x))`, first across tokens, then across channels.
"""

from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid

NORM_EPS = 1e-6  # Mixer and ViT; PyTorch's own default is 1e-5.

Weighted = TypeVar("Weighted", nn.Linear, nn.Conv2d)


class TokenMixing(nn.Module):
    """Base of what mixes across patches: batch × tokens × channels in and out; norm and residual are the block's."""

    position_blind: ClassVar[bool] = False
    """Permuting the patches permutes the result, so that the network has to tell the patches apart itself."""
    class_token: ClassVar[bool] = False
    """Takes a class token in front of the patches."""
    tied_to_grid: ClassVar[bool] = False
    """Has weights whose shapes follow from the number of patches, or from the grid's height and width."""
    has_norm: ClassVar[bool] = False
    """Begins with a norm of its own, so that the block needs none before it."""

    def deployed(self) -> nn.Module:
        """A module that computes the same in evaluation at less cost; here the mixing itself."""
        return self


class ChannelMixing(nn.Module):
    """Base of what mixes across the channels of each patch: batch × tokens × channels in and out."""

    class_token: ClassVar[bool] = True
    """Takes a class token in front of the patches."""
    per_patch: ClassVar[bool] = True
    """What comes out at a patch depends on that patch only."""

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
    # One batched product W·x + b in place of two transposes around x·Wᵀ + b; `W @ x` would transpose behind the scenes.
    return torch.baddbmm(linear.bias.unsqueeze(1), linear.weight.expand(x.shape[0], -1, -1), x)


def hidden_width(expansion: float, width: int) -> int:
    """Hidden channels of an MLP, `expansion × width` rounded; raises `ValueError` when that leaves none."""
    hidden = round(expansion * width)
    if hidden < 1:
        raise ValueError(f"expansion must give at least one hidden channel, got {expansion} for width {width}")
    return hidden


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


class Stem(nn.Module):
    """Cuts images into patches and projects each: batch × channels × height × width to batch × tokens × width.

    The same map as a convolution with kernel and stride `patch_size`, whose weight flattens to this one, but as a
    matrix product, which every backend and cost counter handles alike.
    """

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = lecun_uniform(nn.Linear(channels * patch_size**2, width))

    def forward(self, image: Tensor) -> Tensor:
        """Height and width are multiples of `patch_size`; tokens are the patches row by row."""
        batch, channels, height, width = image.shape
        size = self.patch_size
        patches = image.reshape(batch, channels, height // size, size, width // size, size)
        patches = patches.permute(0, 2, 4, 1, 3, 5)  # batch, row, column, channels, size, size
        projected: Tensor = self.projection(patches.flatten(3).flatten(1, 2))
        return projected


class Downsample(nn.Module):
    """Joins each 2 × 2 patches into one: batch × tokens × width to batch × tokens/4 × new width.

    The same map as a convolution with kernel and stride 2. `grid` is the grid that comes in, even in both directions.
    """

    def __init__(self, grid: Grid, width: int, new_width: int) -> None:
        super().__init__()
        self.grid = grid
        self.projection = lecun_uniform(nn.Linear(4 * width, new_width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens are the patches row by row, before and after."""
        rows, columns = self.grid
        squares = x.reshape(x.shape[0], rows // 2, 2, columns // 2, 2, -1)
        joined: Tensor = self.projection(squares.transpose(2, 3).flatten(3).flatten(1, 2))
        return joined


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al., 2021, arXiv 2103.17239, section 2)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((width,), float(initial)))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape; channels come last."""
        return x * self.factor


class StochasticDepth(nn.Module):
    """In training, drops a whole branch for a random share `rate` of the images (Huang et al., 2016, arXiv 1603.09382).

    What is kept is divided by `1 - rate`, so that the expectation is that of evaluation, where nothing is dropped.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels, one draw per image."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * (x.new_empty(x.shape[0], 1, 1).bernoulli_(keep) / keep)


class Residual(nn.Module):
    """`x + mixing(norm(x))`, the branch scaled by `layer_scale` and dropped with probability `drop_path`."""

    def __init__(self, mixing: nn.Module, width: int, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mixing = mixing
        self.scale = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.drop = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        branch: Tensor = self.drop(self.scale(self.mixing(self.norm(x))))
        return x + branch


class Block(nn.Module):
    """Mixes across tokens, then across channels, each as a residual branch."""

    def __init__(
        self,
        token_mixing: TokenMixing,
        channel_mixing: ChannelMixing,
        width: int,
        *,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.token = Residual(token_mixing, width, layer_scale, drop_path)
        self.channel = Residual(channel_mixing, width, layer_scale, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.channel(self.token(x))
        return mixed
