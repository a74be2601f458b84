"""Activation functions by name. Each is a module, so that a network can say which form of GELU it means."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import one_of


class SquaredRelu(nn.Module):
    """`relu(x)²` (So et al., 2021, arXiv 2109.08668, section 3)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return F.relu(x).square()


class StarRelu(nn.Module):
    """`s · relu(x)² + b` with a learned scale and bias (Yu et al., 2022, arXiv 2210.13452, section 3.3).

    Starts at s = 1 and b = 0 as the official code does; the paper derives s = 0.8944 and b = -0.4472.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        return torch.addcmul(self.bias, self.scale, F.relu(x).square())


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "squared_relu": SquaredRelu,
    "star_relu": StarRelu,
}
GELU_FORMS = {"erf": "none", "tanh": "tanh"}  # ours to PyTorch's


def activation(name: str) -> nn.Module:
    """A new activation function; raises `ValueError` for an unknown name."""
    return ACTIVATIONS[one_of("activation", name, ACTIVATIONS)]()
