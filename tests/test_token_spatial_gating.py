"""Spatial gating equals the gMLP block body written out patch by patch, starts without mixing, and costs what it says.

The reference is made of sums over single weights, so that it would notice a swap of the halves, a norm over the wrong
channels, or a gate that runs along the wrong axis.
"""

import pytest
import torch
from mixing_references import cost, gelu
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.spatial_gating import SpatialGating


def reference(module: SpatialGating, x: Tensor) -> Tensor:
    """The first half of the hidden channels is gated, the second is the gate."""
    batch, tokens, channels = x.shape
    half = module.norm.weight.numel()
    result = torch.zeros(batch, tokens, channels)
    for image in range(batch):
        hidden = [
            [gelu(value) for value in (module.expand.weight @ x[image, token] + module.expand.bias).tolist()]
            for token in range(tokens)
        ]
        normed = torch.zeros(tokens, half)
        for token in range(tokens):
            second = torch.tensor(hidden[token][half:])
            centred = second - second.sum() / half
            normed[token] = centred / torch.sqrt((centred * centred).sum() / half + 1e-5)
            normed[token] = normed[token] * module.norm.weight + module.norm.bias
        for token in range(tokens):
            gate = module.gate.bias[token] + sum(module.gate.weight[token, of] * normed[of] for of in range(tokens))
            gated = torch.tensor(hidden[token][:half]) * gate
            result[image, token] = module.contract.weight @ gated + module.contract.bias
    return result


@torch.no_grad()
@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(3, 5), Grid(3, 3)], ids=str)
@pytest.mark.parametrize("expansion", [6.0, 1.0])
def test_equals_the_block_written_out_patch_by_patch(grid: Grid, expansion: float) -> None:
    torch.manual_seed(0)
    module, x = SpatialGating(grid, 4, expansion=expansion), torch.randn(2, grid.tokens, 4)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    torch.testing.assert_close(module(x), reference(module, x), atol=1e-5, rtol=0)


@torch.no_grad()
def test_starts_as_a_map_of_each_patch_alone() -> None:
    torch.manual_seed(0)
    module, x = SpatialGating(Grid(3, 5), 8), torch.randn(2, 15, 8)
    alone = module.contract(F.gelu(module.expand(x)[..., :24]))
    torch.testing.assert_close(module(x), alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("width", "params", "macs"),
    [(384, 1_370_708, 304_367_616), (768, 5_357_012, 1_128_960_000)],
)
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    assert cost(SpatialGating, width) == (params, macs)


def test_gate_alone_has_the_published_parameters() -> None:
    with torch.device("meta"):
        module = SpatialGating(Grid(14, 14), 384)
    assert sum(one.numel() for part in (module.norm, module.gate) for one in part.parameters()) == 40_916


def test_odd_number_of_hidden_channels_is_refused() -> None:
    message = r"expansion must give an even number of hidden channels, got 15 from 3.0 for width 5; try 3.2$"
    with pytest.raises(ValueError, match=message):
        SpatialGating(Grid(3, 5), 5, expansion=3.0)
    SpatialGating(Grid(3, 5), 5, expansion=3.2)
