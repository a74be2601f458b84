"""sMLPNet's token mixing equals the paper's branches, written out below row by row and column by column."""

import pytest
import torch
from mixing_references import batch_norm, convolved, cost, product, rows_and_columns, scattered
from torch import Tensor
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.sparse import SparseMlp

WIDTH = 6


def example(grid: Grid) -> Tensor:
    return torch.randn(4, grid.tokens, WIDTH, generator=torch.Generator().manual_seed(1))


def make(grid: Grid, kernel: int) -> SparseMlp:
    torch.manual_seed(0)
    return scattered(SparseMlp(grid, WIDTH, kernel=kernel))


def reference(module: SparseMlp, x: Tensor) -> Tensor:
    rows, columns = rows_and_columns(module.grid)
    local = convolved(F.gelu(batch_norm(x, module.norm)), module.grid, module.filter.weight[:, 0])
    x = F.gelu(batch_norm(local, module.sparse_norm))
    along_row, along_column = torch.empty_like(x), torch.empty_like(x)
    for tokens in rows:
        for column, token in enumerate(tokens):
            weighted = sum(module.row.weight[column, i] * x[:, other] for i, other in enumerate(tokens))
            along_row[:, token] = weighted + module.row.bias[column]
    for tokens in columns:
        for row, token in enumerate(tokens):
            weighted = sum(module.column.weight[row, i] * x[:, other] for i, other in enumerate(tokens))
            along_column[:, token] = weighted + module.column.bias[row]
    return product(torch.cat([x, along_row, along_column], 2), module.fuse)


@pytest.mark.parametrize("grid", [Grid(3, 5), Grid(4, 2), Grid(1, 2), Grid(5, 1)], ids=str)
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_equals_the_three_branches(grid: Grid, kernel: int, training: bool) -> None:
    module, x = make(grid, kernel).train(training), example(grid)
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
    assert cost(lambda grid, width: SparseMlp(grid, width).eval(), width) == (params, macs)


def test_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match=r"kernel must be an odd number of at least 3, got 2; try"):
        SparseMlp(Grid(3, 5), WIDTH, kernel=2)
