"""The channel mixing of the MLP-Mixer and of ViT (Tolstikhin et al., 2021, arXiv 2105.01601, section 2, eq. 1)."""

from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import ChannelMixing, hidden_width, lecun_uniform


class ChannelMlp(ChannelMixing):
    """An MLP over the channels, the same for every patch.

    `expansion`: hidden channels as a multiple e of `width`.
    Parameters: 2·e·C² + (e + 1)·C; multiply-adds: 2·e·S·C², for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, expansion: float = 4.0) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        self.expand = lecun_uniform(nn.Linear(width, hidden))
        self.contract = lecun_uniform(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.contract(F.gelu(self.expand(x)))
        return mixed
