"""The gated token MLP of gMixer equals sums written out patch by patch, and gives gMixer its published size."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.swiglu import SwiGlu
from explore.architecture.token_mixing.swiglu import TokenSwiGlu

GRIDS = [Grid(1, 2), Grid(3, 5), Grid(4, 4)]


def example(grid: Grid, width: int) -> tuple[TokenSwiGlu, Tensor]:
    torch.manual_seed(0)
    module = TokenSwiGlu(grid, width)
    for linear in (module.gate, module.value, module.contract):
        nn.init.normal_(linear.bias)
    return module, torch.randn(2, grid.tokens, width)


def product(linear: nn.Linear, values: list[float]) -> list[float]:
    rows = zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(row, values, strict=True)) + bias for row, bias in rows]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_the_sums_over_patches(grid: Grid) -> None:
    module, x = example(grid, 6)
    expected = torch.empty_like(x)
    for image in range(2):
        for channel in range(6):
            values = x[image, :, channel].tolist()
            pairs = zip(product(module.gate, values), product(module.value, values), strict=True)
            hidden = [gate / (1 + math.exp(-gate)) * value for gate, value in pairs]
            expected[image, :, channel] = torch.tensor(product(module.contract, hidden))
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)


def test_inference_overwrites_nothing_but_its_own() -> None:
    module, x = example(Grid(3, 5), 6)
    before, expected = x.clone(), module(x)
    with torch.inference_mode():
        result = module(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(result, expected)


def test_cost_equals_the_closed_formula() -> None:
    with torch.device("meta"):
        module, x = TokenSwiGlu(Grid(14, 14), 384), torch.empty(1, 196, 384)
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert sum(one.numel() for one in module.parameters()) == 3 * 196 * 192 + 2 * 192 + 196
    assert counter.get_total_flops() == 2 * 3 * 196 * 192 * 384


@pytest.mark.parametrize(("depth", "params", "gigamacs"), [(12, 12_701_080, 2.66), (24, 24_721_096, 5.26)])
def test_gives_gmixer_its_published_size(depth: int, params: int, gigamacs: float) -> None:
    grid, width = Grid(14, 14), 384
    with torch.device("meta"):
        mixings = [TokenSwiGlu(grid, width), SwiGlu(grid, width, expansion=2.0)]
        stem, head, norm = nn.Linear(3 * 16 * 16, width), nn.Linear(width, 1000), nn.LayerNorm(width)
        x = torch.empty(1, grid.tokens, width)
    block, outside = (
        nn.ModuleList([*mixings, norm, nn.LayerNorm(width, device="meta")]),
        nn.ModuleList([stem, norm, head]),
    )
    assert depth * size(block) + size(outside) == params
    with FlopCounterMode(display=False) as counter:
        for mixing in mixings:
            mixing(x)
    macs = depth * counter.get_total_flops() / 2 + grid.tokens * stem.weight.numel() + head.weight.numel()
    assert macs / 1e9 == pytest.approx(gigamacs, rel=5e-3)


def size(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
