"""The Fourier mixing equals the double sum of the paper, for any number of patches, and has no parameters.

Besides the sum itself, two closed cases: a constant image keeps its first coefficient only, a single cosine two.
"""

import cmath
import itertools
import math

import pytest
import torch
from mixing_references import OnImage
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.fourier import FourierMixing
from explore.cost.flops import count_macs


def reference(x: Tensor) -> Tensor:
    batch, tokens, channels = x.shape
    places = list(itertools.product(range(tokens), range(channels)))
    result = torch.zeros(x.shape)
    for image, (j, k) in itertools.product(range(batch), places):
        waves = [cmath.exp(-2j * math.pi * (j * s / tokens + k * c / channels)) for s, c in places]
        total = sum(wave * float(x[image, s, c]) for wave, (s, c) in zip(waves, places, strict=True))
        result[image, j, k] = total.real
    return result


@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(1, 5), Grid(2, 2), Grid(3, 5)], ids=str)
@pytest.mark.parametrize("width", [3, 4])
def test_equals_the_double_sum(grid: Grid, width: int) -> None:
    x = torch.randn(2, grid.tokens, width, generator=torch.Generator().manual_seed(0))
    expected = reference(x)
    torch.testing.assert_close(FourierMixing(grid, width)(x), expected, atol=1e-5, rtol=1e-6)
    scaled = FourierMixing(grid, width, orthonormal=True)
    torch.testing.assert_close(scaled(x), expected / math.sqrt(grid.tokens * width), atol=1e-5, rtol=1e-6)


def test_constant_image_keeps_only_its_first_coefficient() -> None:
    expected = torch.zeros(1, 15, 4)
    expected[0, 0, 0] = 60.0
    torch.testing.assert_close(FourierMixing(Grid(3, 5), 4)(torch.ones(1, 15, 4)), expected, atol=1e-5, rtol=0)


def test_cosine_along_the_patches_keeps_two_coefficients() -> None:
    wave = torch.cos(2 * math.pi * 3 * torch.arange(15) / 15)
    expected = torch.zeros(1, 15, 4)
    expected[0, 3, 0] = expected[0, 12, 0] = 30.0
    x = wave.reshape(1, 15, 1).expand(1, 15, 4)
    torch.testing.assert_close(FourierMixing(Grid(3, 5), 4)(x), expected, atol=1e-5, rtol=0)


def test_any_number_of_patches_will_do() -> None:
    module = FourierMixing(Grid(3, 5), 4)
    for tokens in (1, 7, 16):
        x = torch.randn(2, tokens, 4, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(module(x), reference(x), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_single_precision(dtype: torch.dtype) -> None:
    module, x = FourierMixing(Grid(3, 5), 4), torch.randn(2, 15, 4).to(dtype)
    assert torch.equal(module(x), module(x.float()).to(dtype))


@pytest.mark.parametrize("width", [384, 768])
def test_cost_equals_the_closed_formula(width: int) -> None:
    module = FourierMixing(Grid(14, 14), width)
    assert list(module.parameters()) == []
    expected = 2.5 * 196 * width * math.log2(196 * width)
    assert count_macs(OnImage(module), (width, 14, 14)).total == round(expected)
