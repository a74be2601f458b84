"""The cycle fully-connected layers of CycleMLP (Chen et al., 2021, arXiv 2107.10224)."""

from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, lecun_uniform, odd
from explore.architecture.token_mixing.reweighting import Reweighting
from explore.architecture.token_mixing.shifts import GroupShift


class CycleFc(TokenMixing):
    """Products over channels that are taken from neighbouring patches in turn, along the width and along the height.

    Formula: `(a₁ ⊙ (row(X)·W₁ + b₁) + a₂ ⊙ (column(X)·W₂ + b₂) + a₃ ⊙ X·W₃)·W₄ + b₄`. Channel i of row(X) is read
    ((i + ⌊k/2⌋) mod k) - ⌊k/2⌋ patches further right, that of column(X) as many further down, zeros outside the image;
    `a` is a softmax over the three, from an MLP on their mean over the patches.
    Mixes: the ⌊k/2⌋ patches on each side in the row and in the column; all patches through the weights `a`.
    `kernel`: number of patches k in turn, odd.
    Parameters: 5·C² + 6.25·C; multiply-adds: 4·S·C² + C², for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, kernel: int = 3) -> None:
        super().__init__()
        reach = odd(kernel) // 2
        distances = [(channel + reach) % kernel - reach for channel in range(width)]
        starts = range(width + 1)
        self.row = GroupShift(grid, starts, [(0, -distance) for distance in distances], keep_border=False)
        self.along_width = lecun_uniform(nn.Linear(width, width))
        self.column = GroupShift(grid, starts, [(-distance, 0) for distance in distances], keep_border=False)
        self.along_height = lecun_uniform(nn.Linear(width, width))
        self.channels = lecun_uniform(nn.Linear(width, width, bias=False))
        self.reweighting = Reweighting(width)
        self.projection = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        padded = F.pad(x, (0, 0, 0, 1))  # a patch of zeros behind the last: what is read from outside the image
        along_width = self.along_width(self.row(padded))
        along_height = self.along_height(self.column(padded))
        # The official code weights the branch along the width first.
        mixed: Tensor = self.projection(self.reweighting(along_width, along_height, self.channels(x)))
        return mixed
