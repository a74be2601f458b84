"""The channel mixing of the MLP-Mixer and of ViT (Tolstikhin et al., 2021, arXiv 2105.01601, section 2, eq. 1).

With batch norms that of RepMLPNet (Ding et al., 2021, arXiv 2112.11081), whose official code has convolutions with a
1 × 1 kernel for the same linear maps.
"""

import copy
from typing import Self

import torch
from torch import Tensor, nn

from explore.architecture.activations import activation as activation_named
from explore.architecture.catalog import Grid
from explore.architecture.hidden import activated
from explore.architecture.layers import ChannelMixing, hidden_width, lecun_uniform
from explore.architecture.mlp import channel_mlp
from explore.architecture.norms import BatchNorm


class ChannelMlp(ChannelMixing):
    """An MLP over the channels, the same for every patch.

    Formula: `Y = act(X·W₁ + b₁)·W₂ + b₂`; with batch norms `Y = BN(act(BN(X·W₁))·W₂)`.
    Mixes: the channels of each patch alone, all with all.
    `expansion`: hidden channels as a multiple e of `width`.
    `activation`: gelu, relu, squared_relu, star_relu or silu.
    `batch_norm`: a BatchNorm in place of each bias; `deployed()` folds it into the weights.
    Parameters: 2·e·C² + (e + 1)·C, star_relu 2 more, with batch norms 2·e·C² + 2·(e + 1)·C; multiply-adds: 2·e·S·C²,
    for S tokens of C channels.
    """

    def __init__(
        self,
        grid: Grid,
        width: int,
        *,
        expansion: float = 4.0,
        activation: str = "gelu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        hidden = hidden_width(expansion, width)
        self.expand = lecun_uniform(nn.Linear(width, hidden, bias=not batch_norm))
        self.expand_norm = BatchNorm(hidden) if batch_norm else nn.Identity()
        self.activation = activation_named(activation)
        self.contract = lecun_uniform(nn.Linear(hidden, width, bias=not batch_norm))
        self.contract_norm = BatchNorm(width) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        if not isinstance(self.expand_norm, BatchNorm):
            return channel_mlp(self.expand, self.activation, self.contract, x)
        hidden = activated(self.activation, self.expand_norm(self.expand(x)))
        mixed: Tensor = self.contract_norm(self.contract(hidden))
        return mixed

    def deployed(self) -> Self:
        """The MLP whose biased products compute the same in evaluation; the mixing itself without batch norms."""
        if not isinstance(self.expand_norm, BatchNorm) or not isinstance(self.contract_norm, BatchNorm):
            return self
        plain = copy.deepcopy(self)
        plain.expand, plain.expand_norm = _folded(self.expand, self.expand_norm), nn.Identity()
        plain.contract, plain.contract_norm = _folded(self.contract, self.contract_norm), nn.Identity()
        return plain


@torch.no_grad()
def _folded(linear: nn.Linear, norm: BatchNorm) -> nn.Linear:
    """One biased product that computes `norm(linear(x))` with the running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded = nn.Linear(linear.in_features, linear.out_features, device=scale.device, dtype=scale.dtype)
    folded.weight.copy_(linear.weight * scale.unsqueeze(1))
    folded.bias.copy_(norm.bias - norm.running_mean * scale)
    return folded
