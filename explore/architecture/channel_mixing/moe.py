"""A sparse mixture of experts in place of the MLP over the channels.

Switch Transformer (Fedus et al., 2021, arXiv 2101.03961, section 2) for one expert per patch; for more, gates that add
up to one as in GShard (Lepikhin et al., 2020, arXiv 2006.16668, section 2.2). No expert has a capacity, so that no
patch is dropped and the images of a batch do not compete.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.block_diagonal import block_weight
from explore.architecture.channel_mixing.experts import charged, expert_product
from explore.architecture.hidden import activated
from explore.architecture.layers import ChannelMixing, hidden_width, lecun_uniform
from explore.architecture.parts import exporting


class MixtureOfExperts(ChannelMixing):
    """E MLPs over the channels, of which a learned router chooses k for each patch.

    Formula: `y = Σ p_i·MLP_i(x)` over the k largest of `p = softmax(x·R)`, divided by their sum for k > 1; in training
    the loss `balance·E·Σ_i f_i·P_i` is added, f_i the share of the choices that fall on expert i, P_i the mean of p_i.
    Mixes: the channels of each patch alone, all with all.
    `experts`: number of experts E, at least 2.
    `top_k`: experts k per patch, 1 to E.
    `expansion`: hidden channels of each expert as a multiple e of `width`.
    `balance`: weight of the loss that spreads the patches over the experts; 0 for none.
    Parameters: E·(2·e·C² + (e + 1)·C) + E·C; multiply-adds: 2·e·k·S·C² + E·S·C, for S tokens of C channels.

    The multiply-adds counted are those of the k chosen experts, and so many are computed, on a CPU and on a GPU, eager
    and compiled, with patches sorted by expert. Only an exported program computes all E experts for every patch and
    weights them by their gates, mostly 0: it consists of PyTorch's own operators, so that it runs without this package.
    """

    def __init__(
        self,
        grid: Grid,
        width: int,
        *,
        experts: int = 4,
        top_k: int = 1,
        expansion: float = 4.0,
        balance: float = 0.01,
    ) -> None:
        super().__init__()
        if experts < 2:
            raise ValueError(f"experts must be at least 2, got {experts}; for one expert take channel_mixing=mlp")
        if not 1 <= top_k <= experts:
            raise ValueError(f"top_k must be 1 to the number of experts, got {top_k} of {experts}; try 1 or 2")
        if balance < 0:
            raise ValueError(f"balance must not be negative, got {balance}; try 0.01, or 0 for no such loss")
        hidden = hidden_width(expansion, width)
        self.experts, self.top_k, self.balance = experts, top_k, balance
        self.router = lecun_uniform(nn.Linear(width, experts, bias=False))
        # Both are experts × hidden channels × channels, so that all experts together are one matrix, too.
        self.expand = block_weight(experts, hidden, width, fan_in=width)
        self.expand_bias = nn.Parameter(torch.zeros(experts * hidden))
        self.activation = nn.GELU()
        self.contract = block_weight(experts, hidden, width, fan_in=hidden)
        self.contract_bias = nn.Parameter(torch.zeros(experts * width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        rows = x.flatten(0, 1)
        gates, chosen = self.routed(rows)
        mixed = self.all_experts(rows, gates, chosen) if exporting() else self.chosen_experts(rows, gates, chosen)
        return mixed.view_as(x)

    def routed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The gates and the numbers of the chosen experts, both rows × k; charges the loss of balance in training."""
        # In full precision even under autocast: a rounding error must not send a patch to another expert (section 2.4).
        with torch.autocast(_autocast_device(rows), enabled=False):
            probabilities = self.router(rows.to(self.router.weight.dtype)).softmax(1)
            if self.training and self.balance > 0:
                probabilities = charged(probabilities, self.balance_gradient(probabilities))
            gates, chosen = probabilities.topk(self.top_k, dim=1)
            if self.top_k > 1:
                gates = gates / gates.sum(1, keepdim=True)
        return gates, chosen

    def balance_gradient(self, probabilities: Tensor) -> Tensor:
        """The gradient of the loss of balance, which is linear in the probabilities: one number per expert."""
        chosen = probabilities.detach().topk(self.top_k, dim=1).indices
        share = self._chosen_by(chosen).sum(1) / chosen.numel()
        return self.balance * self.experts / probabilities.shape[0] * share.to(probabilities.dtype)

    def chosen_experts(self, rows: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """Sorts the rows by expert, multiplies each by its experts' weights only, and puts them back in order."""
        device = _autocast_device(rows)
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
        order = chosen.flatten().argsort(stable=True)
        ends = self._chosen_by(chosen).sum(1).cumsum(0).to(torch.int32)
        expand, contract = self.expand.to(dtype).transpose(1, 2), self.contract.to(dtype)
        expand_bias, contract_bias = (
            bias.to(dtype).view(self.experts, -1) for bias in (self.expand_bias, self.contract_bias)
        )
        hidden = expert_product(rows.to(dtype)[order // self.top_k], ends, expand, expand_bias)
        mixed = expert_product(activated(self.activation, hidden), ends, contract, contract_bias)
        by_row: Tensor = mixed[order.argsort()].view(-1, self.top_k, rows.shape[1])
        return (by_row * gates.to(dtype).unsqueeze(2)).sum(1)

    def all_experts(self, rows: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """The same by multiplying each row by the weights of all experts, two products in all."""
        table = gates.new_zeros(rows.shape[0], self.experts).scatter(1, chosen, gates)
        hidden = self.activation(F.linear(rows, self.expand.flatten(0, 1), self.expand_bias))
        hidden = hidden.view(-1, self.experts, self.expand.shape[1]) * table.unsqueeze(2)
        bias = table @ self.contract_bias.view(self.experts, -1)
        return torch.addmm(bias, hidden.flatten(1), self.contract.flatten(0, 1))

    def _chosen_by(self, chosen: Tensor) -> Tensor:
        """Whether each expert takes each choice: experts × choices."""
        return chosen.flatten() == torch.arange(self.experts, device=chosen.device).unsqueeze(1)


def _autocast_device(x: Tensor) -> str:
    return "cpu" if x.is_meta else x.device.type  # autocast refuses the meta device
