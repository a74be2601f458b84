"""Patches become tokens by the same maps as the convolutions of the literature, in the stem and between stages."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.embedding import downsample, stem
from explore.architecture.norms import NORMS
from explore.architecture.spec import Embedding


def layer_norm(width: int) -> nn.Module:
    return NORMS["layer"](width, 1e-6)


def test_stem_equals_a_strided_convolution() -> None:
    module, image = stem(Embedding(), 3, 4, 8, layer_norm), torch.randn(2, 3, 8, 12)
    weight = module.projection.weight.reshape(8, 3, 4, 4)
    expected = F.conv2d(image, weight, module.projection.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(module(image), expected)


def test_downsample_equals_a_strided_convolution() -> None:
    grid = Grid(4, 6)
    module, x = downsample(Embedding(), grid, 5, 8, layer_norm), torch.randn(2, grid.tokens, 5)
    image = x.transpose(1, 2).reshape(2, 5, *grid)
    weight = module.projection.weight.reshape(8, 2, 2, 5).permute(0, 3, 1, 2)
    expected = F.conv2d(image, weight, module.projection.bias, stride=2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("stride", "kernel", "padding"), [(4, 7, 2), (2, 3, 1)])
def test_overlapping_stem_is_the_convolution_of_poolformer(stride: int, kernel: int, padding: int) -> None:
    module, image = stem(Embedding(overlap=True), 3, stride, 8, layer_norm), torch.randn(2, 3, 16, 24)
    weight, bias = module.projection.weight, module.projection.bias
    assert weight.shape == (8, 3, kernel, kernel)
    expected = F.conv2d(image, weight, bias, stride=stride, padding=padding)
    torch.testing.assert_close(module(image), expected.flatten(2).transpose(1, 2))
    assert expected.shape[2:] == (16 // stride, 24 // stride)


def test_overlapping_downsample_is_a_convolution_on_the_grid() -> None:
    grid = Grid(4, 6)
    module, x = downsample(Embedding(overlap=True), grid, 5, 8, layer_norm), torch.randn(2, grid.tokens, 5)
    image = x.transpose(1, 2).reshape(2, 5, *grid)
    expected = F.conv2d(image, module.projection.weight, module.projection.bias, stride=2, padding=1)
    torch.testing.assert_close(module(x), expected.flatten(2).transpose(1, 2))


def test_layers_come_in_the_order_given() -> None:
    options = Embedding(layers=["norm", "projection", "relu"], bias=False)
    module, x = downsample(options, Grid(2, 2), 3, 8, layer_norm), torch.randn(1, 4, 3)
    assert [name for name, _ in module.named_children()] == ["squares", "norm", "projection", "relu"]
    expected = F.relu(F.linear(F.layer_norm(x.flatten(1), (12,), eps=1e-6), module.projection.weight))
    torch.testing.assert_close(module(x), expected.unsqueeze(1))
    behind = stem(Embedding(layers=["projection", "norm"]), 3, 4, 8, layer_norm)
    assert behind.norm.normalized_shape == (8,)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["norm"], r"model.stem.layers must name projection once and no other twice, got \['norm'\]; try"),
        (["projection", "norm", "norm"], r"model.stem.layers must name projection once and no other twice"),
        (["projection", "rleu"], r"a layer of model.stem must be one of .*, got 'rleu'; did you mean relu\?"),
    ],
)
def test_layers_that_cannot_be(layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stem(Embedding(layers=layers), 3, 4, 8, layer_norm)


def test_nothing_comes_before_an_overlapping_projection_of_images() -> None:
    with pytest.raises(ValueError, match=r"model.stem.layers must begin with projection where patches overlap"):
        stem(Embedding(overlap=True, layers=["norm", "projection"]), 3, 4, 8, layer_norm)
