"""The gated MLP SwiGLU (Shazeer, 2020, arXiv 2002.05202, eq. 6), here with biases like every channel mixing."""

from torch import nn

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.gated import GatedMlp


class SwiGlu(GatedMlp):
    """An MLP over the channels whose hidden values are multiplied by SiLU of a second projection.

    Formula: `Y = (silu(X·W_g + b_g) ∘ (X·W_v + b_v))·W_o + b_o`.
    Mixes: the channels of each patch alone, all with all.
    `expansion`: hidden channels H as a multiple of `width`; 8/3 gives the weights of an MLP with expansion 4.
    Parameters: 3·C·H + 2·H + C; multiply-adds: 3·S·C·H, for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, expansion: float = 8 / 3) -> None:
        super().__init__(grid, width, expansion, nn.SiLU())
