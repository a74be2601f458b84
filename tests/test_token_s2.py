"""The spatial shift of S2-MLP moves each quarter of the channels as the paper's algorithm does, borders included.

Against arrays written by hand, a plain loop over patches and channels, and the closed formulas of its cost.
"""

import pytest
import torch
from mixing_references import cost, gathered, product
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.s2 import SpatialShift

GRIDS = [Grid(1, 1), Grid(1, 2), Grid(2, 2), Grid(3, 5), Grid(5, 3), Grid(1, 9), Grid(7, 1)]


def shift(grid: Grid, width: int) -> nn.Module:
    return SpatialShift(grid, width).shift


def shifted(x: Tensor, grid: Grid) -> Tensor:
    """The quarters move right, left, down and up."""

    def offset(channel: int) -> tuple[int, int]:
        quarter = sum(channel >= part * x.shape[2] // 4 for part in (1, 2, 3))
        return [(0, -1), (0, 1), (-1, 0), (1, 0)][quarter]

    return gathered(x, grid, offset, outside=x)


@pytest.mark.parametrize(
    ("quarter", "expected"),
    [
        (0, [1, 1, 2, 4, 4, 5]),  # right
        (1, [2, 3, 3, 5, 6, 6]),  # left
        (2, [1, 2, 3, 1, 2, 3]),  # down
        (3, [4, 5, 6, 4, 5, 6]),  # up
    ],
)
def test_each_quarter_moves_its_own_way(quarter: int, expected: list[int]) -> None:
    x = torch.arange(1.0, 7.0).reshape(1, 6, 1).expand(-1, -1, 4)  # rows 1 2 3 and 4 5 6
    assert shift(Grid(2, 3), 4)(x)[0, :, quarter].tolist() == expected


def test_a_shift_does_not_smear_one_value_over_the_row() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1).expand(-1, -1, 4)
    assert shift(Grid(1, 6), 4)(x)[0, :, 0].tolist() == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("width", [1, 2, 3, 8, 10, 13])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_shift_equals_a_loop_over_patches_and_channels(grid: Grid, width: int) -> None:
    x = torch.randn(2, grid.tokens, width)
    assert torch.equal(shift(grid, width)(x), shifted(x, grid))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_mixing_equals_the_plain_form(grid: Grid) -> None:
    module, x = SpatialShift(grid, 60), torch.randn(2, grid.tokens, 60)
    expected = product(shifted(F.gelu(product(x, module.input)), grid), module.output)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [32, 10])
def test_shift_is_the_same_when_compiled(width: int) -> None:
    torch._dynamo.reset()
    module, x = shift(Grid(3, 5), width), torch.randn(2, 15, width)
    assert torch.equal(torch.compile(module, fullgraph=True, backend="eager")(x), module(x))


def test_gradient_of_the_shift_is_that_of_the_loop() -> None:
    grid = Grid(3, 4)
    x = torch.randn(2, grid.tokens, 8, requires_grad=True)
    weight = torch.randn(2, grid.tokens, 8)
    (gradient,) = torch.autograd.grad((shift(grid, 8)(x) * weight).sum(), x)
    (expected,) = torch.autograd.grad((shifted(x, grid) * weight).sum(), x)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("width", "params", "macs"), [(384, 295_680, 57_802_752), (768, 1_181_184, 231_211_008)])
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    assert cost(SpatialShift, width) == (params, macs)


def test_nothing_depends_on_the_grid_but_the_order_of_the_patches() -> None:
    assert SpatialShift(Grid(3, 5), 8).state_dict().keys() == {
        "input.weight",
        "input.bias",
        "output.weight",
        "output.bias",
    }
