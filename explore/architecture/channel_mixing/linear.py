"""The pointwise convolution of ConvMixer (Trockman and Kolter, 2022, arXiv 2201.09792, section 2).

ConvMixer's activation, batch norm and missing residual around it are its block's.
"""

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import ChannelMixing, lecun_uniform


class ChannelLinear(ChannelMixing):
    """A linear map over the channels, the same for every patch.

    Formula: `Y = X·W + b`.
    Mixes: the channels of each patch alone, all with all.
    Parameters: C² + C; multiply-adds: S·C², for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.linear = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.linear(x)
        return mixed
