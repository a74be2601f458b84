"""The token MLP of the MLP-Mixer with untied weights (Tolstikhin et al., 2021, arXiv 2105.01601, appendix A).

The authors tried an MLP of its own for every channel and saw no gain; groups lie between that and the Mixer.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, batched_product, dividing, hidden_width


class GroupedTokenMlp(TokenMixing):
    """An MLP over the patches for each group of neighbouring channels, the same for all channels of a group.

    Formula: `W₂·GELU(W₁·X + b₁) + b₂` for each group of C/G channels, with W₁ of D_S × S and W₂ of S × D_S of its own.
    Mixes: all patches, the same for every channel of a group.
    `groups`: number of groups G, must divide `width`; null gives every channel an MLP of its own, as the paper tried;
    1 is the token MLP of the Mixer.
    `expansion`: hidden size D_S of each MLP as a multiple of `width`; every published Mixer has 0.5.
    Parameters: G·(2·S·D_S + S + D_S); multiply-adds: 2·S·D_S·C, for S tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, groups: int | None = 4, expansion: float = 0.5) -> None:
        super().__init__()
        self.groups = width if groups is None else dividing("groups", groups, width)
        hidden = hidden_width(expansion, width)
        self.expand = LinearOfEachGroup(self.groups, grid.tokens, hidden)
        self.activation = nn.GELU()
        self.contract = LinearOfEachGroup(self.groups, hidden, grid.tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        batch, tokens, channels = x.shape
        # Images and channels of a group share its weights, so side by side they make a single product for each group.
        grouped = x.reshape(batch, tokens, self.groups, channels // self.groups).permute(2, 1, 0, 3).flatten(2)
        mixed: Tensor = self.contract(self.activation(self.expand(grouped)))
        return mixed.reshape(self.groups, tokens, batch, -1).permute(2, 1, 0, 3).flatten(2)


class LinearOfEachGroup(nn.Module):
    """A linear layer over the second axis for each entry of the first: groups × inputs × columns."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = (3 / inputs) ** 0.5  # variance 1 / fan-in, as of every other layer
        self.weight = nn.Parameter(torch.empty(groups, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(groups, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Groups × inputs × columns to groups × outputs × columns."""
        return batched_product(self.weight, x, self.bias.unsqueeze(2))
