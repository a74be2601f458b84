"""The spatial shift of S2-MLP (Yu et al., 2021, arXiv 2106.07477)."""

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, lecun_uniform
from explore.architecture.token_mixing.shifts import GroupShift

# Rows down, columns to the right: in the order of the paper.
DISPLACEMENTS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def quarters(width: int) -> list[int]:
    """First channels of four groups, as equal as the width allows, and the width."""
    return [part * width // 4 for part in range(5)]


class SpatialShift(TokenMixing):
    """Two products over the channels of each patch; between them each quarter of the channels moves by one patch.

    Formula: `shift(GELU(X·W₁ + b₁))·W₂ + b₂`; the quarters move right, left, down, up, and the patches of the border
    that nothing moves into keep their own value.
    Mixes: the 4 neighbours of each patch.
    Parameters: 2·C² + 2·C; multiply-adds: 2·S·C², for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.input = lecun_uniform(nn.Linear(width, width))
        self.activation = nn.GELU()
        self.shift = GroupShift(grid, quarters(width), DISPLACEMENTS, keep_border=True)
        self.output = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.output(self.shift(self.activation(self.input(x))))
        return mixed
