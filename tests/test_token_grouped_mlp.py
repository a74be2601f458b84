"""The grouped token MLP is one Mixer token MLP for each group of neighbouring channels, and with one group is that MLP.

The reference runs the channels one at a time through the weights of their group.
"""

from functools import partial

import pytest
import torch
from mixing_references import cost, scattered
from torch import Tensor
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.grouped_mlp import GroupedTokenMlp
from explore.architecture.token_mixing.mlp import TokenMlp

GRIDS = [Grid(1, 2), Grid(3, 5), Grid(4, 4)]


def example(grid: Grid, groups: int | None) -> tuple[GroupedTokenMlp, Tensor]:
    torch.manual_seed(0)
    return scattered(GroupedTokenMlp(grid, 12, groups=groups)), torch.randn(2, grid.tokens, 12)


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("groups", "channels"), [(1, 12), (3, 4), (4, 3), (12, 1), (None, 1)])
def test_equals_the_mlp_of_the_group_channel_by_channel(grid: Grid, groups: int | None, channels: int) -> None:
    module, x = example(grid, groups)
    expected = torch.zeros_like(x)
    for image in range(2):
        for channel in range(12):
            group = channel // channels
            hidden = F.gelu(module.expand.weight[group] @ x[image, :, channel] + module.expand.bias[group])
            expected[image, :, channel] = module.contract.weight[group] @ hidden + module.contract.bias[group]
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_equals_token_mlps_side_by_side(grid: Grid, groups: int) -> None:
    module, x = example(grid, groups)
    results = []
    for group, channels in enumerate(x.chunk(groups, dim=2)):
        tied = TokenMlp(grid, 12)
        tied.load_state_dict({name: weights[group] for name, weights in module.state_dict().items()})
        results.append(tied(channels))
    torch.testing.assert_close(module(x), torch.cat(results, dim=2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("groups", "factor"), [(1, 1), (4, 4), (None, 384)])
def test_cost_equals_the_closed_formula(groups: int | None, factor: int) -> None:
    assert cost(partial(GroupedTokenMlp, groups=groups), 384) == (factor * 75_652, 28_901_376)


@pytest.mark.parametrize("groups", [5, 0, -4])
def test_groups_that_do_not_divide_the_width_are_refused(groups: int) -> None:
    message = rf"groups must divide width, got {groups} and 12; try 1, 2, 3, 4, 6, 12$"
    with pytest.raises(ValueError, match=message):
        GroupedTokenMlp(Grid(3, 5), 12, groups=groups)
