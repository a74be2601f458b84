"""Depthwise convolution, the token mixing of ConvNeXt (Liu et al., 2022, arXiv 2201.03545, section 2.5)."""

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, lecun_uniform


class DepthwiseConvolution(TokenMixing):
    """A convolution over the grid of patches, one filter per channel, zero-padded to keep the grid.

    `kernel`: side of the filter in patches, odd.
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


def as_image(x: Tensor, grid: Grid) -> Tensor:
    """Batch × tokens × channels to batch × channels × rows × columns, a view in channels-last memory format."""
    return x.reshape(x.shape[0], grid.height, grid.width, x.shape[2]).permute(0, 3, 1, 2)


def as_tokens(image: Tensor) -> Tensor:
    """The inverse of `as_image`."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def odd(kernel: int) -> int:
    """Returns the side of a window that has a centre and reaches a neighbour; raises `ValueError` for any other."""
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"kernel must be an odd number of at least 3, got {kernel}; try 3, 5, 7, 9")
    return kernel
