"""The gated MLP SwiGLU (Shazeer, 2020, arXiv 2002.05202, eq. 6), here with biases like every other channel mixing."""

from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import ChannelMixing, hidden_width, lecun_uniform


class SwiGlu(ChannelMixing):
    """An MLP over the channels whose hidden values are gated by SiLU of a second projection.

    `expansion`: hidden channels H as a multiple of `width`; 8/3 gives the weights of an MLP with expansion 4.
    Parameters: 3·C·H + 2·H + C; multiply-adds: 3·S·C·H, for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, expansion: float = 8 / 3) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        self.gate_and_value = lecun_uniform(nn.Linear(width, 2 * hidden))
        self.contract = lecun_uniform(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        mixed: Tensor = self.contract(F.silu(gate) * value)
        return mixed
