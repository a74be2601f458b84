"""The low-rank MLP equals an MLP whose two weights are multiplied out, entry by entry, and has the rank it says."""

import pytest
import torch
from mixing_references import cost, gelu, scattered
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.low_rank import LowRankMlp

GRID, WIDTH = Grid(2, 3), 8


def example() -> tuple[LowRankMlp, Tensor]:
    torch.manual_seed(0)
    return scattered(LowRankMlp(GRID, WIDTH, expansion=1.5)), torch.randn(2, GRID.tokens, WIDTH)


def multiplied(inner: nn.Linear, outer: nn.Linear) -> Tensor:
    result = torch.zeros(outer.out_features, inner.in_features)
    for row in range(outer.out_features):
        for column in range(inner.in_features):
            for between in range(inner.out_features):
                result[row, column] += outer.weight[row, between] * inner.weight[between, column]
    return result


def test_equals_an_mlp_with_the_factors_multiplied() -> None:
    module, x = example()
    with torch.no_grad():
        expand = multiplied(module.expand_in, module.expand_out)
        contract = multiplied(module.contract_in, module.contract_out)
        expected = torch.empty_like(x)
        for image in range(2):
            for token in range(GRID.tokens):
                hidden = (expand @ x[image, token] + module.expand_out.bias).tolist()
                active = torch.tensor([gelu(one) for one in hidden])
                expected[image, token] = contract @ active + module.contract_out.bias
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    assert torch.linalg.matrix_rank(expand) == torch.linalg.matrix_rank(contract) == 2


def test_weights_start_with_the_variance_of_one_product() -> None:
    torch.manual_seed(0)
    module = LowRankMlp(GRID, 400)
    weight = module.expand_out.weight @ module.expand_in.weight
    assert weight.var().item() * 400 == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(("width", "rank"), [(384, 96), (768, 192)])
def test_cost_equals_the_closed_formula(width: int, rank: int) -> None:
    weights = 2 * rank * 5 * width
    assert cost(LowRankMlp, width) == (weights + 5 * width, 196 * weights)


@pytest.mark.parametrize("rank", [0.0, -1.0, 1.2])
def test_refuses_a_rank_that_factorises_nothing(rank: float) -> None:
    message = (
        rf"rank must leave 1 to 8 channels between the factors, got {rank} for width 8 and 32 hidden channels; try"
    )
    with pytest.raises(ValueError, match=message):
        LowRankMlp(GRID, WIDTH, rank=rank)
