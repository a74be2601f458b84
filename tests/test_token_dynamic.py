"""DynaMixer's token mixing equals the paper's dynamic matrices, written out below line by line and head by head."""

from functools import partial

import pytest
import torch
from mixing_references import cost, product, reweighted, rows_and_columns, scattered
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.dynamic import DynamicLines, DynaMixer

WIDTH = 8


def example(grid: Grid) -> Tensor:
    return torch.randn(3, grid.tokens, WIDTH, generator=torch.Generator().manual_seed(1))


def make(grid: Grid, heads: int | None = 2, reduced: int = 2) -> DynaMixer:
    torch.manual_seed(0)
    return scattered(DynaMixer(grid, WIDTH, heads=heads, reduced=reduced))


def mixed_line(module: DynamicLines, line: Tensor) -> Tensor:
    """The patches of one row or column of one image."""
    length = line.shape[0]
    codes = product(line, module.compress).chunk(module.heads, 1)
    heads = []
    for code, values in zip(codes, line.chunk(module.heads, 1), strict=True):
        logits = product(torch.cat(list(code)), module.generate)
        result = torch.zeros_like(values)
        for target in range(length):
            weights = torch.stack([logits[source * length + target] for source in range(length)]).softmax(0)
            for source in range(length):
                result[target] += weights[source] * values[source]
        heads.append(result)
    return product(torch.cat(heads, 1), module.projection)


def mixed_lines(module: DynamicLines, x: Tensor, lines: list[list[int]]) -> Tensor:
    result = torch.empty_like(x)
    for index, image in enumerate(x):
        for line in lines:
            result[index, line] = mixed_line(module, image[line])
    return result


@pytest.mark.parametrize("grid", [Grid(3, 5), Grid(4, 2), Grid(1, 2), Grid(5, 1)], ids=str)
@pytest.mark.parametrize(("heads", "reduced"), [(1, 2), (2, 3), (8, 1), (None, 2)])
@torch.no_grad()
def test_equals_the_dynamic_matrices(grid: Grid, heads: int | None, reduced: int) -> None:
    module, x = make(grid, heads, reduced), example(grid)
    rows, columns = rows_and_columns(grid)
    branches = [
        mixed_lines(module.column, x, columns),
        mixed_lines(module.row, x, rows),
        product(x, module.channels),
    ]
    expected = product(reweighted(module.reweighting, branches), module.projection)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_logits_every_patch_becomes_the_mean_of_its_line() -> None:
    grid = Grid(2, 3)
    x = torch.arange(6.0).reshape(1, 6, 1)  # rows 0 1 2 and 3 4 5
    for rows, expected in ((True, [1, 1, 1, 4, 4, 4]), (False, [1.5, 2.5, 3.5, 1.5, 2.5, 3.5])):
        module = DynamicLines(grid, 1, 1, 2, rows=rows)
        for parameter in module.generate.parameters():
            nn.init.zeros_(parameter)
        nn.init.ones_(module.projection.weight)
        torch.testing.assert_close(module(x).flatten(), torch.tensor(expected, dtype=torch.float32))


FORMULAS = [
    # channels, parameters, multiply-adds of one image of 14 × 14 patches, with 16 heads of 2 reduced channels
    (384, 775_688, 125_135_872),
    (768, 3_014_504, 479_319_040),
]


@pytest.mark.parametrize(("width", "params", "macs"), FORMULAS)
def test_cost_equals_the_closed_formula(width: int, params: int, macs: int) -> None:
    assert cost(partial(DynaMixer, heads=16), width) == (params, macs)


@pytest.mark.parametrize(("width", "heads"), [(192, 8), (256, 8), (384, 16), (512, 16), (60, 2), (8, 1)])
def test_heads_are_those_of_the_published_networks_by_default(width: int, heads: int) -> None:
    assert DynaMixer(Grid(1, 2), width).row.heads == heads


@pytest.mark.parametrize("heads", [0, 3])
def test_refuses_heads_that_do_not_divide_the_width(heads: int) -> None:
    with pytest.raises(ValueError, match=rf"heads must divide width, got {heads} and 8; try 1, 2, 4, 8$"):
        DynaMixer(Grid(3, 5), WIDTH, heads=heads)


def test_refuses_nothing_to_make_the_matrices_from() -> None:
    with pytest.raises(ValueError, match=r"reduced must be at least 1, got 0; try 2 or 8"):
        DynaMixer(Grid(3, 5), WIDTH, reduced=0)
