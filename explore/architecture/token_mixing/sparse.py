"""The token mixing of sMLPNet (Tang et al., 2021, arXiv 2109.05422, section 3), a sparse MLP after a convolution."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, across_tokens, as_image, as_tokens, lecun_uniform, odd
from explore.architecture.norms import BatchNorm
from explore.architecture.plain import plain_linear


class SparseMlp(TokenMixing):
    """Linear maps along the rows and along the columns, joined with the patch itself, after a depthwise convolution.

    Formula: `Y = Z·W₁ + row(Z)·W₂ + column(Z)·W₃` with `Z = GELU(BN(K ∗ GELU(BN(X))))`; K is depthwise, row and column
    are a W × W and an H × H matrix with bias, the same for every row or column and for every channel.
    Mixes: the k × k neighbourhood, then the row and the column.
    `kernel`: side k of the convolution in patches, odd.
    Parameters: H² + H + W² + W + 3·C² + (k² + 4)·C; multiply-adds: 3·S·C² + S·(H + W)·C + k²·S·C, for S = H·W tokens
    of C channels.
    """

    tied_to_grid: ClassVar[bool] = True
    has_norm: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.grid = grid
        self.norm = BatchNorm(width)
        self.activation = nn.GELU()
        padding = odd(kernel) // 2
        self.filter = lecun_uniform(nn.Conv2d(width, width, kernel, padding=padding, groups=width, bias=False))
        self.sparse_norm = BatchNorm(width)
        self.row = lecun_uniform(nn.Linear(grid.width, grid.width))
        self.column = lecun_uniform(nn.Linear(grid.height, grid.height))
        self.fuse = lecun_uniform(nn.Linear(3 * width, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        local = as_tokens(self.filter(as_image(self.activation(self.norm(x)), self.grid)))
        x = self.activation(self.sparse_norm(local))
        batch, _, channels = x.shape
        row = across_tokens(self.row, x.reshape(batch * self.grid.height, self.grid.width, channels))
        column = across_tokens(self.column, x.reshape(batch, self.grid.height, self.grid.width * channels))
        if not plain_linear(self.fuse):
            fused: Tensor = self.fuse(torch.cat([x, row.reshape(x.shape), column.reshape(x.shape)], dim=2))
            return fused
        # Three products added up in place of one on the concatenation, which would copy all three.
        itself, of_row, of_column = self.fuse.weight.T.chunk(3)
        mixed = torch.addmm(x.reshape(-1, channels) @ itself, row.reshape(-1, channels), of_row)
        return torch.addmm(mixed, column.reshape(-1, channels), of_column).view(x.shape)
