"""The gated token MLP of gMixer equals sums written out patch by patch, and gives gMixer its published size."""

import math
from functools import partial

import pytest
import torch
from mixing_references import cost, scattered, sums
from small_networks import overwriting
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.swiglu import SwiGlu
from explore.architecture.token_mixing.swiglu import TokenSwiGlu

GRIDS = [Grid(1, 2), Grid(3, 5), Grid(4, 4)]


def example(grid: Grid, width: int) -> tuple[TokenSwiGlu, Tensor]:
    torch.manual_seed(0)
    return scattered(TokenSwiGlu(grid, width)), torch.randn(2, grid.tokens, width)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_the_sums_over_patches(grid: Grid) -> None:
    module, x = example(grid, 6)
    expected = torch.empty_like(x)
    for image in range(2):
        for channel in range(6):
            values = x[image, :, channel].tolist()
            pairs = zip(sums(module.gate, values), sums(module.value, values), strict=True)
            hidden = [gate / (1 + math.exp(-gate)) * value for gate, value in pairs]
            expected[image, :, channel] = torch.tensor(sums(module.contract, hidden))
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)


def test_inference_overwrites_nothing_but_its_own() -> None:
    module, x = example(Grid(3, 5), 6)
    before, expected = x.clone(), module(x)
    with torch.inference_mode(), overwriting():
        result = module(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(result, expected)


def test_cost_equals_the_closed_formula() -> None:
    assert cost(TokenSwiGlu, 384) == (3 * 196 * 192 + 2 * 192 + 196, 3 * 196 * 192 * 384)


@pytest.mark.parametrize(("depth", "params", "gigamacs"), [(12, 12_701_080, 2.66), (24, 24_721_096, 5.26)])
def test_gives_gmixer_its_published_size(depth: int, params: int, gigamacs: float) -> None:
    grid, width = Grid(14, 14), 384
    token_params, token_macs = cost(TokenSwiGlu, width, grid)
    channel_params, channel_macs = cost(partial(SwiGlu, expansion=2.0), width, grid)
    stem, head, norm = 3 * 16 * 16 * width, width * 1000, 2 * width
    block, outside = token_params + channel_params + 2 * norm, stem + width + norm + head + 1000
    assert depth * block + outside == params
    macs = depth * (token_macs + channel_macs) + grid.tokens * stem + head
    assert macs / 1e9 == pytest.approx(gigamacs, rel=5e-3)
