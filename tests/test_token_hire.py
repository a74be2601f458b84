"""Hire-MLP joins the patches of a region, shifted and wrapped around the grid, as its paper says; odd sizes too.

Against arrays written by hand, a plain loop over regions in evaluation and in training, and the closed formulas of its
cost.
"""

from functools import partial

import pytest
import torch
from mixing_references import batch_norm, cost, product, reweighted, rows_and_columns, scattered
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.hire import Hire, RegionMlp

GRIDS = [Grid(1, 1), Grid(1, 2), Grid(2, 2), Grid(3, 5), Grid(5, 3), Grid(4, 6), Grid(1, 9), Grid(7, 1)]


def along(module: RegionMlp, x: Tensor, lines: list[list[int]], region: int, shift: int) -> Tensor:
    """One region at a time; x is batch × tokens × channels, a line the patches along the axis."""
    vectors, members = [], []
    for line in lines:
        rolled = [line[(place - shift) % len(line)] for place in range(len(line))]
        for start in range(0, len(line), region):
            places = range(start, start + region)
            vectors.append(torch.cat([x[:, rolled[place % len(line)]] for place in places], 1))
            members.append([rolled[place] if place < len(line) else None for place in places])
    hidden = batch_norm(product(torch.stack(vectors, 1), module.expand), module.norm).relu()
    mixed = product(hidden, module.contract).reshape(len(x), len(vectors), region, -1)
    result = torch.zeros_like(x)
    for number, patches in enumerate(members):
        for place, patch in enumerate(patches):
            if patch is not None:
                result[:, patch] = mixed[:, number, place]
    return result


def reference(module: Hire, x: Tensor, grid: Grid, region: int, shift: int) -> Tensor:
    rows, columns = rows_and_columns(grid)
    branches = [
        along(module.along_height, x, columns, region, shift),
        along(module.along_width, x, rows, region, shift),
        product(x, module.channels),
    ]
    return product(reweighted(module.reweighting, branches), module.projection)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize(("region", "shift"), [(2, 0), (2, 1), (3, 0), (3, 2), (4, 5), (8, 1)])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_mixing_equals_a_loop_over_regions(grid: Grid, region: int, shift: int, training: bool) -> None:
    torch.manual_seed(0)
    module = scattered(Hire(grid, 12, region=region, shift=shift)).train(training)
    x = torch.randn(3, grid.tokens, 12)
    expected = reference(module, x, grid, region, shift)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("branch", "region", "shift", "expected"),
    [
        # Rows 1 2 3, 4 5 6 and 7 8 9; the regions' vectors, and behind the end the start of the side again.
        ("along_width", 2, 0, [[1, 2], [3, 1], [4, 5], [6, 4], [7, 8], [9, 7]]),
        ("along_width", 2, 1, [[3, 1], [2, 3], [6, 4], [5, 6], [9, 7], [8, 9]]),
        ("along_height", 2, 0, [[1, 4], [2, 5], [3, 6], [7, 1], [8, 2], [9, 3]]),
        ("along_height", 2, 1, [[7, 1], [8, 2], [9, 3], [4, 7], [5, 8], [6, 9]]),
        ("along_height", 3, 2, [[4, 7, 1], [5, 8, 2], [6, 9, 3]]),
    ],
)
def test_regions_hold_the_patches_of_a_shifted_circular_grid(
    branch: str, region: int, shift: int, expected: list[list[int]]
) -> None:
    module = getattr(Hire(Grid(3, 3), 1, region=region, shift=shift), branch)
    vectors = []
    module.expand.register_forward_pre_hook(lambda _, inputs: vectors.append(inputs[0]))
    module(torch.arange(1.0, 10.0).reshape(1, 9, 1))
    assert vectors[0][0].tolist() == expected


@pytest.mark.parametrize(
    ("region", "shift", "message"),
    [
        (1, 0, r"region must be at least 2 patches, got 1; try 2, 3, 4$"),
        (2, -1, r"shift must be at least 0 patches, got -1; try 0, 1, 2$"),
    ],
)
def test_senseless_regions_are_refused(region: int, shift: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hire(Grid(3, 5), 60, region=region, shift=shift)


@pytest.mark.parametrize(("width", "params", "macs"), [(384, 1_036_512, 115_752_960), (768, 4_137_408, 463_011_840)])
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    assert cost(partial(Hire, shift=1), width) == (params, macs)
