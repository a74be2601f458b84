"""Depthwise convolution, the token mixing of ConvNeXt (Liu et al., 2022, arXiv 2201.03545, section 2.5)."""

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, as_image, as_tokens, lecun_uniform, odd


class DepthwiseConvolution(TokenMixing):
    """A convolution over the grid of patches, one filter per channel, zero-padded to keep the grid.

    Formula: `Y[i, j] = b + Σ W[u, v] ⊙ X[i + u, j + v]` over the k × k offsets around the patch, with one W and b for
    each channel, and X zero outside the grid.
    Mixes: the k × k neighbourhood, each channel alone.
    `kernel`: side k of the filter in patches, odd.
    Parameters: C·(k² + 1); multiply-adds: S·C·k², for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, kernel: int = 7) -> None:
        super().__init__()
        self.grid = grid
        self.filter = lecun_uniform(nn.Conv2d(width, width, odd(kernel), padding=kernel // 2, groups=width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.filter(as_image(x, self.grid))
        return as_tokens(mixed)
