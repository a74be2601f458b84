"""The global filter of GFNet (Rao et al., 2021, arXiv 2107.00645, section 3.2)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing


class GlobalFilter(TokenMixing):
    """A circular convolution over the whole grid, one filter per channel, learned in the frequency domain.

    Formula: `F⁻¹(K ⊙ F(X))` with F the two-dimensional Fourier transform over the grid and K complex, for X of
    H × W × C. Of the frequencies along a row only ⌊W/2⌋ + 1 are kept, the others follow because X is real.
    Mixes: all patches, by their distance in rows and columns on a grid that wraps around, each channel alone.
    Parameters: 2·C·H·(⌊W/2⌋ + 1); multiply-adds: 2.5·S·C·log₂ S for both fast transforms, for S = H·W tokens of C
    channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.grid = grid
        # Real and imaginary part come last. Normal with deviation 0.02 as in the official code.
        self.weight = nn.Parameter(0.02 * torch.randn(grid.height, grid.width // 2 + 1, width, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels; half precision is computed in single precision, as transforms need."""
        exact = torch.promote_types(x.dtype, torch.float32)
        image = x.to(exact).reshape(x.shape[0], *self.grid, x.shape[2])
        # The paper scales both transforms by 1/√S; 1/S in the inverse alone is the same and saves a pass.
        spectrum = torch.fft.rfft2(image, dim=(1, 2)) * torch.view_as_complex(self.weight.to(exact))
        # An odd width cannot be told from the spectrum.
        filtered: Tensor = torch.fft.irfft2(spectrum, s=self.grid, dim=(1, 2))
        return filtered.flatten(1, 2).to(x.dtype)
