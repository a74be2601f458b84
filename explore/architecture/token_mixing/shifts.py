"""Shifts of channel groups over the grid of patches, each as one gather: for S2-MLP, AS-MLP and CycleMLP."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid

SHORT = 8  # channels


class GroupShift(nn.Module):
    """Moves each group of channels by its own displacement.

    `starts`: first channel of each group, and the number of channels at the end.
    `displacements`: rows down and columns to the right, one pair for each group.
    `keep_border`: where nothing moves in, a patch keeps its own value, or rather takes that of the nearest patch of the
    image; otherwise the value of one patch behind the last, which the caller adds.
    No parameters, no multiply-adds.
    """

    patches: Tensor  # tokens × runs of channels: the patch that each is taken from
    run: Tensor  # 0, 1, 2, ... up to the runs of a patch
    runs: Tensor  # the same as both, counted over the runs of all patches

    def __init__(
        self, grid: Grid, starts: Sequence[int], displacements: Sequence[tuple[int, int]], *, keep_border: bool
    ) -> None:
        super().__init__()
        # The longest runs of channels that always move together: a copy of whole runs is the fastest, of shorter ones
        # than `SHORT` a copy of single numbers, and with a single axis the gradient is three times as fast.
        longest = math.gcd(*starts)
        self.length = longest if longest >= SHORT else 1
        lengths = [(end - first) // self.length for first, end in itertools.pairwise(starts)]
        moves = [move for move, length in zip(displacements, lengths, strict=True) for _ in range(length)]
        device = torch.get_default_device()
        with torch.device("cpu"):  # on the meta device arithmetic takes longer than with numbers
            patches, run = _sources(grid, moves, keep_border=keep_border), torch.arange(len(moves))
            runs = (patches * len(moves) + run).flatten()
        for name, index in {"patches": patches, "run": run, "runs": runs}.items():
            self.register_buffer(name, index.int().to(device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels; one token more than come out unless the border is kept."""
        batch, tokens, channels = x.shape
        if torch.compiler.is_dynamo_compiling():
            # The compiler joins the gather with what is before it, and makes vector code of this form only.
            return x.reshape(batch, tokens, -1, self.length)[:, self.patches, self.run].flatten(2)
        flat = x.reshape(batch, -1) if self.length == 1 else x.reshape(batch, -1, self.length)
        return flat.index_select(1, self.runs).view(batch, -1, channels)


def _sources(grid: Grid, moves: Sequence[tuple[int, int]], *, keep_border: bool) -> Tensor:
    """The patch that each run of each patch is taken from: tokens × runs."""
    down, right = torch.tensor(moves).unbind(1)
    row = torch.arange(grid.height).view(-1, 1, 1) - down
    column = torch.arange(grid.width).view(-1, 1) - right
    patches = row.clamp(0, grid.height - 1) * grid.width + column.clamp(0, grid.width - 1)
    if not keep_border:
        inside = (row >= 0) & (row < grid.height) & (column >= 0) & (column < grid.width)
        patches = torch.where(inside, patches, grid.tokens)
    return patches.flatten(0, 1)
