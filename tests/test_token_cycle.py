"""CycleMLP reads each channel from the patch that its turn says, along the width and along the height.

Against arrays written by hand, a plain loop over patches and channels, and the closed formulas of its cost.
"""

import pytest
import torch
from mixing_references import cost, gathered, product, reweighted
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.cycle import CycleFc


def read(x: Tensor, grid: Grid, kernel: int, down: bool) -> Tensor:
    def offset(channel: int) -> tuple[int, int]:
        distance = (channel + kernel // 2) % kernel - kernel // 2
        return (distance, 0) if down else (0, distance)

    return gathered(x, grid, offset, outside=torch.zeros_like(x))


def reference(module: CycleFc, x: Tensor, grid: Grid, kernel: int) -> Tensor:
    branches = [
        product(read(x, grid, kernel, down=False), module.along_width),
        product(read(x, grid, kernel, down=True), module.along_height),
        product(x, module.channels),
    ]
    return product(reweighted(module.reweighting, branches), module.projection)


@pytest.mark.parametrize(("width", "kernel"), [(60, 3), (60, 5), (13, 3), (2, 3), (8, 7)])
@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(2, 2), Grid(3, 5), Grid(5, 3), Grid(1, 9), Grid(7, 1)], ids=str)
def test_mixing_equals_a_loop_over_patches_and_channels(grid: Grid, width: int, kernel: int) -> None:
    torch.manual_seed(0)
    module, x = CycleFc(grid, width, kernel=kernel), torch.randn(2, grid.tokens, width)
    torch.testing.assert_close(module(x), reference(module, x, grid, kernel), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        # rows 1 2 3 and 4 5 6; behind them the zeros from outside
        ("row", [[1, 2, 3, 4, 5, 6], [2, 3, 0, 5, 6, 0], [0, 1, 2, 0, 4, 5], [1, 2, 3, 4, 5, 6]]),
        ("column", [[1, 2, 3, 4, 5, 6], [4, 5, 6, 0, 0, 0], [0, 0, 0, 1, 2, 3], [1, 2, 3, 4, 5, 6]]),
    ],
)
def test_channels_are_read_from_the_patch_itself_the_next_and_the_one_before(
    direction: str, expected: list[list[int]]
) -> None:
    x = torch.tensor([1.0, 2, 3, 4, 5, 6, 0]).reshape(1, 7, 1).expand(-1, -1, 4)
    moved = getattr(CycleFc(Grid(2, 3), 4), direction)(x)
    assert moved[0].T.tolist() == expected


def test_gradient_equals_that_of_the_loop() -> None:
    torch.manual_seed(0)
    grid = Grid(3, 4)
    module, x = CycleFc(grid, 8), torch.randn(2, grid.tokens, 8, requires_grad=True)
    weight = torch.randn(2, grid.tokens, 8)
    (gradient,) = torch.autograd.grad((module(x) * weight).sum(), x)
    (expected,) = torch.autograd.grad((reference(module, x, grid, 3) * weight).sum(), x)
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", [1, 4])
def test_an_even_or_trivial_kernel_is_refused(kernel: int) -> None:
    with pytest.raises(ValueError, match=rf"kernel must be an odd number of at least 3, got {kernel}; try 3, 5, 7, 9$"):
        CycleFc(Grid(3, 5), 60, kernel=kernel)


@pytest.mark.parametrize(("width", "params", "macs"), [(384, 739_680, 115_752_960), (768, 2_953_920, 463_011_840)])
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    assert cost(CycleFc, width) == (params, macs)
