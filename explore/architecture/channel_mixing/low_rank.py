"""An MLP over the channels with factorised weights (Wei et al., 2024, arXiv 2406.16450, "LowRank").

The factorisation of a trained layer is older (Sainath et al., 2013; Denil et al., 2013, arXiv 1306.0543); this is the
form that is trained from the start.
"""

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.hidden import activated
from explore.architecture.layers import ChannelMixing, hidden_width, lecun_uniform


class LowRankMlp(ChannelMixing):
    """An MLP over the channels with both weights of low rank, each a product of two factors.

    Formula: `Y = gelu(X·V₁·U₁ + b₁)·V₂·U₂ + b₂`, V₁: C × r, U₁: r × e·C, V₂: e·C × r, U₂: r × C.
    Mixes: the channels of each patch alone, all with all.
    `expansion`: hidden channels as a multiple e of `width`.
    `rank`: rank r of both weights as a share of `width`; below e / (e + 1) it saves work.
    Parameters: 2·r·(1 + e)·C + (e + 1)·C; multiply-adds: 2·r·(1 + e)·S·C, for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, expansion: float = 4.0, rank: float = 0.25) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        channels, most = round(rank * width), min(width, hidden)
        if not 1 <= channels <= most:
            raise ValueError(
                f"rank must leave 1 to {most} channels between the factors, got {rank} for width {width} and {hidden} "
                f"hidden channels; try 0.125, 0.25, 0.5 or at most {most / width:g}"
            )
        # A bias between the factors would only add to the one behind them.
        self.expand_in = lecun_uniform(nn.Linear(width, channels, bias=False))
        self.expand_out = lecun_uniform(nn.Linear(channels, hidden))
        self.activation = nn.GELU()
        self.contract_in = lecun_uniform(nn.Linear(hidden, channels, bias=False))
        self.contract_out = lecun_uniform(nn.Linear(channels, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        hidden = activated(self.activation, self.expand_out(self.expand_in(x)))
        mixed: Tensor = self.contract_out(self.contract_in(hidden))
        return mixed
