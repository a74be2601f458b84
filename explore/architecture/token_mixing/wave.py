"""The phase-aware token mixing of Wave-MLP (Tang et al., 2022, arXiv 2111.12294, section 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid, one_of
from explore.architecture.layers import TokenMixing, as_image, as_tokens, lecun_uniform, odd
from explore.architecture.norms import BatchNorm
from explore.architecture.token_mixing.reweighting import Reweighting

PHASES = ("fc", "depthwise")


class Phase(nn.Module):
    """The angle of each patch and channel, at least 0 and without an upper bound."""

    def __init__(self, grid: Grid, width: int, kind: str) -> None:
        super().__init__()
        self.grid = grid
        self.estimate: nn.Linear | nn.Conv2d
        if one_of("phase", kind, PHASES) == "fc":
            self.estimate = lecun_uniform(nn.Linear(width, width))
        else:
            self.estimate = lecun_uniform(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False))
        self.norm = BatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels in and out."""
        local = isinstance(self.estimate, nn.Conv2d)
        angle = as_tokens(self.estimate(as_image(x, self.grid))) if local else self.estimate(x)
        return F.relu(self.norm(angle))


class WaveBranch(nn.Module):
    """Patches as waves, `amplitude · (cos phase, sin phase)`, added up along one direction by a convolution."""

    def __init__(self, grid: Grid, width: int, phase: str, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.padding = (kernel[0] // 2, kernel[1] // 2)
        self.phase = Phase(grid, width, phase)
        self.amplitude = lecun_uniform(nn.Linear(width, width, bias=False))
        self.filter = lecun_uniform(nn.Conv2d(2 * width, width, kernel, groups=width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels in and out."""
        phase, amplitude = self.phase(x), self.amplitude(x)
        waves = torch.cat([amplitude * phase.cos(), amplitude * phase.sin()], 2)
        # A convolution of channel pairs: each channel on its own, then added in pairs, is up to four times as fast.
        weight = self.filter.weight.flatten(0, 1).unsqueeze(1)
        image = F.conv2d(as_image(waves, self.grid), weight, padding=self.padding, groups=weight.shape[0])
        added = as_tokens(image)
        return added[:, :, ::2] + added[:, :, 1::2]


class Wave(TokenMixing):
    """Patches as waves, with a learned amplitude and phase, that interfere along the rows and along the columns.

    Formula: `(row ⊙ a₁ + column ⊙ a₂ + X·W_c ⊙ a₃)·W`, where row and column are `K ∗ [Z ⊙ cos Θ, Z ⊙ sin Θ]` with
    `Z = X·W_z` and `Θ = ReLU(BN(phase(X)))`, each with weights of its own, and the a are the softmax of an MLP on the
    mean patch. K adds neighbouring channels of the concatenation in pairs, as the official code does: the first half of
    the result has the cosines, the second the sines.
    Mixes: the k patches around each in its row and in its column.
    `kernel`: length k of both convolutions in patches, odd.
    `phase`: how the angle is estimated, `fc` from the patch or `depthwise` from its 3 × 3 neighbourhood (Wave-MLP-T*).
    Parameters: 7·C² + (4·k + 10.25)·C, depthwise 5·C² + (4·k + 26.25)·C; multiply-adds: 6·S·C² + 4·k·S·C + C²,
    depthwise 4·S·C² + (4·k + 18)·S·C + C², for S tokens of C channels.
    """

    def __init__(self, grid: Grid, width: int, *, kernel: int = 7, phase: str = "fc") -> None:
        super().__init__()
        # Named `h` and `w` in the official code, although a 1 × k kernel runs along the width.
        self.row = WaveBranch(grid, width, phase, (1, odd(kernel)))
        self.column = WaveBranch(grid, width, phase, (kernel, 1))
        self.channels = lecun_uniform(nn.Linear(width, width, bias=False))
        self.reweighting = Reweighting(width)
        self.projection = lecun_uniform(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Batch × tokens × channels."""
        mixed: Tensor = self.projection(self.reweighting(self.row(x), self.column(x), self.channels(x)))
        return mixed
