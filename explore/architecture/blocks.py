"""What a block puts around its two mixings: norms, residuals, layer scale and stochastic depth.

Tensors are batch × tokens × channels. The designs by name, for a token mixing T, a channel mixing C and norms N:

- `pre_norm`: x + T(N(x)), then x + C(N(x)); MLP-Mixer (arXiv 2105.01601, Fig. 1), ViT (arXiv 2010.11929, eq. 2-3).
- `post_norm`: N(x + T(x)), then N(x + C(x)); Transformer (arXiv 1706.03762), FNet (arXiv 2105.03824).
- `joint`: x + C(N(T(N(x)))), one residual around both; GFNet (arXiv 2107.00645, Fig. 2).
- `convnext`: x + C(N(T(x))); ConvNeXt (arXiv 2201.03545, Fig. 4).
- `convmixer`: x + N(GELU(T(x))), then N(GELU(C(x))); ConvMixer (arXiv 2201.09792, eq. 2-3).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explore.architecture.hidden import activated, added
from explore.architecture.layers import ChannelMixing, TokenMixing


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


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the network decides about a block, whatever it mixes with.

    `norm` and `activation` make new layers, the former for a width; `layer_scale` is the initial factor, None for none;
    `drop_path` is the probability of stochastic depth.
    """

    norm: Callable[[int], nn.Module]
    activation: Callable[[], nn.Module]
    layer_scale: float | None = None
    drop_path: float = 0.0


class Residual(nn.Module):
    """`x + branch(x)`, the branch in the order norm, mixing, scale, drop."""

    def __init__(self, norm: nn.Module, mixing: nn.Module, width: int, around: Surroundings) -> None:
        super().__init__()
        self.norm = norm
        self.mixing = mixing
        self.scale = nn.Identity() if around.layer_scale is None else LayerScale(width, around.layer_scale)
        self.drop = StochasticDepth(around.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        return added(x, self.drop(self.scale(self.mixing(self.norm(x)))))


class PreNorm(nn.Module):
    """Each mixing on its own residual branch, behind a norm; a mixing that brings its norm gets none."""

    def __init__(self, token: TokenMixing, channel: ChannelMixing, width: int, around: Surroundings) -> None:
        super().__init__()
        self.token = Residual(nn.Identity() if token.has_norm else around.norm(width), token, width, around)
        self.channel = nn.Identity() if channel.empty else Residual(around.norm(width), channel, width, around)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.channel(self.token(x))
        return mixed


class PostNorm(nn.Module):
    """Each mixing on its own residual branch, with a norm behind the sum."""

    def __init__(self, token: TokenMixing, channel: ChannelMixing, width: int, around: Surroundings) -> None:
        super().__init__()
        self.token = Residual(nn.Identity(), token, width, around)
        self.token_norm = around.norm(width)
        self.channel = nn.Identity() if channel.empty else Residual(nn.Identity(), channel, width, around)
        self.channel_norm = nn.Identity() if channel.empty else around.norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.channel_norm(self.channel(self.token_norm(self.token(x))))
        return mixed


class Joint(Residual):
    """Both mixings on one residual branch."""

    def __init__(self, token: TokenMixing, channel: ChannelMixing, width: int, around: Surroundings) -> None:
        both = nn.Sequential()
        both.add_module("token", token)
        both.add_module("norm", around.norm(width))
        both.add_module("channel", channel)
        super().__init__(self._first_norm(token, width, around), both, width, around)

    @staticmethod
    def _first_norm(token: TokenMixing, width: int, around: Surroundings) -> nn.Module:
        return nn.Identity() if token.has_norm else around.norm(width)


class ConvNext(Joint):
    """Both mixings on one residual branch that begins with the token mixing."""

    @staticmethod
    def _first_norm(token: TokenMixing, width: int, around: Surroundings) -> nn.Module:
        return nn.Identity()


class ConvMixer(nn.Module):
    """Activation and norm behind each mixing; a residual around the token mixing only."""

    def __init__(self, token: TokenMixing, channel: ChannelMixing, width: int, around: Surroundings) -> None:
        super().__init__()
        activated = nn.Sequential()
        activated.add_module("token", token)
        activated.add_module("activation", around.activation())
        activated.add_module("norm", around.norm(width))
        self.token = Residual(nn.Identity(), activated, width, around)
        self.channel = channel
        self.activation = around.activation()
        self.norm = around.norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.norm(activated(self.activation, self.channel(self.token(x))))
        return mixed


BLOCKS: dict[str, Callable[[TokenMixing, ChannelMixing, int, Surroundings], nn.Module]] = {
    "pre_norm": PreNorm,
    "post_norm": PostNorm,
    "joint": Joint,
    "convnext": ConvNext,
    "convmixer": ConvMixer,
}
