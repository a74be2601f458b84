"""SwiGLU and GEGLU equal sums written out channel by channel, in training and in inference, at the published cost."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from mixing_references import cost, gelu, scattered, sums
from torch import Tensor

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.gated import GatedMlp
from explore.architecture.channel_mixing.geglu import GeGlu
from explore.architecture.channel_mixing.swiglu import SwiGlu

GRID, WIDTH = Grid(2, 3), 6

FACTORS: list[tuple[type[SwiGlu] | type[GeGlu], Callable[[float], float]]] = [
    (SwiGlu, lambda x: x / (1 + math.exp(-x))),
    (GeGlu, gelu),
]
every_kind = pytest.mark.parametrize(("kind", "factor"), FACTORS, ids=["swiglu", "geglu"])


def example(kind: type[SwiGlu] | type[GeGlu]) -> tuple[GatedMlp, Tensor]:
    torch.manual_seed(0)
    return scattered(kind(GRID, WIDTH, expansion=1.5)), torch.randn(2, GRID.tokens, WIDTH)


@every_kind
def test_equals_the_sums_over_channels(kind: type[SwiGlu] | type[GeGlu], factor: Callable[[float], float]) -> None:
    module, x = example(kind)
    expected = torch.empty_like(x)
    for image in range(2):
        for token in range(GRID.tokens):
            values = x[image, token].tolist()
            pairs = zip(sums(module.gate, values), sums(module.value, values), strict=True)
            hidden = [factor(gate) * value for gate, value in pairs]
            expected[image, token] = torch.tensor(sums(module.contract, hidden))
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)


@every_kind
def test_inference_overwrites_nothing_but_its_own(
    kind: type[SwiGlu] | type[GeGlu], factor: Callable[[float], float]
) -> None:
    module, x = example(kind)
    before, expected = x.clone(), module(x)
    with torch.inference_mode():
        result = module(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(result, expected)


@every_kind
@pytest.mark.parametrize("frozen", ["gate", "value"])
def test_gradient_is_right_when_one_projection_is_frozen(
    kind: type[SwiGlu] | type[GeGlu], factor: Callable[[float], float], frozen: str
) -> None:
    module, x = example(kind)
    module(x).square().sum().backward()
    expected = {name: one.grad for name, one in module.named_parameters() if not name.startswith(frozen)}
    module.zero_grad()
    module.get_submodule(frozen).requires_grad_(False)
    module(x).square().sum().backward()
    for name, one in module.named_parameters():
        torch.testing.assert_close(one.grad, expected.get(name))


@pytest.mark.parametrize(
    ("expansion", "params", "macs"), [(8 / 3, 1_182_080, 231_211_008), (2.0, 886_656, 173_408_256)]
)
@every_kind
def test_cost_equals_the_closed_formula(
    kind: type[SwiGlu] | type[GeGlu], factor: Callable[[float], float], expansion: float, params: int, macs: int
) -> None:
    assert cost(partial(kind, expansion=expansion), 384) == (params, macs)
