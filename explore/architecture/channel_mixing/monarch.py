"""An MLP over the channels whose weights are Monarch matrices (Dao et al., 2022, arXiv 2204.00595, section 3).

The rectangular form of the official code (`MonarchLinear` of HazyResearch/fly), which has 4 blocks: two block-diagonal
factors with a permutation before, between and after. The channel mixing of Monarch Mixer (Fu et al., 2023,
arXiv 2310.12109) keeps in its official code only one of the factors and no permutation, so that its blocks stay apart;
that is `grouped` without the shuffle. What is here is the matrix that both papers define.
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

USUAL_BLOCKS = 4  # of the official code


class MonarchMlp(ChannelMixing):
    """An MLP over the channels, both weights Monarch matrices, which reach from every channel to every channel.

    Formula: `Y = M₂(gelu(M₁(X) + b₁)) + b₂`, `M(X) = X·R·P·L·Pᵀ`, R and L block-diagonal with b blocks, P sends channel
    `j·b + l` to channel `j` of block `l`; between R and L are n = min(C, e·C) channels.
    Mixes: the channels of each patch alone, all with all.
    `expansion`: hidden channels as a multiple e of `width`.
    `blocks`: number of blocks b, b² divides `width` and the hidden channels; null takes the most up to 4.
    Parameters: 2·(1 + e)·C·n/b + (e + 1)·C; multiply-adds: 2·(1 + e)·S·C·n/b, for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, expansion: float = 4.0, blocks: int | None = None) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        allowed = [count for count in range(1, width + 1) if width % count**2 == 0 and hidden % count**2 == 0]
        if blocks is not None and blocks not in allowed:
            raise ValueError(
                f"blocks² must divide width and the hidden channels, got blocks {blocks} for {width} and {hidden}; "
                f"try {', '.join(map(str, allowed))}"
            )
        self.blocks = count = blocks or max(one for one in allowed if one <= USUAL_BLOCKS)
        into, out = width // count, hidden // count
        between = min(into, out)
        # The permutations are in the order of the axes: blocks from, blocks to, channels in, channels out.
        self.expand_first = block_weight(count, into, between, fan_in=into)
        self.expand_second = block_weight(count, count, between // count, out, fan_in=between)
        self.expand_bias = nn.Parameter(torch.zeros(hidden))
        self.activation = nn.GELU()
        self.contract_first = block_weight(count, count, out // count, between, fan_in=out)
        self.contract_second = block_weight(count, count, between // count, into, fan_in=between)
        self.contract_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        first = block_product(grouped_rows(x, self.blocks), self.expand_first)
        hidden = activated(self.activation, exchanging_product(first, self.expand_second, self.expand_bias))
        second = exchanging_product(hidden, self.contract_first)
        mixed = exchanging_product(second, self.contract_second, self.contract_bias)
        # Channel `j` of block `l` back to `j·b + l`.
        return mixed.permute(1, 2, 0).reshape(x.shape)
