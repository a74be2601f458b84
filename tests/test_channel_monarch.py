"""The Monarch MLP equals its two weights written out as permutations and block-diagonal matrices, entry by entry.

The factors and permutations are those of the rectangular Monarch matrix: cut the channels in blocks, multiply each,
deal the results out to the blocks like cards, multiply each again, and collect them card by card.
"""

from functools import partial

import pytest
import torch
from mixing_references import cost, gelu, scattered
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.monarch import MonarchMlp

GRID = Grid(2, 3)


def example(width: int, blocks: int, expansion: float) -> tuple[MonarchMlp, Tensor]:
    torch.manual_seed(0)
    return scattered(MonarchMlp(GRID, width, expansion=expansion, blocks=blocks)), torch.randn(2, GRID.tokens, width)


def dealt(count: int, blocks: int) -> Tensor:
    """The permutation matrix P, as rows: channel j·b + l becomes channel j of block l."""
    matrix = torch.zeros(count, count)
    for j in range(count // blocks):
        for block in range(blocks):
            matrix[j * blocks + block, block * (count // blocks) + j] = 1
    return matrix


def monarch(first: Tensor, second: Tensor, blocks: int) -> Tensor:
    """`R·P·L·Pᵀ` of the factors as lists of blocks, each channels in × channels out."""
    right, left = torch.block_diag(*first), torch.block_diag(*second)
    return right @ dealt(right.shape[1], blocks) @ left @ dealt(left.shape[1], blocks).T


def dense(module: MonarchMlp) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both weights and biases in the order in which the definition has the channels."""
    b = module.blocks
    into, between = module.expand_first.shape[1:]
    out = module.expand_second.shape[3]
    # Our order of the channels of a block is (block it goes to, place); the definition's is (place, block it goes to).
    first = module.expand_first.view(b, into, b, between // b).transpose(2, 3).reshape(b, into, between)
    second = module.expand_second.transpose(0, 1).reshape(b, between, out)
    expand = monarch(first, second, b)
    # Our hidden channels are (block, place), the definition's (place, block).
    bias = module.expand_bias.view(b, out).t().flatten()
    first = torch.zeros(b, out, between)
    for block in range(b):
        for place in range(out):  # of the definition's block: hidden channel block · out + place
            j, origin = divmod(block * out + place, b)
            first[block, place] = module.contract_first[origin, block, j - block * (out // b)]
    first = first.view(b, out, b, between // b).transpose(2, 3).reshape(b, out, between)
    second = module.contract_second.transpose(0, 1).reshape(b, between, into)
    bias_out = module.contract_bias.view(b, into).t().flatten()
    return expand, bias, monarch(first, second, b), bias_out


def test_permutation_of_a_small_case() -> None:
    moved = torch.arange(6.0) @ dealt(6, 2)
    assert moved.tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(("width", "blocks", "expansion"), [(8, 1, 2), (8, 2, 2), (16, 4, 2), (9, 3, 3), (16, 2, 0.5)])
def test_equals_permutations_and_block_diagonal_matrices(width: int, blocks: int, expansion: float) -> None:
    module, x = example(width, blocks, expansion)
    with torch.no_grad():
        expand, bias, contract, bias_out = dense(module)
    expected = torch.empty_like(x)
    for image in range(2):
        for token in range(GRID.tokens):
            hidden = (x[image, token] @ expand + bias).tolist()
            active = torch.tensor([gelu(one) for one in hidden])
            expected[image, token] = active @ contract + bias_out
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    before = x.clone()
    with torch.inference_mode():
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    assert torch.equal(x, before)


def test_each_weight_alone_reaches_every_channel() -> None:
    expand, _, contract, _ = dense(example(16, 4, 2)[0])
    assert expand.ne(0).all()
    assert contract.ne(0).all()


def test_inference_under_autocast() -> None:
    module, x = example(16, 4, 2)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rounded = module(x)
    torch.testing.assert_close(rounded.float(), module(x), atol=0.05, rtol=0.05)


def test_gradients_equal_finite_differences() -> None:
    module, x = example(16, 4, 1)
    assert torch.autograd.gradcheck(module.double(), (x[:1, :1].double().requires_grad_(),))


@pytest.mark.parametrize(("width", "blocks"), [(384, 4), (96, 4), (60, 2), (7, 1)])
def test_takes_four_blocks_where_they_fit(width: int, blocks: int) -> None:
    assert MonarchMlp(GRID, width).blocks == blocks


@pytest.mark.parametrize(("blocks", "expansion"), [(1, 4), (2, 4), (4, 4), (8, 4), (4, 0.5)])
def test_cost_equals_the_closed_formula(blocks: int, expansion: float) -> None:
    products = 2 * (1 + expansion) * 384 * min(384, expansion * 384) / blocks
    params = products + (1 + expansion) * 384
    assert cost(partial(MonarchMlp, expansion=expansion, blocks=blocks), 384) == (params, 196 * products)


@pytest.mark.parametrize("blocks", [0, 3, 4])
def test_refuses_blocks_that_do_not_divide(blocks: int) -> None:
    message = rf"blocks² must divide width and the hidden channels, got blocks {blocks} for 20 and 80; try 1, 2$"
    with pytest.raises(ValueError, match=message):
        MonarchMlp(GRID, 20, blocks=blocks)
