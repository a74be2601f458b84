"""The first mixings, and the closed formulas of their cost, against plain PyTorch references."""

from collections.abc import Callable

import pytest
import torch
from mixing_references import cost
from torch import nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.mlp import ChannelMlp
from explore.architecture.channel_mixing.swiglu import SwiGlu
from explore.architecture.token_mixing.attention import Attention
from explore.architecture.token_mixing.convolution import DepthwiseConvolution
from explore.architecture.token_mixing.mlp import TokenMlp
from explore.architecture.token_mixing.pooling import Pooling

GRID, WIDTH = Grid(3, 5), 8


FORMULAS = [
    # mixing, channels, parameters, multiply-adds of one image of 14 × 14 patches
    (lambda grid, width: TokenMlp(grid, width), 384, 75_652, 28_901_376),
    (lambda grid, width: TokenMlp(grid, width), 768, 151_108, 115_605_504),
    (lambda grid, width: Attention(grid, width), 384, 591_360, 145_108_992),
    (lambda grid, width: Attention(grid, width), 768, 2_362_368, 521_428_992),
    (lambda grid, width: DepthwiseConvolution(grid, width), 384, 19_200, 3_687_936),
    (lambda grid, width: DepthwiseConvolution(grid, width, kernel=9), 384, 31_488, 6_096_384),
    (lambda grid, width: DepthwiseConvolution(grid, width), 768, 38_400, 7_375_872),
    (lambda grid, width: DepthwiseConvolution(grid, width, kernel=9), 768, 62_976, 12_192_768),
    (lambda grid, width: Pooling(grid, width), 384, 0, 0),
    (lambda grid, width: ChannelMlp(grid, width), 384, 1_181_568, 231_211_008),
    (lambda grid, width: ChannelMlp(grid, width), 768, 4_722_432, 924_844_032),
    (lambda grid, width: ChannelMlp(grid, width, expansion=3), 384, 886_272, 173_408_256),
    (lambda grid, width: ChannelMlp(grid, width, expansion=3), 768, 3_542_016, 693_633_024),
    (lambda grid, width: SwiGlu(grid, width), 384, 1_182_080, 231_211_008),
]


@pytest.mark.parametrize(("make", "width", "params", "macs"), FORMULAS)
def test_cost_equals_the_closed_formula(
    make: Callable[[Grid, int], nn.Module], width: int, params: int, macs: int
) -> None:
    assert cost(make, width) == (params, macs)


def test_token_mlp_is_an_mlp_on_the_transposed_tokens() -> None:
    module, x = TokenMlp(GRID, WIDTH), torch.randn(2, GRID.tokens, WIDTH)
    expected = module.contract(F.gelu(module.expand(x.transpose(1, 2)))).transpose(1, 2)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_torch_multihead_attention(heads: int) -> None:
    module, x = Attention(GRID, WIDTH, heads=heads), torch.randn(2, GRID.tokens, WIDTH)
    reference = nn.MultiheadAttention(WIDTH, heads, batch_first=True)
    with torch.no_grad():
        module.query_key_value.bias.normal_()
        reference.in_proj_weight.copy_(module.query_key_value.weight)
        reference.in_proj_bias.copy_(module.query_key_value.bias)
    reference.out_proj.load_state_dict(module.projection.state_dict())
    torch.testing.assert_close(module(x), reference(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (64, 1), (100, 1), (192, 3), (200, 2), (384, 6), (1024, 16)])
def test_heads_have_at_least_64_channels_by_default(width: int, heads: int) -> None:
    assert Attention(GRID, width).heads == heads


def test_pooling_averages_the_patches_inside_the_image_and_subtracts_the_centre() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1)  # rows 0 1 2 and 3 4 5
    expected = torch.tensor([2.0, 2.5, 3.0, 2.0, 2.5, 3.0]).reshape(1, 6, 1) - x
    torch.testing.assert_close(Pooling(Grid(2, 3), 1)(x), expected)


def test_convolution_treats_tokens_as_rows_of_the_image() -> None:
    module = DepthwiseConvolution(Grid(2, 3), 1, kernel=3)
    nn.init.zeros_(module.filter.weight)
    with torch.no_grad():
        module.filter.weight[0, 0, 1, 2] = 1.0  # takes the patch to the right
    moved = module(torch.arange(1.0, 7.0).reshape(1, 6, 1))
    assert moved.flatten().tolist() == [2, 3, 0, 5, 6, 0]
