"""What the tests of mixings share: plain references for the steps that papers have in common, and the cost of a mixing.

The references use the parameters of a module, never its forward pass. Where not said otherwise, x is batch × tokens ×
channels, with the patches row by row.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.reweighting import Reweighting

GRID = Grid(14, 14)
Module = TypeVar("Module", bound=nn.Module)


def cost(make: Callable[[Grid, int], nn.Module], width: int, grid: Grid = GRID) -> tuple[int, float]:
    """Parameters, and multiply-adds of one image as PyTorch counts them."""
    with torch.device("meta"):
        module, x = make(grid, width), torch.empty(1, grid.tokens, width)
    with FlopCounterMode(display=False) as counter:
        module(x)
    return sum(one.numel() for one in module.parameters()), counter.get_total_flops() / 2


class OnImage(nn.Module):
    """Takes an image with one pixel for each patch."""

    def __init__(self, mixing: nn.Module) -> None:
        super().__init__()
        self.mixing = mixing

    def forward(self, image: Tensor) -> Tensor:
        mixed: Tensor = self.mixing(image.flatten(2).transpose(1, 2))
        return mixed


def scattered(module: Module) -> Module:
    """Gives every bias, and every weight and statistic of a norm, values that matter; returns the module."""
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif name.endswith("bias") or ("norm" in name and value.is_floating_point()):
            value.normal_()
    return module


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def sums(layer: nn.Linear, values: list[float]) -> list[float]:
    """A linear layer on one vector, number by number."""
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    rows = layer.weight.tolist()
    return [sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in zip(rows, bias, strict=True)]


def product(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def batch_norm(x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """In training with the statistics of all patches of the batch."""
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = x.mean((0, 1)), x.var((0, 1), unbiased=False)
    assert mean is not None
    assert variance is not None
    return (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias


def rows_and_columns(grid: Grid) -> tuple[list[list[int]], list[list[int]]]:
    """The patches of every row and of every column."""
    rows = [[row * grid.width + column for column in range(grid.width)] for row in range(grid.height)]
    columns = [[row * grid.width + column for row in range(grid.height)] for column in range(grid.width)]
    return rows, columns


def gathered(x: Tensor, grid: Grid, offset: Callable[[int], tuple[int, int]], outside: Tensor) -> Tensor:
    """Each channel from the patch so many rows below and columns to the right; what lies beyond is as in `outside`."""
    result = outside.clone()
    for channel in range(x.shape[2]):
        down, right = offset(channel)
        for row in range(grid.height):
            for column in range(grid.width):
                if 0 <= row + down < grid.height and 0 <= column + right < grid.width:
                    source = (row + down) * grid.width + column + right
                    result[:, row * grid.width + column, channel] = x[:, source, channel]
    return result


def convolved(x: Tensor, grid: Grid, filters: Tensor) -> Tensor:
    """Depthwise, with zeros outside; `filters` is channels × kernel height × kernel width."""
    result = torch.zeros_like(x)
    reach = filters.shape[1] // 2, filters.shape[2] // 2
    for row in range(grid.height):
        for column in range(grid.width):
            for down in range(-reach[0], reach[0] + 1):
                for right in range(-reach[1], reach[1] + 1):
                    if 0 <= row + down < grid.height and 0 <= column + right < grid.width:
                        neighbour = x[:, (row + down) * grid.width + column + right]
                        weight = filters[:, reach[0] + down, reach[1] + right]
                        result[:, row * grid.width + column] += weight * neighbour
    return result


def reweighted(module: Reweighting, branches: list[Tensor]) -> Tensor:
    """The sum of three branches, weighted channel by channel."""
    mean = torch.stack([one.mean(1) for one in branches]).sum(0)
    logits = product(F.gelu(product(mean, module.expand)), module.contract)
    result = torch.zeros_like(branches[0])
    for channel in range(mean.shape[1]):
        weights = logits[:, 3 * channel : 3 * channel + 3].softmax(1)
        for index, one in enumerate(branches):
            result[:, :, channel] += weights[:, index, None] * one[:, :, channel]
    return result
