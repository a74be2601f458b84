"""S2-MLPv2 shifts its first part as S2-MLP does and its second with the axes exchanged, and weights the three parts.

Against arrays written by hand, a plain loop over patches and channels, and the closed formulas of its cost.
"""

import pytest
import torch
from mixing_references import cost, gathered, product
from torch import Tensor
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.s2v2 import SpatialShiftV2

GRIDS = [Grid(1, 1), Grid(1, 2), Grid(2, 2), Grid(3, 5), Grid(5, 3), Grid(1, 9)]
RIGHT, LEFT, DOWN, UP = (0, 1), (0, -1), (1, 0), (-1, 0)


def shifted(x: Tensor, grid: Grid, order: list[tuple[int, int]]) -> Tensor:
    """Each quarter of the channels moves by its entry of `order`."""

    def offset(channel: int) -> tuple[int, int]:
        down, right = order[sum(channel >= part * x.shape[2] // 4 for part in (1, 2, 3))]
        return -down, -right

    return gathered(x, grid, offset, outside=x)


def reference(module: SpatialShiftV2, x: Tensor, grid: Grid) -> Tensor:
    batch, tokens, channels = x.shape
    first = shifted(product(x, module.first), grid, [RIGHT, LEFT, DOWN, UP])
    second = shifted(product(x, module.second), grid, [DOWN, UP, RIGHT, LEFT])
    parts = [first, second, product(x, module.third)]
    total = torch.zeros(batch, channels)
    for part in parts:
        for token in range(tokens):
            total += part[:, token]
    logits = product(F.gelu(product(total, module.expand)), module.contract).reshape(batch, 3, channels)
    scale = logits.exp().sum(1)
    joined = sum(part * (logits[:, number].exp() / scale).unsqueeze(1) for number, part in enumerate(parts))
    return product(torch.as_tensor(joined), module.output)


@pytest.mark.parametrize("width", [60, 6])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_mixing_equals_the_plain_form(grid: Grid, width: int) -> None:
    torch.manual_seed(0)
    module, x = SpatialShiftV2(grid, width), torch.randn(2, grid.tokens, width)
    torch.testing.assert_close(module(x), reference(module, x, grid), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        # rows 1 2 3 and 4 5 6
        ("first_shift", [[1, 1, 2, 4, 4, 5], [2, 3, 3, 5, 6, 6], [1, 2, 3, 1, 2, 3], [4, 5, 6, 4, 5, 6]]),
        ("second_shift", [[1, 2, 3, 1, 2, 3], [4, 5, 6, 4, 5, 6], [1, 1, 2, 4, 4, 5], [2, 3, 3, 5, 6, 6]]),
    ],
)
def test_each_quarter_moves_its_own_way(shift: str, expected: list[list[int]]) -> None:
    x = torch.arange(1.0, 7.0).reshape(1, 6, 1).expand(-1, -1, 4)
    moved = getattr(SpatialShiftV2(Grid(2, 3), 4), shift)(x)
    assert moved[0].T.tolist() == expected


@pytest.mark.parametrize(("width", "params", "macs"), [(384, 738_816, 115_752_960), (768, 2_952_192, 463_011_840)])
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    assert cost(SpatialShiftV2, width) == (params, macs)
