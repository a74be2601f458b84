"""The global filter equals the two discrete Fourier transforms written out as sums, and is a circular convolution.

Both transforms are checked on grids with odd and even sides, where the half spectrum of a real image differs.
"""

import cmath
import itertools
import math

import pytest
import torch
from mixing_references import OnImage
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.global_filter import GlobalFilter
from explore.cost.flops import count_macs

GRIDS = [Grid(1, 2), Grid(1, 5), Grid(2, 2), Grid(3, 5), Grid(4, 3), Grid(4, 4)]


def example(grid: Grid, width: int) -> tuple[GlobalFilter, Tensor]:
    torch.manual_seed(0)
    module = GlobalFilter(grid, width)
    torch.nn.init.normal_(module.weight)
    return module, torch.randn(2, grid.tokens, width)


def full_filter(module: GlobalFilter, channel: int, row: int, column: int) -> complex:
    """The filter at any frequency: what is not kept mirrors what is, so that a real image stays real."""
    height, width = module.grid
    if column > width // 2:
        return full_filter(module, channel, -row % height, -column % width).conjugate()
    value = complex(*module.weight[row, column, channel].tolist())
    if column not in (0, width / 2):
        return value
    # The frequencies that are their own mirror along the row: of both halves of the column only the mean counts.
    mirrored = complex(*module.weight[-row % height, column, channel].tolist()).conjugate()
    return (value + mirrored) / 2


def reference(module: GlobalFilter, x: Tensor) -> Tensor:
    height, width = module.grid
    places = list(itertools.product(range(height), range(width)))
    result = torch.zeros(x.shape)
    for image, channel in itertools.product(range(x.shape[0]), range(x.shape[2])):
        values = x[image, :, channel].tolist()
        spectrum = {}
        for u, v in places:
            wave = [cmath.exp(-2j * math.pi * (u * i / height + v * j / width)) for i, j in places]
            transformed = sum(value * factor for value, factor in zip(values, wave, strict=True))
            spectrum[u, v] = transformed / math.sqrt(height * width) * full_filter(module, channel, u, v)
        for token, (i, j) in enumerate(places):
            wave = [cmath.exp(2j * math.pi * (u * i / height + v * j / width)) for u, v in places]
            back = sum(value * factor for value, factor in zip(spectrum.values(), wave, strict=True))
            assert abs(back.imag) < 1e-9
            result[image, token, channel] = back.real / math.sqrt(height * width)
    return result


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_the_transforms_written_out(grid: Grid) -> None:
    module, x = example(grid, 3)
    torch.testing.assert_close(module(x), reference(module, x), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_moving_the_image_around_moves_the_result_along(grid: Grid) -> None:
    module, x = example(grid, 3)

    def moved(tokens: Tensor) -> Tensor:
        return tokens.reshape(2, *grid, 3).roll((1, 2), (1, 2)).flatten(1, 2)

    torch.testing.assert_close(module(moved(x)), moved(module(x)), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_filter_of_ones_changes_nothing(grid: Grid) -> None:
    module, x = example(grid, 3)
    module.weight.copy_(torch.tensor([1.0, 0.0]).expand_as(module.weight))
    torch.testing.assert_close(module(x), x, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_single_precision(dtype: torch.dtype) -> None:
    module, x = example(Grid(3, 5), 4)
    reduced, x = module.to(dtype)(x.to(dtype)), x.to(dtype)
    assert torch.equal(reduced, module.float()(x.float()).to(dtype))


@torch.no_grad()
def test_autocast_changes_nothing() -> None:
    module, x = example(Grid(3, 5), 4)
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x), expected)


@pytest.mark.parametrize(("width", "params"), [(384, 86_016), (768, 172_032)])
def test_cost_equals_the_closed_formula(width: int, params: int) -> None:
    module = GlobalFilter(Grid(14, 14), width)
    assert sum(one.numel() for one in module.parameters()) == params
    assert count_macs(OnImage(module), (width, 14, 14)).total == round(2.5 * 196 * width * math.log2(196))
