"""The grouped MLP equals two block-diagonal matrices with ShuffleNet's shuffle between them, entry by entry."""

from functools import partial

import pytest
import torch
from mixing_references import cost, gelu, scattered
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.grouped import GroupedMlp

GRID = Grid(2, 3)


def example(width: int, groups: int) -> tuple[GroupedMlp, Tensor]:
    torch.manual_seed(0)
    return scattered(GroupedMlp(GRID, width, expansion=2.0, groups=groups)), torch.randn(2, GRID.tokens, width)


def shuffled(values: list[float], groups: int) -> list[float]:
    """Channel shuffle as ShuffleNet defines it: a table with one row per group, read by columns."""
    size = len(values) // groups
    return [values[group * size + place] for place in range(size) for group in range(groups)]


def reference(module: GroupedMlp, values: list[float]) -> list[float]:
    """One patch, in loops over groups and channels."""
    groups, into, between = module.expand.shape
    share = between // groups
    hidden = [0.0] * (groups * between)
    for group in range(groups):
        for a in range(between):
            total = module.expand_bias[group * between + a].item()
            for c in range(into):
                total += values[group * into + c] * module.expand[group, c, a].item()
            hidden[group * between + a] = gelu(total)
    hidden = shuffled(hidden, groups)
    result = module.contract_bias.tolist()
    for group in range(groups):
        for place in range(between):  # in the shuffled group, whose neighbours come from different groups
            origin, offset = place % groups, place // groups
            assert offset < share
            for c in range(into):
                weight = module.contract[origin, group, offset, c].item()
                result[group * into + c] += hidden[group * between + place] * weight
    return result


def test_shuffle_of_a_small_case() -> None:
    assert shuffled([0, 1, 2, 3, 4, 5], 2) == [0, 3, 1, 4, 2, 5]
    assert shuffled([0, 1, 2, 3, 4, 5], 3) == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(("width", "groups"), [(8, 1), (8, 2), (16, 4), (9, 3)])
def test_equals_two_block_diagonal_matrices_and_a_shuffle(width: int, groups: int) -> None:
    module, x = example(width, groups)
    expected = torch.tensor([[reference(module, patch) for patch in image] for image in x.tolist()])
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    before = x.clone()
    with torch.inference_mode():
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    assert torch.equal(x, before)


def test_every_channel_reaches_every_channel() -> None:
    module, x = example(16, 4)
    jacobian = torch.autograd.functional.jacobian(module, x[:1, :1])
    assert jacobian.ne(0).all()


def test_inference_under_autocast() -> None:
    module, x = example(16, 4)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rounded = module(x)
    torch.testing.assert_close(rounded.float(), module(x), atol=0.05, rtol=0.05)


def test_gradients_equal_those_of_the_dense_matrices() -> None:
    module, x = example(16, 4)
    x = x.double().requires_grad_()
    assert torch.autograd.gradcheck(module.double(), (x[:1, :1],))


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_cost_equals_the_closed_formula(groups: int) -> None:
    weights = 2 * 4 * 384**2 // groups
    assert cost(partial(GroupedMlp, groups=groups), 384) == (weights + 5 * 384, 196 * weights)


@pytest.mark.parametrize("groups", [0, 3, 8])
def test_refuses_groups_that_do_not_divide(groups: int) -> None:
    message = rf"groups must divide width, and groups² the hidden channels, got {groups}, 20 and 80; try 1, 2, 4$"
    with pytest.raises(ValueError, match=message):
        GroupedMlp(GRID, 20, groups=groups)
