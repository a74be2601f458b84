"""The permute-MLP of ViP regroups channels and patches as its paper says, on square and on other grids.

Against a plain loop over patches, against permutations written by hand, and the closed formulas of its cost.
"""

import pytest
import torch
from mixing_references import cost, product, reweighted, rows_and_columns
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.permutator import Permutator


def along(weight: Tensor, x: Tensor, grid: Grid, height: bool) -> Tensor:
    """One line of patches and one segment at a time; x is batch × tokens × channels."""
    count = grid.height if height else grid.width
    size = x.shape[2] // count
    rows, columns = rows_and_columns(grid)
    result = torch.empty_like(x)
    for line in columns if height else rows:
        for segment in range(count):
            channels = slice(segment * size, (segment + 1) * size)
            vector = torch.cat([x[:, patch, channels] for patch in line], 1) @ weight.T
            for position, patch in enumerate(line):
                result[:, patch, channels] = vector[:, position * size : (position + 1) * size]
    return result


def reference(module: Permutator, x: Tensor, grid: Grid) -> Tensor:
    branches = [
        along(module.along_height.weight, x, grid, height=True),
        along(module.along_width.weight, x, grid, height=False),
        product(x, module.channels),
    ]
    return product(reweighted(module.reweighting, branches), module.projection)


@pytest.mark.parametrize(
    "grid", [Grid(1, 1), Grid(1, 2), Grid(2, 2), Grid(3, 5), Grid(5, 3), Grid(4, 3), Grid(1, 6)], ids=str
)
def test_mixing_equals_a_loop_over_lines_and_segments(grid: Grid) -> None:
    torch.manual_seed(0)
    module, x = Permutator(grid, 60).eval(), torch.randn(2, grid.tokens, 60)
    torch.testing.assert_close(module(x), reference(module, x, grid), atol=1e-5, rtol=0)


def only(module: Permutator, branch: str) -> None:
    """Leaves the sum of the three branches with one, unweighted and not projected."""
    number = ["along_height", "along_width", "channels"].index(branch)
    width = module.projection.in_features
    nn.init.zeros_(module.reweighting.contract.weight)
    nn.init.eye_(module.projection.weight)
    with torch.no_grad():
        module.reweighting.contract.bias.view(width, 3)[:, number] = 1000.0


@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        # 2 × 2 patches of 2 channels: exchanged with the patch below or above, with the patch beside, not at all.
        ("along_height", [[50, 60], [70, 80], [10, 20], [30, 40]]),
        ("along_width", [[30, 40], [10, 20], [70, 80], [50, 60]]),
        ("channels", [[20, 10], [40, 30], [60, 50], [80, 70]]),
    ],
)
def test_a_branch_exchanges_what_its_vectors_hold(branch: str, expected: list[list[int]]) -> None:
    module = Permutator(Grid(2, 2), 2)
    only(module, branch)
    with torch.no_grad():
        getattr(module, branch).weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    x = torch.tensor([[[10.0, 20.0], [30.0, 40.0], [50.0, 60.0], [70.0, 80.0]]])
    torch.testing.assert_close(module(x), torch.tensor([expected], dtype=torch.float32))


@pytest.mark.parametrize(
    ("grid", "width", "message"),
    [
        (
            Grid(14, 14),
            384,
            r"width must be divisible by the height and the width of the grid, got 384 for 14 × 14 patches; "
            r"try width 378 or 392, or another patch size$",
        ),
        (Grid(7, 9), 60, r"got 60 for 7 × 9 patches; try width 63, or another patch size$"),
        (Grid(1, 9), 60, r"got 60 for 1 × 9 patches; try width 54 or 63, or another patch size$"),
    ],
)
def test_a_width_that_does_not_fit_the_grid_is_refused(grid: Grid, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Permutator(grid, width)


@pytest.mark.parametrize(("width", "params", "macs"), [(384, 738_912, 151_142_400), (768, 2_952_384, 604_569_600)])
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    assert cost(Permutator, width, Grid(16, 16)) == (params, macs)
