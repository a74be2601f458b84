"""The hierarchical rearrangement of Hire-MLP (Guo et al., 2021, arXiv 2108.13341)."""

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, lecun_uniform
from explore.architecture.norms import BatchNorm
from explore.architecture.token_mixing.reweighting import Reweighting


class RegionMlp(nn.Module):
    """An MLP over regions of `region` neighbouring patches along one axis of the grid, after a circular shift.

    The channels of a region's patches follow each other, patch by patch; official weights have the patches of one
    channel follow each other.
    """

    taken: Tensor | None  # patches in the order of the regions
    restored: Tensor | None  # where in that order each patch stands

    def __init__(self, grid: Grid, width: int, region: int, shift: int, axis: int) -> None:
        super().__init__()
        hidden = max(width // 2, 1)
        self.region = region
        self.expand = lecun_uniform(nn.Linear(region * width, hidden, bias=False))
        self.norm = BatchNorm(hidden)
        self.activation = nn.ReLU()
        self.contract = lecun_uniform(nn.Linear(hidden, region * width))
        side = grid[axis]
        # Nothing to move: whole regions lie in a row of patches, one behind the other.
        in_order = axis == 1 and side % region == 0 and shift % side == 0
        taken, restored = (None, None) if in_order else _orders(grid, region, shift, axis)
        self.register_buffer("taken", taken, persistent=False)
        self.register_buffer("restored", restored, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        batch, _, channels = x.shape
        if self.taken is not None:
            x = x.index_select(1, self.taken)
        x = x.reshape(batch, -1, self.region * channels)
        x = self.contract(self.activation(self.norm(self.expand(x)))).view(batch, -1, channels)
        return x if self.restored is None else x.index_select(1, self.restored)


def _orders(grid: Grid, region: int, shift: int, axis: int) -> tuple[Tensor, Tensor]:
    """The patches region by region, those behind the end from the start of the side again; and the way back."""
    side = grid[axis]
    regions = -(-side // region)
    patches = torch.arange(grid.tokens).view(grid)
    lines = patches.T if axis == 0 else patches  # one line of patches along the axis in each row
    taken = lines[:, (torch.arange(regions * region) - shift) % side].view(-1, regions, region)
    places = torch.arange(taken.numel())
    # Along the height the regions of one row of regions follow each other, as the patches of a row do.
    places = places.view(regions, -1, region).transpose(0, 1) if axis == 0 else places.view(taken.shape)
    restored = places.reshape(len(lines), -1)[:, (torch.arange(side) + shift) % side]
    if axis == 0:
        return taken.transpose(0, 1).flatten(), restored.T.flatten()
    return taken.flatten(), restored.flatten()


class Hire(TokenMixing):
    """An MLP over small regions of a column and one over those of a row, weighted together with the single patches.

    Formula: `(a₁ ⊙ column(X) + a₂ ⊙ row(X) + a₃ ⊙ (X·W₅ + b₅))·W₆ + b₆`. Column and row shift the grid by `shift`
    patches down or right, join each p patches into one vector, apply `ReLU(BatchNorm(v·W₁))·W₂ + b₂` with C/2 hidden
    channels, and undo both; the grid is circular. `a` is a softmax over the three, from an MLP on their mean over the
    patches.
    Mixes: the p patches of a region in the column and in the row; all patches through the weights `a`.
    `region`: number of patches p in a region, at least 2; the last region takes from the start of the side what it
    lacks.
    `shift`: patches by which the regions are moved; published networks alternate 0 and a step of 1 or more.
    Parameters: (2·p + 3)·C² + (2·p + 7.25)·C; multiply-adds: 4·S·C² + C², for S tokens of C channels, when p divides
    the sides of the grid.
    """

    def __init__(self, grid: Grid, width: int, *, region: int = 2, shift: int = 0) -> None:
        super().__init__()
        if region < 2:
            raise ValueError(f"region must be at least 2 patches, got {region}; try 2, 3, 4")
        if shift < 0:
            raise ValueError(f"shift must be at least 0 patches, got {shift}; try 0, 1, 2")
        self.along_height = RegionMlp(grid, width, region, shift, axis=0)
        self.along_width = RegionMlp(grid, width, region, shift, axis=1)
        self.channels = lecun_uniform(nn.Linear(width, width))
        self.reweighting = Reweighting(width)
        self.projection = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        branches = self.along_height(x), self.along_width(x), self.channels(x)
        mixed: Tensor = self.projection(self.reweighting(*branches))
        return mixed
