"""The token mixing of DynaMixer (Wang et al., 2022, arXiv 2201.12083, section 3), with matrices made from the image."""

from typing import ClassVar

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, dividing, heads_of, lecun_uniform
from explore.architecture.token_mixing.reweighting import Reweighting

CHANNELS_PER_HEAD = 24  # at least, of every published DynaMixer


class DynamicLines(nn.Module):
    """Mixes the patches of each row, or of each column, by a matrix per head that those patches determine."""

    def __init__(self, grid: Grid, width: int, heads: int, reduced: int, *, rows: bool) -> None:
        super().__init__()
        self.grid = grid
        self.heads = heads
        length = grid.width if rows else grid.height
        # Batch × rows × columns × heads × channels to batch × lines × heads × patches of the line × channels, and back.
        self.into_lines = (0, 1, 3, 2, 4) if rows else (0, 2, 3, 1, 4)
        self.from_lines = (0, 1, 3, 2, 4) if rows else (0, 3, 1, 2, 4)
        self.compress = lecun_uniform(nn.Linear(width, heads * reduced))
        self.generate = lecun_uniform(nn.Linear(length * reduced, length**2))
        self.projection = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels in and out."""
        values = self._lines(x)
        length = values.shape[3]
        # From patch × to patch; what arrives at a patch is a weighted mean.
        weights = self.generate(self._lines(self.compress(x)).flatten(3)).unflatten(3, (length, length)).softmax(3)
        mixed: Tensor = self.projection((weights.transpose(3, 4) @ values).permute(self.from_lines).reshape(x.shape))
        return mixed

    def _lines(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.grid, self.heads, -1).permute(self.into_lines)


class DynaMixer(TokenMixing):
    """Weighted means along the rows and along the columns, with weights made from the patches of that row or column.

    Formula: `(column ⊙ a₁ + row ⊙ a₂ + X·W_c ⊙ a₃)·W`; for each head a line X of L patches becomes `Pᵀ·X`, with
    `P = softmax over its first index of the L × L matrix G·flatten(X·W_d)`, then all heads together `·W_o`; the a are
    the softmax of an MLP on the mean patch.
    Mixes: the row and the column.
    `heads`: number h of matrices per line, must divide `width`; null takes the most heads that leave each at least 24
    channels, as the published DynaMixers do.
    `reduced`: channels d per head that the matrices are made from; 2 in DynaMixer-S and M, 8 in L.
    Parameters: 5·C² + 6.25·C + 2·h·d·(C + 1) + d·(H³ + W³) + H² + W²; multiply-adds:
    4·S·C² + C² + S·(H + W)·C + 2·S·C·h·d + S·h·d·(H² + W²), for S = H·W tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, heads: int | None = None, reduced: int = 2) -> None:
        super().__init__()
        heads = heads_of(width, CHANNELS_PER_HEAD) if heads is None else dividing("heads", heads, width)
        if reduced < 1:
            raise ValueError(f"reduced must be at least 1, got {reduced}; try 2 or 8")
        self.column = DynamicLines(grid, width, heads, reduced, rows=False)
        self.row = DynamicLines(grid, width, heads, reduced, rows=True)
        self.channels = lecun_uniform(nn.Linear(width, width, bias=False))
        self.reweighting = Reweighting(width)
        self.projection = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.projection(self.reweighting(self.column(x), self.row(x), self.channels(x)))
        return mixed
