"""The weighted sum of branches with which ViP and its followers join what they have mixed along each direction.

Hou et al., 2021, arXiv 2106.12368, section 3.2 ("Weighted Permute-MLP"); the same in CycleMLP, WaveMLP, DynaMixer and
Hire-MLP.
"""

import torch
from torch import Tensor, nn

from explore.architecture.layers import lecun_uniform


class Reweighting(nn.Module):
    """Sums three branches, weighted for each image and channel.

    The weights are a softmax over the branches; their logits come from an MLP on the mean over the patches.
    Parameters: C²/4 + C/4 + 3·C²/4 + 3·C.
    """

    BRANCHES = 3

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 4, 1)
        self.expand = lecun_uniform(nn.Linear(width, hidden))
        self.activation = nn.GELU()
        self.contract = lecun_uniform(nn.Linear(hidden, self.BRANCHES * width))

    def forward(self, along_height: Tensor, along_width: Tensor, channels: Tensor) -> Tensor:
        """Three of batch × tokens × channels, joined into one."""
        # The mean of the sum, one branch at a time: the sum itself would be one more tensor as large as a branch.
        mean = along_height.mean(1) + along_width.mean(1) + channels.mean(1)
        # The official code reads the logits as batch × channels × branches.
        logits = self.contract(self.activation(self.expand(mean))).unflatten(1, (-1, self.BRANCHES))
        first, second, third = logits.softmax(2).unsqueeze(1).unbind(3)
        return torch.addcmul(torch.addcmul(along_height * first, along_width, second), channels, third)
