"""Average pooling, the token mixing of PoolFormer (Yu et al., 2022, arXiv 2111.11418, section 3.2, algorithm 1)."""

from torch import Tensor
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, as_image, as_tokens, odd


class Pooling(TokenMixing):
    """The mean over the neighbouring patches minus the patch itself, which the residual around it adds again.

    Formula: `mean of X over the k × k window around the patch - X`; patches outside the image do not count.
    Mixes: the k × k neighbourhood, each channel alone, with fixed weights.
    `kernel`: side k of the window in patches, odd.
    Parameters: none; multiply-adds: none, for S tokens of C channels, but S·C·k² additions.
    """

    def __init__(self, grid: Grid, width: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.grid = grid
        self.kernel = odd(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        image = as_image(x, self.grid)
        if image.is_cuda:
            # The gradient of padded channels-last images was wrong there until July 2026 (pytorch/pytorch#188344).
            image = image.contiguous()
        mean = F.avg_pool2d(image, self.kernel, stride=1, padding=self.kernel // 2, count_include_pad=False)
        return as_tokens(mean) - x
