"""Multi-head self-attention as in ViT (Dosovitskiy et al., 2020, arXiv 2010.11929, appendix A)."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, dividing, heads_of, lecun_uniform

CHANNELS_PER_HEAD = 64  # of every published ViT from Ti to L


class Attention(TokenMixing):
    """Softmax attention between all patches, with biased projections.

    Formula: `softmax(Q·Kᵀ / √(C/h))·V` for each of h heads, their results side by side times an output matrix; Q, K and
    V are linear in X, of S × C.
    Mixes: all patches, with weights that follow from the image.
    `heads`: number of heads, must divide `width`; null takes the most heads that leave each at least 64 channels, as
    the published ViTs do.
    Parameters: 4·C² + 4·C; multiply-adds: 4·S·C² + 2·S²·C, for S tokens of C channels.
    """

    position_blind: ClassVar[bool] = True
    class_token: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, heads: int | None = None) -> None:
        super().__init__()
        self.heads = heads_of(width, CHANNELS_PER_HEAD) if heads is None else dividing("heads", heads, width)
        self.query_key_value = lecun_uniform(nn.Linear(width, 3 * width))
        self.projection = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels, with or without a class token in front."""
        packed: Tensor = self.query_key_value(x)
        batch, tokens, channels = x.shape
        # Each of the three is batch × heads × tokens × channels per head.
        query, key, value = packed.reshape(batch, tokens, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.projection(attended.transpose(1, 2).flatten(2))
        return mixed
