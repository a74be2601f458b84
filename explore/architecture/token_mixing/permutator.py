"""The weighted permute-MLP of the Vision Permutator, ViP (Hou et al., 2021, arXiv 2106.12368, section 3.2)."""

import math
from typing import ClassVar

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, lecun_uniform
from explore.architecture.token_mixing.reweighting import Reweighting


class Permutator(TokenMixing):
    """Mixes along the height, along the width and over the channels apart, and joins the three weighted by the image.

    Formula: `(a₁ ⊙ P⁻¹(P(X)·W₁) + a₂ ⊙ Q⁻¹(Q(X)·W₂) + a₃ ⊙ X·W₃)·W₄ + b₄`. P cuts the channels into H segments and
    joins the same segment of the H patches of a column into one vector of C numbers; Q does so with W segments and the
    W patches of a row; `a` is a softmax over the three, from an MLP on their mean over the patches.
    Mixes: the column and the row of each patch, one segment of the channels apart from the others; all patches through
    the weights `a`.
    Parameters: 5·C² + 4.25·C; multiply-adds: 4·S·C² + C², for S tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.grid = grid
        step = math.lcm(grid.height, grid.width)
        if width % step:
            allowed = sorted({max(width // step, 1) * step, (width // step + 1) * step})
            raise ValueError(
                f"width must be divisible by the height and the width of the grid, got {width} for {grid.height} × "
                f"{grid.width} patches; try width {' or '.join(map(str, allowed))}, or another patch size"
            )
        self.along_height = lecun_uniform(nn.Linear(width, width, bias=False))
        self.along_width = lecun_uniform(nn.Linear(width, width, bias=False))
        self.channels = lecun_uniform(nn.Linear(width, width, bias=False))
        self.reweighting = Reweighting(width)
        self.projection = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        along_height = self._permuted(self.along_height, x, axis=1)
        along_width = self._permuted(self.along_width, x, axis=2)
        mixed: Tensor = self.projection(self.reweighting(along_height, along_width, self.channels(x)))
        return mixed

    def _permuted(self, linear: nn.Linear, x: Tensor, axis: int) -> Tensor:
        """Exchanges the patches along an axis of the grid with as many segments, applies `linear`, exchanges back."""
        height, width = self.grid
        segments = self.grid[axis - 1]
        image = x.reshape(x.shape[0], height, width, segments, -1)
        vectors = image.transpose(axis, 3)
        mixed: Tensor = linear(vectors.flatten(3)).view(vectors.shape)
        return mixed.transpose(axis, 3).reshape(x.shape)
