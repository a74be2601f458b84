"""sMLPNet's token mixing equals the paper's branches, written out below row by row and column by column."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.sparse import SparseMlp

WIDTH = 6


def example(grid: Grid) -> Tensor:
    return torch.randn(4, grid.tokens, WIDTH, generator=torch.Generator().manual_seed(1))


def perturbed(grid: Grid, kernel: int) -> SparseMlp:
    """Every bias and batch statistic is other than zero."""
    torch.manual_seed(0)
    module = SparseMlp(grid, WIDTH, kernel=kernel)
    for name, value in module.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            value.normal_()
        elif "norm." in name and value.is_floating_point():
            value.uniform_(0.5, 2.0)
    return module


def normed(x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = x.mean((0, 1)), x.var((0, 1), unbiased=False)
    assert mean is not None
    assert variance is not None
    return F.gelu((x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias)


def convolved(x: Tensor, grid: Grid, filters: Tensor) -> Tensor:
    result, reach = torch.zeros_like(x), filters.shape[1] // 2
    for row in range(grid.height):
        for column in range(grid.width):
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    if 0 <= row + down < grid.height and 0 <= column + right < grid.width:
                        neighbour = x[:, (row + down) * grid.width + column + right]
                        result[:, row * grid.width + column] += filters[:, reach + down, reach + right] * neighbour
    return result


def reference(module: SparseMlp, x: Tensor) -> Tensor:
    height, width = module.grid
    x = normed(convolved(normed(x, module.norm), module.grid, module.filter.weight[:, 0]), module.sparse_norm)
    along_row, along_column = torch.empty_like(x), torch.empty_like(x)
    for row in range(height):
        tokens = [row * width + column for column in range(width)]
        for column, token in enumerate(tokens):
            weighted = sum(module.row.weight[column, i] * x[:, other] for i, other in enumerate(tokens))
            along_row[:, token] = weighted + module.row.bias[column]
    for column in range(width):
        tokens = [row * width + column for row in range(height)]
        for row, token in enumerate(tokens):
            weighted = sum(module.column.weight[row, i] * x[:, other] for i, other in enumerate(tokens))
            along_column[:, token] = weighted + module.column.bias[row]
    return torch.cat([x, along_row, along_column], 2) @ module.fuse.weight.T


@pytest.mark.parametrize("grid", [Grid(3, 5), Grid(4, 2), Grid(1, 2), Grid(5, 1)], ids=str)
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_equals_the_three_branches(grid: Grid, kernel: int, training: bool) -> None:
    module, x = perturbed(grid, kernel).train(training), example(grid)
    torch.testing.assert_close(module(x), reference(module, x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_reaches_the_row_and_the_column_of_the_neighbourhood() -> None:
    module = SparseMlp(Grid(5, 6), WIDTH).eval()
    x = torch.zeros(1, 30, WIDTH)
    changed = x.index_fill(1, torch.tensor([0]), 1.0)  # the corner, which the convolution spreads over 2 × 2 patches
    reached = (module(changed) - module(x))[0].abs().amax(1).reshape(5, 6) > 0
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[:2, :] = expected[:, :2] = True
    assert torch.equal(reached, expected)


FORMULAS = [
    # channels, parameters and multiply-adds of one image of 14 × 14 patches: sparse MLP + convolution and its norm
    (384, 443_556 + 11 * 384, 88_811_520 + 9 * 196 * 384),
    (768, 1_771_428 + 11 * 768, 351_031_296 + 9 * 196 * 768),
]


@pytest.mark.parametrize(("width", "params", "macs"), FORMULAS)
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    with torch.device("meta"):
        module, x = SparseMlp(Grid(14, 14), width).eval(), torch.empty(1, 196, width)
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert sum(one.numel() for one in module.parameters()) == params
    assert counter.get_total_flops() == 2 * macs


def test_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match=r"kernel must be an odd number of at least 3, got 2; try"):
        SparseMlp(Grid(3, 5), WIDTH, kernel=2)
