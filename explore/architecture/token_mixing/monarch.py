"""A token MLP of Monarch matrices (Dao et al., 2022, arXiv 2204.00595, section 3.1).

The token MLP of the MLP-Mixer with each of its two dense matrices replaced by a rectangular Monarch matrix, as the
authors' code does: two block-diagonal matrices with a fixed permutation after each.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing, batched_product, hidden_width


class MonarchTokenMlp(TokenMixing):
    """An MLP over the patches, the same for every channel, whose two matrices are Monarch matrices.

    Formula: `M₂·GELU(M₁·X + b₁) + b₂` with `M = Pᵀ·L·P·R`, where R and L are block-diagonal with k blocks and P deals
    what it gets out to k blocks in turn, for X of S × C.
    Mixes: runs of ⌈S/k⌉ patches in R, what is k apart in L; with both all patches, the same for every channel.
    `blocks`: number of blocks k; a size that k does not divide is padded with zeros. With 1, R and L are dense.
    `expansion`: hidden size D_S as a multiple of `width`; every published Mixer has 0.5.
    Parameters: 2·k·q·(p + r) + S + D_S with p = ⌈S/k⌉, r = ⌈D_S/k⌉, q = min(p, r); multiply-adds: 2·k·q·(p + r)·C, for
    S tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, blocks: int = 4, expansion: float = 0.5) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {blocks}; try 4")
        hidden = hidden_width(expansion, width)
        self.hidden = hidden
        self.expand = MonarchLinear(grid.tokens, hidden, blocks)
        self.activation = nn.GELU()
        self.contract = MonarchLinear(hidden, grid.tokens, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        batch, tokens, channels = x.shape
        # Side by side, the images make one product for each block, and the first permutation is a matter of strides.
        hidden = self.activation(self.expand(x.transpose(0, 1).reshape(tokens, -1)))
        mixed: Tensor = self.contract(hidden.flatten(0, 1)[: self.hidden])
        return mixed.reshape(*mixed.shape[:2], batch, channels).permute(2, 0, 1, 3).flatten(1, 2)[:, :tokens]


class MonarchLinear(nn.Module):
    """A linear layer with a Monarch matrix over the first axis: inputs × columns.

    The result is (outputs / blocks) × blocks × columns, rounded up: its first two axes, flattened, are the outputs
    and after them what is left of the padding.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        block_inputs, block_outputs = -(-inputs // blocks), -(-outputs // blocks)
        inner = min(block_inputs, block_outputs)
        self.input_padding = block_inputs * blocks - inputs
        self.output_padding = block_outputs * blocks - outputs
        # Variance 1 / fan-in of a block keeps the scale of the activations in both factors.
        self.right = nn.Parameter(_uniform(blocks, inner, block_inputs))
        self.left = nn.Parameter(_uniform(blocks, block_outputs, inner))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs × columns."""
        blocks, inner, block_inputs = self.right.shape
        if self.input_padding:
            x = F.pad(x, (0, 0, 0, self.input_padding))
        inside = torch.bmm(self.right, x.reshape(blocks, block_inputs, -1))
        dealt = inside.reshape(inner, blocks, -1).transpose(0, 1)
        bias = F.pad(self.bias, (0, self.output_padding)).reshape(-1, blocks).t().unsqueeze(2)
        return batched_product(self.left, dealt, bias).transpose(0, 1)


def _uniform(blocks: int, outputs: int, inputs: int) -> Tensor:
    bound = (3 / inputs) ** 0.5
    return torch.empty(blocks, outputs, inputs).uniform_(-bound, bound)
