"""Wave-MLP's token mixing equals the paper's sums of waves, written out below patch by patch.

What the official code does beyond the paper's text is held as well: which channels the convolution pairs, which branch
comes first in the reweighting, and that the batch norms take their statistics over all patches.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.reweighting import Reweighting
from explore.architecture.token_mixing.wave import Phase, Wave, WaveBranch

GRIDS = [Grid(3, 5), Grid(4, 2), Grid(1, 2), Grid(9, 1)]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def example(grid: Grid, width: int) -> Tensor:
    return torch.randn(4, grid.tokens, width, generator=torch.Generator().manual_seed(1))


def perturbed(module: Wave) -> Wave:
    """Norms with weights, biases and statistics of their own."""
    for branch in (module.row, module.column):
        norm = branch.phase.norm
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module


def batch_norm(x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = x.mean((0, 1)), x.var((0, 1), unbiased=False)
    assert mean is not None
    assert variance is not None
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def convolved(x: Tensor, grid: Grid, filters: Tensor) -> Tensor:
    """Depthwise, with zeros outside; `filters` is channels × kernel height × kernel width."""
    result = torch.zeros_like(x)
    reach = filters.shape[1] // 2, filters.shape[2] // 2
    for row in range(grid.height):
        for column in range(grid.width):
            for down in range(-reach[0], reach[0] + 1):
                for right in range(-reach[1], reach[1] + 1):
                    if 0 <= row + down < grid.height and 0 <= column + right < grid.width:
                        neighbour = x[:, (row + down) * grid.width + column + right]
                        result[:, row * grid.width + column] += (
                            filters[:, reach[0] + down, reach[1] + right] * neighbour
                        )
    return result


def angle(module: Phase, x: Tensor) -> Tensor:
    if isinstance(module.estimate, nn.Linear):
        estimate = x @ module.estimate.weight.T + module.estimate.bias
    else:
        estimate = convolved(x, module.grid, module.estimate.weight[:, 0])
    return batch_norm(estimate, module.norm).clamp(min=0)


def branch(module: WaveBranch, x: Tensor) -> Tensor:
    theta, z = angle(module.phase, x), x @ module.amplitude.weight.T
    waves = [*(z * theta.cos()).unbind(2), *(z * theta.sin()).unbind(2)]
    sums = []
    for channel, pair in enumerate(module.filter.weight):
        pair_of_waves = torch.stack([waves[2 * channel], waves[2 * channel + 1]], 2)
        sums.append(convolved(pair_of_waves, module.grid, pair).sum(2))
    return torch.stack(sums, 2)


def reweighted(module: Reweighting, branches: list[Tensor]) -> Tensor:
    mean = torch.stack([one.mean(1) for one in branches]).sum(0)
    hidden = F.gelu(mean @ module.expand.weight.T + module.expand.bias)
    logits = hidden @ module.contract.weight.T + module.contract.bias
    result = torch.zeros_like(branches[0])
    for channel in range(mean.shape[1]):
        weights = logits[:, 3 * channel : 3 * channel + 3].softmax(1)
        for index, one in enumerate(branches):
            result[:, :, channel] += weights[:, index, None] * one[:, :, channel]
    return result


@every_grid
@pytest.mark.parametrize(("kernel", "phase", "width"), [(7, "fc", 8), (3, "depthwise", 6), (3, "fc", 5)])
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_equals_the_sums_of_waves(grid: Grid, kernel: int, phase: str, width: int, training: bool) -> None:
    torch.manual_seed(0)
    module = perturbed(Wave(grid, width, kernel=kernel, phase=phase)).train(training)
    x = example(grid, width)
    branches = [branch(module.row, x), branch(module.column, x), x @ module.channels.weight.T]
    expected = reweighted(module.reweighting, branches) @ module.projection.weight.T + module.projection.bias
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
    with torch.device("meta"):
        module, x = Wave(Grid(14, 14), width, phase=phase).eval(), torch.empty(1, 196, width)
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert sum(one.numel() for one in module.parameters()) == params
    assert counter.get_total_flops() == 2 * macs


def test_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match=r"kernel must be an odd number of at least 3, got 4; try"):
        Wave(Grid(3, 5), 8, kernel=4)


def test_refuses_an_unknown_phase() -> None:
    with pytest.raises(ValueError, match=r"phase must be one of depthwise, fc, got 'depth'; did you mean depthwise\?"):
        Wave(Grid(3, 5), 8, phase="depth")
