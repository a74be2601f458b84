"""The spatial shift with split attention of S2-MLPv2 (Yu et al., 2021, arXiv 2108.01072)."""

from torch import Tensor, addcmul, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, lecun_uniform
from explore.architecture.token_mixing.s2 import DISPLACEMENTS, quarters
from explore.architecture.token_mixing.shifts import GroupShift

PARTS = 3


class SpatialShiftV2(TokenMixing):
    """Widens each patch to three parts, shifts two of them in different orders, and sums them weighted by the image.

    Formula: `X₁, X₂, X₃ = X·W₁ + b₁`, then `(a₁ ⊙ shift(X₁) + a₂ ⊙ shift'(X₂) + a₃ ⊙ X₃)·W₂ + b₂`. Shift moves the
    quarters of the channels right, left, down, up, shift' down, up, right, left; borders keep their value. Split
    attention: `a = softmax over the parts of GELU(s·V₁)·V₂`, with s the sum of the three over all patches, V₁ to C/4.
    Mixes: the 4 neighbours of each patch; all patches through the weights `a`.
    Parameters: 5·C² + 4·C; multiply-adds: 4·S·C² + C², for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        hidden = max(width // 4, 1)
        # Three products in place of one as wide as all: each part lies in memory as its shift and the sums want it.
        self.first = lecun_uniform(nn.Linear(width, width))
        self.second = lecun_uniform(nn.Linear(width, width))
        self.third = lecun_uniform(nn.Linear(width, width))
        self.first_shift = GroupShift(grid, quarters(width), DISPLACEMENTS, keep_border=True)
        self.second_shift = GroupShift(grid, quarters(width), DISPLACEMENTS[2:] + DISPLACEMENTS[:2], keep_border=True)
        self.expand = lecun_uniform(nn.Linear(width, hidden, bias=False))
        self.activation = nn.GELU()
        self.contract = lecun_uniform(nn.Linear(hidden, PARTS * width, bias=False))
        self.output = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        first, second, third = self.first_shift(self.first(x)), self.second_shift(self.second(x)), self.third(x)
        total = first.sum(1) + second.sum(1) + third.sum(1)
        logits = self.contract(self.activation(self.expand(total))).unflatten(1, (PARTS, -1))
        weights = logits.softmax(1).unsqueeze(2).unbind(1)  # three of batch × 1 × channels
        joined = addcmul(addcmul(first * weights[0], second, weights[1]), third, weights[2])
        mixed: Tensor = self.output(joined)
        return mixed
