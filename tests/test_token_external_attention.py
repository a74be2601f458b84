"""External attention equals the formula, written out below head by head, and starts as EANet does."""

import pytest
import torch
from mixing_references import batch_norm, cost, product, scattered
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.norms import BatchNorm
from explore.architecture.token_mixing.external_attention import ExternalAttention

GRID, WIDTH = Grid(3, 5), 8


def example(tokens: int = GRID.tokens) -> Tensor:
    return torch.randn(4, tokens, WIDTH, generator=torch.Generator().manual_seed(1))


def make(heads: int | None, memory: int = 5) -> ExternalAttention:
    torch.manual_seed(0)
    return scattered(ExternalAttention(GRID, WIDTH, heads=heads, memory=memory))


def attended(module: ExternalAttention, features: Tensor) -> Tensor:
    """One head of one image: tokens × channels of the head."""
    scores = product(features, module.keys)
    weights = torch.empty_like(scores)
    for entry in range(scores.shape[1]):
        powers = scores[:, entry].exp()
        weights[:, entry] = powers / powers.sum()
    for token in range(scores.shape[0]):
        weights[token] = weights[token] / (1e-9 + weights[token].sum())
    return product(weights, module.values)


def reference(module: ExternalAttention, x: Tensor) -> Tensor:
    images = []
    for image in x:
        heads = product(image, module.query).chunk(module.heads, 1)
        images.append(product(torch.cat([attended(module, head) for head in heads], 1), module.projection))
    result, norm = torch.stack(images), module.norm
    return batch_norm(result, norm) if isinstance(norm, BatchNorm) else result


@pytest.mark.parametrize("heads", [None, 1, 2, 8])
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_equals_the_formula(heads: int | None, training: bool) -> None:
    module, x = make(heads).train(training), example()
    torch.testing.assert_close(module(x), reference(module, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [None, 2])
@torch.no_grad()
def test_takes_any_number_of_tokens_in_any_order(heads: int | None) -> None:
    module, x = make(heads).eval(), example(tokens=16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])


def test_memories_start_equal_but_are_not_tied() -> None:
    torch.manual_seed(0)
    module = ExternalAttention(GRID, 256)
    assert torch.equal(module.values.weight, module.keys.weight.T)
    assert module.keys.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    with torch.no_grad():
        module.keys.weight.zero_()
    assert module.values.weight.any()


FORMULAS = [
    # heads, channels, parameters, multiply-adds of one image of 196 patches; the single head with its norm
    (None, 384, 344_448 + 768, 67_436_544),
    (None, 768, 1_278_720 + 1536, 250_478_592),
    (6, 384, 1_189_888, 269_746_176),
    (12, 768, 4_730_752, 1_001_914_368),
]


@pytest.mark.parametrize(("heads", "width", "params", "macs"), FORMULAS)
def test_cost_equals_the_closed_formula(heads: int | None, width: int, params: int, macs: int) -> None:
    assert cost(lambda grid, width: ExternalAttention(grid, width, heads=heads).eval(), width) == (params, macs)


@pytest.mark.parametrize("heads", [0, 3])
def test_refuses_heads_that_do_not_divide_the_width(heads: int) -> None:
    with pytest.raises(ValueError, match=rf"heads must divide width, got {heads} and 8; try 1, 2, 4, 8$"):
        ExternalAttention(GRID, WIDTH, heads=heads)


def test_refuses_an_empty_memory() -> None:
    with pytest.raises(ValueError, match=r"memory must be at least 1, got 0; try 64"):
        ExternalAttention(GRID, WIDTH, memory=0)
