"""Gated MLPs over the channels (Shazeer, 2020, arXiv 2002.05202, eq. 6), here with biases like every channel mixing.

The weights of gate and value are kept and multiplied apart: their halves of one product would be strided, which costs
more than reading the input twice.
"""

from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.hidden import gated
from explore.architecture.layers import ChannelMixing, hidden_width, lecun_uniform


class GatedMlp(ChannelMixing):
    """Base of the MLPs over the channels that multiply one projection by an activation function of another."""

    def __init__(self, grid: Grid, width: int, expansion: float, activation: nn.Module) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        self.gate = lecun_uniform(nn.Linear(width, hidden))
        self.value = lecun_uniform(nn.Linear(width, hidden))
        self.activation = activation
        self.contract = lecun_uniform(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.contract(gated(self.activation, self.gate(x), self.value(x)))
        return mixed
