"""The spatial gating of gMLP (Liu et al., 2021, arXiv 2105.08050, section 2.1, equations 1-4)."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, across_tokens, hidden_width, lecun_uniform
from explore.architecture.plain import plain_linear

NORM_EPS = 1e-5  # of the norm inside the gate; those of the network have 1e-6


class SpatialGating(TokenMixing):
    """The body of a gMLP block: an MLP whose hidden channels are halved, one half gated by the patches of the other.

    Formula: `(U ⊙ (W·LN(V) + b))·B`, where `[U V] = GELU(X·A)`, with A of C × d, W of S × S and B of d/2 × C.
    Mixes: all patches, the same for every hidden channel, and all channels of a patch. At the start W is almost zero
    and b is one, so that only the channels are mixed.
    `expansion`: hidden channels d as a multiple of `width`, rounded; d must be even. The paper has 6.
    Parameters: 1.5·d·C + 2·d + C + S² + S; multiply-adds: 1.5·S·d·C + S²·d/2, for S tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, expansion: float = 6.0) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        if hidden % 2:
            raise ValueError(
                f"expansion must give an even number of hidden channels, got {hidden} from {expansion} for width "
                f"{width}; try {(hidden + 1) / width:g}"
            )
        self.expand = lecun_uniform(nn.Linear(width, hidden))
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(hidden // 2, eps=NORM_EPS)
        self.gate = nn.Linear(grid.tokens, grid.tokens)
        nn.init.normal_(self.gate.weight, std=1e-6)
        nn.init.ones_(self.gate.bias)
        self.contract = lecun_uniform(nn.Linear(hidden // 2, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        if not plain_linear(self.expand):
            gated, to_gate = self.expand(x).chunk(2, dim=2)
            gate = across_tokens(self.gate, self.norm(self.activation(to_gate)))
            return self.contract(self.activation(gated) * gate)  # type: ignore[no-any-return]
        # Two products, because the norm and the gate would have to copy halves of one product to make them contiguous.
        (to_gated, to_gate), (gated_bias, gate_bias) = self.expand.weight.chunk(2), self.expand.bias.chunk(2)
        gate = across_tokens(self.gate, self.norm(self.activation(F.linear(x, to_gate, gate_bias))))
        mixed: Tensor = self.contract(self.activation(F.linear(x, to_gated, gated_bias)) * gate)
        return mixed
