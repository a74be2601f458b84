"""The cross-patch linear layer of ResMLP (Touvron et al., 2021, arXiv 2105.03404, equation 2)."""

from typing import ClassVar

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, across_tokens, lecun_uniform


class TokenLinear(TokenMixing):
    """One linear layer over the patches, the same for every channel, without an activation function.

    Formula: `W·X + b`, with W of S × S and one bias per patch, for X of S × C.
    Mixes: all patches, the same for every channel.
    Parameters: S² + S; multiply-adds: S²·C, for S tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.linear = lecun_uniform(nn.Linear(grid.tokens, grid.tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        return across_tokens(self.linear, x)
