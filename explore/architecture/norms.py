"""Normalisation layers by name, all on batch × tokens × channels with a learned weight and, but for RMSNorm, a bias.

The statistics of each: `layer` and `rms` one patch, `group` one image (GroupNorm with a single group), `batch` one
channel over all patches of the batch, `affine` none.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import one_of


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe and Szegedy, 2015, arXiv 1502.03167) with channels last; any leading axes."""

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape; channels come last."""
        return super().forward(x.flatten(0, -2)).view_as(x)


class GroupNorm(nn.Module):
    """Group normalisation with a single group: over all patches and channels of an image.

    Wu and He, 2018, arXiv 1803.08494; the norm of AS-MLP and PoolFormer.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        return torch.addcmul(self.bias, self.weight, F.layer_norm(x, x.shape[1:], eps=self.eps))


class Affine(nn.Module):
    """A learned scale and shift per channel instead of a norm (Touvron et al., 2021, arXiv 2105.03404, equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape; channels come last."""
        return torch.addcmul(self.bias, self.weight, x)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "layer": lambda width, eps: nn.LayerNorm(width, eps=eps),
    "rms": lambda width, eps: nn.RMSNorm(width, eps=eps),
    "affine": lambda width, eps: Affine(width),
    "batch": lambda width, eps: BatchNorm(width, eps=eps),
    "group": lambda width, eps: GroupNorm(width, eps=eps),
}


def norm(name: str, width: int, eps: float) -> nn.Module:
    """A new norm for `width` channels; raises `ValueError` for an unknown name."""
    return NORMS[one_of("norm", name, NORMS)](width, eps)
