"""An MLP over the channels in groups, with the channel shuffle of ShuffleNet (Zhang et al., 2017, arXiv 1707.01083).

Section 3.1 there, between two grouped pointwise convolutions.
"""

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.block_diagonal import (
    block_product,
    block_weight,
    exchanging_product,
    grouped_rows,
)
from explore.architecture.hidden import activated
from explore.architecture.layers import ChannelMixing, hidden_width


class GroupedMlp(ChannelMixing):
    """An MLP over the channels with block-diagonal weights; a shuffle lets each group hear of all others.

    Formula: `Y = gelu(X·B₁ + b₁)·P·B₂ + b₂`, B₁ and B₂ block-diagonal with g blocks, P sends channel `a` of group `i`
    to place `a·g + i`.
    Mixes: the channels of each patch alone, all with all.
    `expansion`: hidden channels as a multiple e of `width`.
    `groups`: number of groups g; g divides `width`, g² the hidden channels.
    Parameters: 2·e·C²/g + (e + 1)·C; multiply-adds: 2·e·S·C²/g, for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, expansion: float = 4.0, groups: int = 4) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        allowed = [count for count in range(1, width + 1) if width % count == 0 and hidden % count**2 == 0]
        if groups not in allowed:
            raise ValueError(
                f"groups must divide width, and groups² the hidden channels, got {groups}, {width} and {hidden}; "
                f"try {', '.join(map(str, allowed))}"
            )
        self.groups = groups
        into, between = width // groups, hidden // groups
        self.expand = block_weight(groups, into, between, fan_in=into)
        self.expand_bias = nn.Parameter(torch.zeros(hidden))
        self.activation = nn.GELU()
        # The shuffle is in the order of these axes: groups from, groups to, channels of a share, channels out.
        self.contract = block_weight(groups, groups, between // groups, into, fan_in=between)
        self.contract_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        hidden = block_product(grouped_rows(x, self.groups), self.expand, self.expand_bias)
        mixed = exchanging_product(activated(self.activation, hidden), self.contract, self.contract_bias)
        return mixed.transpose(0, 1).reshape(x.shape)
