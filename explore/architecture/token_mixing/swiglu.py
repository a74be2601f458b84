"""The token mixing of gMixer, the gated MLP-Mixer of PyTorch Image Models (`gmixer_12_224`, `gmixer_24_224`).

SwiGLU (Shazeer, 2020, arXiv 2002.05202, eq. 6) over the patches. There the weights of value and gate are packed into
one product of 2·H rows, gate last, and drawn so that the gate starts at SiLU(1); here they are drawn like all others.
"""

from typing import ClassVar

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.hidden import gated
from explore.architecture.layers import TokenMixing, across_tokens, hidden_width, lecun_uniform


class TokenSwiGlu(TokenMixing):
    """An MLP over the patches, the same for every channel, whose hidden values are multiplied by SiLU of a second map.

    Formula: `Y = W_o·(silu(W_g·X + b_g) ∘ (W_v·X + b_v)) + b_o`.
    Mixes: all patches, the same for every channel.
    `expansion`: hidden size H as a multiple of `width`; gMixer has 0.5.
    Parameters: 3·S·H + 2·H + S; multiply-adds: 3·S·H·C, for S tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        self.gate = lecun_uniform(nn.Linear(grid.tokens, hidden))
        self.value = lecun_uniform(nn.Linear(grid.tokens, hidden))
        self.activation = nn.SiLU()
        self.contract = lecun_uniform(nn.Linear(hidden, grid.tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        hidden = gated(self.activation, across_tokens(self.gate, x), across_tokens(self.value, x))
        return across_tokens(self.contract, hidden)
