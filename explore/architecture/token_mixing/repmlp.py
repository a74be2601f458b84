"""The block of RepMLPNet (Ding et al., 2022, arXiv 2112.11081, section 3), with re-parameterised locality."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import (
    TokenMixing,
    as_image,
    as_tokens,
    batched_product,
    dividing,
    lecun_uniform,
    odd,
)


class GlobalPerceptron(nn.Module):
    """A gate between 0 and 1 for each image and channel, from an MLP on the mean over the patches."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = lecun_uniform(nn.Linear(width, hidden))
        self.activation = nn.ReLU()
        self.contract = lecun_uniform(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels to batch × 1 × channels."""
        gate: Tensor = self.contract(self.activation(self.expand(x.mean(1, keepdim=True))))
        return gate.sigmoid()


class ShareSetNorm(nn.BatchNorm1d):
    """Batch normalisation with one weight, bias, mean and variance for each share set."""

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels; channel c belongs to share set c modulo the number of sets."""
        # PyTorch's kernels want either many channels last or many positions last.
        shape = (1, 1, -1) if self.num_features == 1 else (-1, self.num_features)
        return super().forward(x.reshape(shape)).view_as(x)


class DeployedRepMlp(TokenMixing):
    """What remains of a trained `RepMlp`: one matrix with bias for each share set, and the global perceptron."""

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, share_sets: int = 1, reduction: int = 4) -> None:
        super().__init__()
        self.gate = GlobalPerceptron(width, width // reduction)
        self.channel = lecun_uniform(nn.Linear(grid.tokens, share_sets * grid.tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        gate: Tensor = self.gate(x)
        return across_share_sets(self.channel, x) * gate


class RepMlp(TokenMixing):
    """A linear map over the patches, several for different channels, trained with convolutions beside it.

    Formula: `Y_c = σ(g(X))_c · (BN(W_j·X_c) + BN(K_j ∗ X_c) + BN(k_j·X_c))` for a channel c of share set j = c mod s;
    g is an MLP with ReLU on the mean patch, K a k × k convolution and k a factor (a 1 × 1 convolution). Deployed
    `Y_c = σ(g(X))_c · (V_j·X_c + b_j)`, because a convolution is a linear map over the patches too.
    Mixes: all patches, the same for every channel of a share set; the gate depends on all patches and channels.
    `share_sets`: number s of matrices over the patches, must divide `width`.
    `kernel`: side of the convolution in patches, odd.
    `reduction`: channels per hidden unit of the gate's MLP.
    Parameters: s·S² + s·(k² + 7) + 2·C²/r + C/r + C, deployed s·(S² + S) + 2·C²/r + C/r + C; multiply-adds:
    S²·C + S·C·k² + 2·C²/r, deployed S²·C + 2·C²/r, for S tokens of C channels.
    """

    tied_to_grid: ClassVar[bool] = True

    def __init__(self, grid: Grid, width: int, *, share_sets: int = 1, kernel: int = 3, reduction: int = 4) -> None:
        super().__init__()
        dividing("share_sets", share_sets, width)
        if not 1 <= reduction <= width:
            raise ValueError(f"reduction must be from 1 to width, got {reduction} and {width}; try {min(4, width)}")
        self.grid, self.width, self.share_sets, self.reduction = grid, width, share_sets, reduction
        self.gate = GlobalPerceptron(width, width // reduction)
        self.channel = lecun_uniform(nn.Linear(grid.tokens, share_sets * grid.tokens, bias=False))
        self.channel_norm = ShareSetNorm(share_sets)
        # One filter per share set, so with a single input channel; `forward` applies it to each channel of its set.
        self.local = lecun_uniform(nn.Conv2d(1, share_sets, odd(kernel), bias=False))
        self.local_norm = ShareSetNorm(share_sets)
        self.point = lecun_uniform(nn.Conv2d(1, share_sets, 1, bias=False))
        self.point_norm = ShareSetNorm(share_sets)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        repeats = self.width // self.share_sets
        filters = self.local.weight.repeat(repeats, 1, 1, 1)
        padding = filters.shape[-1] // 2
        local = as_tokens(F.conv2d(as_image(x, self.grid), filters, padding=padding, groups=self.width))
        mixed: Tensor = self.channel_norm(across_share_sets(self.channel, x)) + self.local_norm(local)
        # A product per element is the 1 × 1 convolution with one channel, and up to four times as fast.
        mixed = mixed + self.point_norm(x * self.point.weight.flatten().repeat(repeats))
        gate: Tensor = self.gate(x)
        return mixed * gate

    @torch.no_grad()
    def deployed(self) -> DeployedRepMlp:
        """A new module without the convolutions and norms, equal to this one in evaluation; this one stays as it is."""
        sets, tokens = self.share_sets, self.grid.tokens
        channel, bias = _folded(self.channel.weight.view(sets, tokens, tokens), self.channel_norm)
        filters, local_bias = _folded(self.local.weight, self.local_norm)
        point, point_bias = _folded(self.point.weight, self.point_norm)
        centre = filters.shape[-1] // 2
        filters[:, :, centre, centre] += point[:, :, 0, 0]
        # What a convolution makes of each patch on its own is a column of its matrix.
        patches = torch.eye(tokens, dtype=filters.dtype, device=filters.device).view(tokens, 1, *self.grid)
        columns = F.conv2d(patches.expand(-1, sets, -1, -1), filters, padding=centre, groups=sets)
        channel += columns.view(tokens, sets, tokens).permute(1, 2, 0)
        state = {
            "channel.weight": channel.flatten(0, 1),
            "channel.bias": (bias + local_bias + point_bias).repeat_interleave(tokens),
            **{f"gate.{name}": value.clone() for name, value in self.gate.state_dict().items()},
        }
        with torch.device("meta"):
            module = DeployedRepMlp(self.grid, self.width, share_sets=sets, reduction=self.reduction)
        module.load_state_dict(state, assign=True)
        return module.train(self.training)


def across_share_sets(linear: nn.Linear, x: Tensor) -> Tensor:
    """Applies one square matrix over the tokens for each share set: batch × tokens × channels in and out.

    `linear` has the matrices of the share sets one below the other; channel c belongs to set c modulo their number.
    """
    batch, tokens, _ = x.shape
    weight = linear.weight.view(-1, tokens, tokens)
    sets = weight.shape[0]
    if sets == 1:
        bias = None if linear.bias is None else linear.bias.unsqueeze(1)
        return batched_product(weight.expand(batch, -1, -1), x, bias)
    # One product per share set for all images together: sets × (batch · channels of a set) × tokens.
    maps = x.transpose(1, 2).reshape(-1, sets, tokens).transpose(0, 1)
    bias = None if linear.bias is None else linear.bias.view(sets, 1, tokens)
    mixed = batched_product(maps, weight.transpose(1, 2), bias)
    return mixed.view(sets, batch, -1, tokens).permute(1, 3, 2, 0).reshape(x.shape)


def _folded(weight: Tensor, norm: ShareSetNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer followed by a norm in evaluation; the first axis counts the share sets."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return weight * scale.view(-1, *[1] * (weight.ndim - 1)), norm.bias - norm.running_mean * scale
