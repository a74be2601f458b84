"""An MLP over the channels with a depthwise convolution inside, the Mix-FFN of PVTv2 and SegFormer.

Wang et al., 2021, arXiv 2106.13797, and Xie et al., 2021, arXiv 2105.15203: the inverted residual of MobileNetV2
(Sandler et al., 2018, arXiv 1801.04381) with one activation function, behind the convolution, and without batch norms.
"""

from typing import ClassVar

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.hidden import activated
from explore.architecture.layers import ChannelMixing, as_image, as_tokens, hidden_width, lecun_uniform, odd


class InvertedMlp(ChannelMixing):
    """An MLP over the channels whose hidden channels are filtered over the grid of patches, zero-padded to keep it.

    Formula: `Y = gelu(D ∗ (X·W₁ + b₁) + d)·W₂ + b₂`, D one k × k filter per hidden channel.
    Mixes: the channels of each patch, and the k × k patches around it.
    `expansion`: hidden channels as a multiple e of `width`.
    `kernel`: side k of the filter in patches, odd.
    Parameters: 2·e·C² + (e + 1)·C + e·C·(k² + 1); multiply-adds: 2·e·S·C² + e·S·C·k², for S tokens of C channels.
    """

    class_token: ClassVar[bool] = False
    per_patch: ClassVar[bool] = False

    def __init__(self, grid: Grid, width: int, *, expansion: float = 4.0, kernel: int = 3) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        self.grid = grid
        self.expand = lecun_uniform(nn.Linear(width, hidden))
        self.filter = lecun_uniform(nn.Conv2d(hidden, hidden, odd(kernel), padding=kernel // 2, groups=hidden))
        self.activation = nn.GELU()
        self.contract = lecun_uniform(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        filtered = as_tokens(self.filter(as_image(self.expand(x), self.grid)))
        mixed: Tensor = self.contract(activated(self.activation, filtered))
        return mixed
