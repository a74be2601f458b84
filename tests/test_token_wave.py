"""Wave-MLP's token mixing equals the paper's sums of waves, written out below patch by patch.

What the official code does beyond the paper's text is held as well: which channels the convolution pairs, which branch
comes first in the reweighting, and that the batch norms take their statistics over all patches.
"""

import pytest
import torch
from mixing_references import batch_norm, convolved, cost, product, reweighted, scattered
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.wave import Phase, Wave, WaveBranch

GRIDS = [Grid(3, 5), Grid(4, 2), Grid(1, 2), Grid(9, 1)]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def example(grid: Grid, width: int) -> Tensor:
    return torch.randn(4, grid.tokens, width, generator=torch.Generator().manual_seed(1))


def angle(module: Phase, x: Tensor) -> Tensor:
    if isinstance(module.estimate, nn.Linear):
        estimate = product(x, module.estimate)
    else:
        estimate = convolved(x, module.grid, module.estimate.weight[:, 0])
    return batch_norm(estimate, module.norm).clamp(min=0)


def branch(module: WaveBranch, x: Tensor) -> Tensor:
    theta, z = angle(module.phase, x), product(x, module.amplitude)
    waves = [*(z * theta.cos()).unbind(2), *(z * theta.sin()).unbind(2)]
    sums = []
    for channel, pair in enumerate(module.filter.weight):
        pair_of_waves = torch.stack([waves[2 * channel], waves[2 * channel + 1]], 2)
        sums.append(convolved(pair_of_waves, module.grid, pair).sum(2))
    return torch.stack(sums, 2)


@every_grid
@pytest.mark.parametrize(("kernel", "phase", "width"), [(7, "fc", 8), (3, "depthwise", 6), (3, "fc", 5)])
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_equals_the_sums_of_waves(grid: Grid, kernel: int, phase: str, width: int, training: bool) -> None:
    torch.manual_seed(0)
    module = scattered(Wave(grid, width, kernel=kernel, phase=phase)).train(training)
    x = example(grid, width)
    branches = [branch(module.row, x), branch(module.column, x), product(x, module.channels)]
    expected = product(reweighted(module.reweighting, branches), module.projection)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [(1, 3), (3, 1)])
def test_a_branch_runs_along_the_row_or_the_column(kernel: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = WaveBranch(Grid(3, 4), 2, "fc", kernel).eval()
    x = torch.zeros(1, 12, 2).index_fill_(1, torch.tensor([5]), 1.0)  # row 1, column 1
    reached = module(x)[0].abs().amax(1).nonzero().flatten().tolist()
    assert reached == ([4, 5, 6] if kernel == (1, 3) else [1, 5, 9])


FORMULAS = [
    # phase, channels, parameters, multiply-adds of one image of 14 × 14 patches
    ("fc", 384, 1_046_880, 175_663_104),
    ("fc", 768, 4_158_144, 698_437_632),
    ("depthwise", 384, 758_112, 119_215_104),
]


@pytest.mark.parametrize(("phase", "width", "params", "macs"), FORMULAS)
def test_cost_equals_the_closed_formula(phase: str, width: int, params: int, macs: int) -> None:
    assert cost(lambda grid, width: Wave(grid, width, phase=phase).eval(), width) == (params, macs)


def test_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match=r"kernel must be an odd number of at least 3, got 4; try"):
        Wave(Grid(3, 5), 8, kernel=4)


def test_refuses_an_unknown_phase() -> None:
    with pytest.raises(ValueError, match=r"phase must be one of depthwise, fc, got 'depth'; did you mean depthwise\?"):
        Wave(Grid(3, 5), 8, phase="depth")
