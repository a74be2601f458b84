"""SwiGLU and GEGLU equal sums written out channel by channel, in training and in inference, at the published cost."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.gated import GatedMlp
from explore.architecture.channel_mixing.geglu import GeGlu
from explore.architecture.channel_mixing.swiglu import SwiGlu

GRID, WIDTH = Grid(2, 3), 6

FACTORS: list[tuple[type[SwiGlu] | type[GeGlu], Callable[[float], float]]] = [
    (SwiGlu, lambda x: x / (1 + math.exp(-x))),
    (GeGlu, lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
]
every_kind = pytest.mark.parametrize(("kind", "factor"), FACTORS, ids=["swiglu", "geglu"])


def example(kind: type[SwiGlu] | type[GeGlu]) -> tuple[GatedMlp, Tensor]:
    torch.manual_seed(0)
    module = kind(GRID, WIDTH, expansion=1.5)
    for linear in (module.gate, module.value, module.contract):
        nn.init.normal_(linear.bias)
    return module, torch.randn(2, GRID.tokens, WIDTH)


def product(linear: nn.Linear, values: list[float]) -> list[float]:
    rows = zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(row, values, strict=True)) + bias for row, bias in rows]


@every_kind
def test_equals_the_sums_over_channels(kind: type[SwiGlu] | type[GeGlu], factor: Callable[[float], float]) -> None:
    module, x = example(kind)
    expected = torch.empty_like(x)
    for image in range(2):
        for token in range(GRID.tokens):
            values = x[image, token].tolist()
            pairs = zip(product(module.gate, values), product(module.value, values), strict=True)
            hidden = [factor(gate) * value for gate, value in pairs]
            expected[image, token] = torch.tensor(product(module.contract, hidden))
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
    with torch.device("meta"):
        module, x = kind(Grid(14, 14), 384, expansion=expansion), torch.empty(1, 196, 384)
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert sum(one.numel() for one in module.parameters()) == params
    assert counter.get_total_flops() == 2 * macs
