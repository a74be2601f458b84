"""The MLP with a depthwise convolution inside equals sums over channels and neighbours, on grids of any shape."""

from functools import partial

import pytest
import torch
from mixing_references import convolved, cost, gelu, product, scattered
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.inverted import InvertedMlp

GRIDS = [Grid(1, 2), Grid(3, 5), Grid(4, 2)]


def example(grid: Grid, width: int, kernel: int = 3) -> tuple[InvertedMlp, Tensor]:
    torch.manual_seed(0)
    return scattered(InvertedMlp(grid, width, expansion=1.5, kernel=kernel)), torch.randn(2, grid.tokens, width)


def reference(module: InvertedMlp, x: Tensor) -> Tensor:
    filtered = convolved(product(x, module.expand), module.grid, module.filter.weight[:, 0])
    active = (filtered + module.filter.bias).apply_(gelu)
    return product(active, module.contract)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_the_sums_over_channels_and_neighbours(grid: Grid, kernel: int) -> None:
    module, x = example(grid, 4, kernel)
    before = x.clone()
    expected = reference(module, x)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    with torch.enable_grad():
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("width", "kernel"), [(384, 3), (768, 3), (384, 5)])
def test_cost_equals_the_closed_formula(width: int, kernel: int) -> None:
    params = 8 * width**2 + 5 * width + 4 * width * (kernel**2 + 1)
    macs = 196 * (8 * width**2 + 4 * width * kernel**2)
    assert cost(partial(InvertedMlp, kernel=kernel), width) == (params, macs)


def test_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match="kernel must be an odd number of at least 3, got 4; try"):
        InvertedMlp(Grid(3, 5), 4, kernel=4)
