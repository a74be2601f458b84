"""The token mixing of the MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601, section 2, eq. 1)."""

from typing import ClassVar

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, hidden_width, lecun_uniform
from explore.architecture.mlp import token_mlp


class TokenMlp(TokenMixing):
    """An MLP over the patches, the same for every channel.

    Formula: `W₂·GELU(W₁·X + b₁) + b₂`, with W₁ of D_S × S and W₂ of S × D_S, for X of S × C.
    Mixes: all patches, the same for every channel.
    `expansion`: hidden size D_S as a multiple of `width`; every published Mixer has 0.5.
    Parameters: 2·S·D_S + S + D_S; multiply-adds: 2·S·D_S·C, for S tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        self.expand = lecun_uniform(nn.Linear(grid.tokens, hidden))
        self.activation = nn.GELU()
        self.contract = lecun_uniform(nn.Linear(hidden, grid.tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        return token_mlp(self.expand, self.activation, self.contract, x)
