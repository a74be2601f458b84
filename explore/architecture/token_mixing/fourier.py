"""The Fourier mixing of FNet (Lee-Thorp et al., 2021, arXiv 2105.03824, section 3.2)."""

from typing import ClassVar

import torch
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing


class FourierMixing(TokenMixing):
    """The real part of a discrete Fourier transform along the channels and along the sequence of patches.

    Formula: `Re(F_S·X·F_C)`, with `F_N[j, k] = exp(-2πi·j·k/N)`, for X of S × C.
    Mixes: all patches, in the order of the sequence, together with all channels, with fixed weights.
    `orthonormal`: divide by √(S·C), so that the result has the scale of the input. The paper does not, and normalises
    after the residual; where the norm comes before the mixing, as in the Mixer and ViT, the unscaled result drowns
    whatever is added to it.
    Parameters: none; multiply-adds: 2.5·S·C·log₂(S·C), for S tokens of C channels.
    """

    class_token: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, orthonormal: bool = False) -> None:
        super().__init__()
        self.scaling = "ortho" if orthonormal else "backward"

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels; half precision is computed in single precision, as transforms need."""
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        mixed: Tensor = torch.fft.fft2(exact, dim=(1, 2), norm=self.scaling).real
        return mixed.to(x.dtype)
