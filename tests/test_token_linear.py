"""The cross-patch linear layer of ResMLP equals a sum written out patch by patch, and costs what the paper says.

A second test states the same through the official layout: a linear layer on the transposed tokens.
"""

import pytest
import torch
from mixing_references import cost, scattered
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.linear import TokenLinear

GRIDS = [Grid(1, 2), Grid(3, 5), Grid(4, 4)]


def example(grid: Grid, width: int) -> tuple[TokenLinear, Tensor]:
    torch.manual_seed(0)
    return scattered(TokenLinear(grid, width)), torch.randn(2, grid.tokens, width)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_the_sum_over_patches(grid: Grid) -> None:
    module, x = example(grid, 6)
    expected = torch.zeros_like(x)
    for to in range(grid.tokens):
        expected[:, to] = module.linear.bias[to]
        for of in range(grid.tokens):
            expected[:, to] += module.linear.weight[to, of] * x[:, of]
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_a_linear_layer_on_the_transposed_tokens(grid: Grid) -> None:
    module, x = example(grid, 6)
    torch.testing.assert_close(module(x), module.linear(x.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=0)


def test_every_channel_is_mixed_alike_and_alone() -> None:
    module, x = example(Grid(3, 5), 6)
    torch.testing.assert_close(module(x[..., [2, 0]]), module(x)[..., [2, 0]])


@pytest.mark.parametrize(("width", "macs"), [(384, 14_751_744), (768, 29_503_488)])
def test_cost_equals_the_closed_formula(width: int, macs: int) -> None:
    assert cost(TokenLinear, width) == (38_612, macs)
