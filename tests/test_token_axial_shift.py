"""The axial shift of AS-MLP moves each group of channels by its own distance, with zeros from outside the image.

Against arrays written by hand, a plain loop over patches and channels, and the closed formulas of its cost.
"""

import math

import pytest
import torch
from mixing_references import cost, gathered, product, scattered
from torch import Tensor
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.norms import GroupNorm
from explore.architecture.token_mixing.axial_shift import AxialShift


def shifted(x: Tensor, grid: Grid, shift_size: int, down: bool) -> Tensor:
    def offset(channel: int) -> tuple[int, int]:
        distance = channel // math.ceil(x.shape[2] / shift_size) - shift_size // 2
        return (-distance, 0) if down else (0, -distance)

    return gathered(x, grid, offset, outside=torch.zeros_like(x))


def reference(module: AxialShift, x: Tensor, grid: Grid, shift_size: int) -> Tensor:
    def norm(layer: GroupNorm, x: Tensor) -> Tensor:
        return F.group_norm(x.transpose(1, 2), 1, layer.weight, layer.bias, 1e-5).transpose(1, 2)

    hidden = F.gelu(norm(module.input_norm, product(x, module.input)))
    right = shifted(hidden, grid, shift_size, down=False)
    down = shifted(hidden, grid, shift_size, down=True)
    right = F.gelu(product(right, module.along_width))
    down = F.gelu(product(down, module.along_height))
    return product(norm(module.output_norm, right + down), module.output)


@pytest.mark.parametrize(
    ("width", "shift_size"), [(60, 5), (16, 5), (13, 5), (4, 5), (7, 3), (12, 7)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(2, 2), Grid(3, 5), Grid(5, 3), Grid(1, 9), Grid(7, 1)], ids=str)
def test_mixing_equals_a_loop_over_patches_and_channels(grid: Grid, width: int, shift_size: int) -> None:
    torch.manual_seed(0)
    module, x = scattered(AxialShift(grid, width, shift_size=shift_size)), torch.randn(2, grid.tokens, width)
    torch.testing.assert_close(module(x), reference(module, x, grid, shift_size), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        # rows 1 2 3 and 4 5 6; behind them the zeros from outside
        (
            "shift_right",
            [[3, 0, 0, 6, 0, 0], [2, 3, 0, 5, 6, 0], [1, 2, 3, 4, 5, 6], [0, 1, 2, 0, 4, 5], [0, 0, 1, 0, 0, 4]],
        ),
        (
            "shift_down",
            [[0, 0, 0, 0, 0, 0], [4, 5, 6, 0, 0, 0], [1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 0]],
        ),
    ],
)
def test_each_group_moves_by_its_own_distance(shift: str, expected: list[list[int]]) -> None:
    x = torch.tensor([1.0, 2, 3, 4, 5, 6, 0]).reshape(1, 7, 1).expand(-1, -1, 5)
    module = AxialShift(Grid(2, 3), 5)
    assert getattr(module, shift)(x)[0].T.tolist() == expected


def test_a_width_that_does_not_fill_the_groups_leaves_the_last_ones_out() -> None:
    # Groups of ⌈16/5⌉ = 4 channels: four groups, so nothing moves by two to the right.
    x = torch.tensor([1.0, 2, 3, 4, 5, 0]).reshape(1, 6, 1).expand(-1, -1, 16)
    moved = AxialShift(Grid(1, 5), 16).shift_right(x)[0].T.tolist()
    assert moved[::4] == [[3, 4, 5, 0, 0], [2, 3, 4, 5, 0], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]
    assert moved[15] == moved[12]


@pytest.mark.parametrize("shift_size", [0, 1, 4])
def test_an_even_or_trivial_shift_size_is_refused(shift_size: int) -> None:
    message = rf"shift_size must be an odd number of at least 3, got {shift_size}; try 3, 5, 7, 9$"
    with pytest.raises(ValueError, match=message):
        AxialShift(Grid(3, 5), 60, shift_size=shift_size)


@pytest.mark.parametrize(("width", "params", "macs"), [(384, 592_896, 115_605_504), (768, 2_365_440, 462_422_016)])
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    assert cost(AxialShift, width) == (params, macs)
