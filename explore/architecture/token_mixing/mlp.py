"""The token mixing of the MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601, section 2, eq. 1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, hidden_width, lecun_uniform


class TokenMlp(TokenMixing):
    """An MLP over the patches, the same for every channel.

    `expansion`: hidden size D_S as a multiple of `width`; every published Mixer has 0.5.
    Parameters: 2·S·D_S + S + D_S; multiply-adds: 2·S·D_S·C, for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        self.expand = lecun_uniform(nn.Linear(grid.tokens, hidden))
        self.contract = lecun_uniform(nn.Linear(hidden, grid.tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        return _from_left(self.contract, F.gelu(_from_left(self.expand, x)))


def _from_left(linear: nn.Linear, x: Tensor) -> Tensor:
    # One batched product W·x + b in place of two transposes around x·Wᵀ + b; `W @ x` would transpose behind the scenes.
    return torch.baddbmm(linear.bias.unsqueeze(1), linear.weight.expand(x.shape[0], -1, -1), x)
