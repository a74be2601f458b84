"""External attention (Guo et al., 2021, arXiv 2105.02358), single-head as in EANet or multi-head as in EAMLP.

EANet's module also adds its input and ends in a ReLU. The sum is the block's here, and the ReLU is left out, because it
would come after that sum.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, dividing, lecun_uniform
from explore.architecture.norms import BatchNorm

EXPANSION = 4  # of the multi-head form: four times the channels in four times the heads
EPS = 1e-9


class ExternalAttention(TokenMixing):
    """Attention to a small learned memory, the same for all images, instead of to the other patches.

    Formula: `A = softmax over patches(X·W_q·M_k)`, `Y = (A / sum over memory(A))·M_v·W`, single-head followed by a
    batch norm; multi-head the same for each head, with M_k and M_v shared between the heads.
    Mixes: all patches, through the normalisation of the attention only.
    `heads`: null for the single head of EANet, else the number h of heads of EAMLP, must divide `width`; W_q gives
    4·C channels in 4·h heads, and every product has a bias (that of M_k cancels in the softmax).
    `memory`: number k of learned keys and values.
    Parameters: 2·C² + 3·C + 2·k·C, multi-head 8·C² + 5·C + 2·k·C/h + k + C/h; multiply-adds: S·(2·C² + 2·k·C),
    multi-head S·(8·C² + 8·k·C), for S tokens of C channels.
    """

    position_blind: ClassVar[bool] = True
    class_token: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, heads: int | None = None, memory: int = 64) -> None:
        super().__init__()
        if memory < 1:
            raise ValueError(f"memory must be at least 1, got {memory}; try 64")
        single = heads is None
        self.heads = 1 if heads is None else EXPANSION * dividing("heads", heads, width)
        expanded = width if single else EXPANSION * width
        self.query = lecun_uniform(nn.Linear(width, expanded))
        self.keys = lecun_uniform(nn.Linear(expanded // self.heads, memory, bias=not single))
        self.values = lecun_uniform(nn.Linear(memory, expanded // self.heads, bias=not single))
        self.projection = lecun_uniform(nn.Linear(expanded, width, bias=not single))
        self.norm = BatchNorm(width) if single else nn.Identity()
        if single:
            self._start_as_eanet(width)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels, with or without a class token in front."""
        # Batch × tokens × heads × memory: with the tokens second, nothing has to be transposed.
        attention = self.keys(self.query(x).unflatten(2, (self.heads, -1))).softmax(1)
        attention = attention / (attention.sum(3, keepdim=True) + EPS)
        mixed: Tensor = self.norm(self.projection(self.values(attention).flatten(2)))
        return mixed

    @torch.no_grad()
    def _start_as_eanet(self, width: int) -> None:
        # The official memories share their storage until they are moved to a GPU: they start equal, trained apart.
        for layer in (self.query, self.keys, self.projection):
            nn.init.normal_(layer.weight, std=(2 / width) ** 0.5)
        self.values.weight.copy_(self.keys.weight.T)
