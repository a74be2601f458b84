"""No channel mixing, as in gMLP (Liu et al., 2021, arXiv 2105.08050, section 2), whose token mixing mixes both."""

from typing import ClassVar

from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.layers import ChannelMixing


class NoChannelMixing(ChannelMixing):
    """Leaves the channels as they are; a block with it has no second branch.

    Formula: `Y = X`.
    Mixes: nothing.
    Parameters: 0; multiply-adds: 0, for S tokens of C channels.
    """

    empty: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        return x
