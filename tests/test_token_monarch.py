"""The Monarch token MLP equals its sums written out, and its matrices are the products that the paper defines.

The reference walks through single weights; a second one builds the dense matrix from block-diagonal matrices and the
permutation, so that a mistake in either reading of the definition would show.
"""

from functools import partial

import pytest
import torch
from mixing_references import cost, scattered
from torch import Tensor
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.token_mixing.monarch import MonarchLinear, MonarchTokenMlp

GRIDS = [Grid(1, 1), Grid(1, 2), Grid(3, 5), Grid(4, 4), Grid(5, 3)]


def linear(inputs: int, outputs: int, blocks: int) -> MonarchLinear:
    torch.manual_seed(0)
    return scattered(MonarchLinear(inputs, outputs, blocks))


def written_out(module: MonarchLinear, x: Tensor) -> Tensor:
    """One vector of inputs to one of outputs."""
    blocks, inner, block_inputs = module.right.shape
    block_outputs = module.left.shape[1]
    inside = torch.zeros(blocks * inner)
    for block in range(blocks):
        for to in range(inner):
            for of in range(block_inputs):
                place = block * block_inputs + of
                if place < len(x):
                    inside[block * inner + to] += module.right[block, to, of] * x[place]
    result = torch.zeros(blocks * block_outputs)
    for place in range(blocks * inner):
        block, of = place % blocks, place // blocks
        for to in range(block_outputs):
            result[to * blocks + block] += module.left[block, to, of] * inside[place]
    return result[: len(module.bias)] + module.bias


def outputs(module: MonarchLinear, x: Tensor) -> Tensor:
    result: Tensor = module(x).flatten(0, 1)[: len(module.bias)]
    return result


@torch.no_grad()
@pytest.mark.parametrize("sizes", [(16, 16), (12, 20), (20, 12), (15, 6), (7, 30), (2, 3)], ids=str)
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_monarch_matrix_equals_its_sums_written_out(sizes: tuple[int, int], blocks: int) -> None:
    module, x = linear(*sizes, blocks), torch.randn(sizes[0], 3)
    expected = torch.stack([written_out(module, column) for column in x.unbind(1)], dim=1)
    torch.testing.assert_close(outputs(module, x), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_square_monarch_matrix_is_the_product_of_the_paper(blocks: int) -> None:
    size = blocks**2
    module = linear(size, size, blocks)
    permutation = torch.eye(size)[torch.arange(size).reshape(blocks, blocks).t().flatten()]
    left, right = (torch.block_diag(*factor) for factor in (module.left, module.right))  # type: ignore[no-untyped-call]
    dense = permutation.T @ left @ permutation @ right
    assert (dense != 0).all(), "some input does not reach some output"
    expected = dense + module.bias.unsqueeze(1)
    torch.testing.assert_close(outputs(module, torch.eye(size)), expected, atol=1e-5, rtol=0)


def test_hand_written_case() -> None:
    module = linear(4, 4, 2)
    with torch.no_grad():
        module.right.copy_(torch.tensor([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]]))
        module.left.copy_(torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [10, 0]]]))
        module.bias.copy_(torch.tensor([0.0, 0, 0, 100]))
    # R gives 3, 7, 11, 15; of these L sees 3, 11 and 7, 15, and gives 3, 11 and 15, 70, again taken in turn.
    assert outputs(module, torch.ones(4, 1)).flatten().tolist() == [3, 15, 11, 170]


@torch.no_grad()
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_equals_the_mlp_written_out_channel_by_channel(grid: Grid, blocks: int) -> None:
    torch.manual_seed(0)
    module, x = scattered(MonarchTokenMlp(grid, 6, blocks=blocks, expansion=1.5)), torch.randn(2, grid.tokens, 6)
    expected = torch.zeros_like(x)
    for image in range(2):
        for channel in range(6):
            hidden = F.gelu(written_out(module.expand, x[image, :, channel]))
            expected[image, :, channel] = written_out(module.contract, hidden)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("blocks", "params", "macs"),
    [(4, 37_636, 14_303_232), (14, 10_976 + 388, 4_214_784), (1, 148_992 + 388, 57_212_928)],
)
def test_cost_equals_the_closed_formula(blocks: int, params: int, macs: int) -> None:
    assert cost(partial(MonarchTokenMlp, blocks=blocks), 384) == (params, macs)


def test_less_than_one_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"blocks must be at least 1, got 0; try 4$"):
        MonarchTokenMlp(Grid(3, 5), 8, blocks=0)
