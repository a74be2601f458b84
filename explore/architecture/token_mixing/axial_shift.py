"""The axial shift of AS-MLP (Lian et al., 2021, arXiv 2107.08391)."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, lecun_uniform
from explore.architecture.norms import GroupNorm
from explore.architecture.token_mixing.shifts import GroupShift


class AxialShift(TokenMixing):
    """Moves groups of channels along the width and, in a second branch, along the height, and projects and adds both.

    Formula: `Y = GELU(N₁(X·W₁ + b₁))`, then `N₂(GELU(right(Y)·W₂ + b₂) + GELU(down(Y)·W₃ + b₃))·W₄ + b₄`, with N a
    GroupNorm over the whole image. Group g of k moves by g - ⌊k/2⌋ patches, zeros come in at the border.
    Mixes: the ⌊k/2⌋ patches on each side in the row and in the column; all patches through the norms.
    `shift_size`: number of groups k, which is the length of the window in patches; odd. Each group but the last has
    ⌈C/k⌉ channels.
    Parameters: 4·C² + 8·C; multiply-adds: 4·S·C², for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, shift_size: int = 5) -> None:
        super().__init__()
        if shift_size < 3 or shift_size % 2 == 0:
            raise ValueError(f"shift_size must be an odd number of at least 3, got {shift_size}; try 3, 5, 7, 9")
        group = math.ceil(width / shift_size)
        # Torch's chunk in the official code: a narrow last group, or none, when the width does not fill them all.
        starts = [*range(0, width, group), width]
        distances = [number - shift_size // 2 for number in range(len(starts) - 1)]
        self.input = lecun_uniform(nn.Linear(width, width))
        self.input_norm = GroupNorm(width)
        self.activation = nn.GELU()
        self.shift_right = GroupShift(grid, starts, [(0, distance) for distance in distances], keep_border=False)
        self.along_width = lecun_uniform(nn.Linear(width, width))
        self.shift_down = GroupShift(grid, starts, [(distance, 0) for distance in distances], keep_border=False)
        self.along_height = lecun_uniform(nn.Linear(width, width))
        self.output_norm = GroupNorm(width)
        self.output = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        x = self.activation(self.input_norm(self.input(x)))
        x = F.pad(x, (0, 0, 0, 1))  # a patch of zeros behind the last: what moves in from outside the image
        along_width = self.activation(self.along_width(self.shift_right(x)))
        along_height = self.activation(self.along_height(self.shift_down(x)))
        mixed: Tensor = self.output(self.output_norm(along_width + along_height))
        return mixed
