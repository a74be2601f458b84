"""The MLP with a depthwise convolution inside equals sums over channels and neighbours, on grids of any shape."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.inverted import InvertedMlp

GRIDS = [Grid(1, 2), Grid(3, 5), Grid(4, 2)]


def example(grid: Grid, width: int, kernel: int = 3) -> tuple[InvertedMlp, Tensor]:
    torch.manual_seed(0)
    module = InvertedMlp(grid, width, expansion=1.5, kernel=kernel)
    for layer in (module.expand, module.filter, module.contract):
        assert layer.bias is not None
        nn.init.normal_(layer.bias)
    return module, torch.randn(2, grid.tokens, width)


def reference(module: InvertedMlp, x: Tensor, kernel: int) -> Tensor:
    (rows, columns), reach = module.grid, kernel // 2
    expanded = torch.stack([module.expand.weight @ patch + module.expand.bias for patch in x])
    active = torch.empty_like(expanded)
    for row in range(rows):
        for column in range(columns):
            total = module.filter.bias.clone()
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    if 0 <= row + down < rows and 0 <= column + right < columns:
                        weight = module.filter.weight[:, 0, down + reach, right + reach]
                        total += weight * expanded[(row + down) * columns + column + right]
            values = [one * 0.5 * (1 + math.erf(one / math.sqrt(2))) for one in total.tolist()]
            active[row * columns + column] = torch.tensor(values)
    return torch.stack([module.contract.weight @ patch + module.contract.bias for patch in active])


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_the_sums_over_channels_and_neighbours(grid: Grid, kernel: int) -> None:
    module, x = example(grid, 4, kernel)
    before = x.clone()
    expected = torch.stack([reference(module, image, kernel) for image in x])
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    with torch.enable_grad():
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("width", "kernel"), [(384, 3), (768, 3), (384, 5)])
def test_cost_equals_the_closed_formula(width: int, kernel: int) -> None:
    with torch.device("meta"):
        module, x = InvertedMlp(Grid(14, 14), width, kernel=kernel), torch.empty(1, 196, width)
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert sum(one.numel() for one in module.parameters()) == 8 * width**2 + 5 * width + 4 * width * (kernel**2 + 1)
    assert counter.get_total_flops() == 2 * 196 * (8 * width**2 + 4 * width * kernel**2)


def test_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match="kernel must be an odd number of at least 3, got 4; try"):
        InvertedMlp(Grid(3, 5), 4, kernel=4)
