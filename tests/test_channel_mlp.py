"""The channel MLP equals sums written out channel by channel, with and without batch norms, in training and inference.

In inference the activation function overwrites the hidden channels; that changes neither the result nor the input.
Folding the batch norms away changes nothing either.
"""

import math
from collections.abc import Callable

import pytest
import torch
from mixing_references import cost, gelu, sums
from small_networks import overwriting
from torch import Tensor, nn

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.linear import ChannelLinear
from explore.architecture.channel_mixing.mlp import ChannelMlp
from explore.architecture.channel_mixing.none import NoChannelMixing
from explore.architecture.layers import ChannelMixing
from explore.architecture.norms import BatchNorm

GRID, WIDTH = Grid(2, 3), 5

ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "gelu": gelu,
    "relu": lambda x: max(x, 0.0),
    "squared_relu": lambda x: max(x, 0.0) ** 2,
    "star_relu": lambda x: max(x, 0.0) ** 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def example(**options: float | str | bool) -> tuple[ChannelMlp, Tensor]:
    """A mixing with every parameter and statistic off its initial value, and an input."""
    torch.manual_seed(0)
    module = ChannelMlp(GRID, WIDTH, **options)  # type: ignore[arg-type]
    for norm in module.modules():
        if isinstance(norm, BatchNorm):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    for linear in (module.expand, module.contract):
        if linear.bias is not None:
            nn.init.normal_(linear.bias)
    return module.eval(), torch.randn(2, GRID.tokens, WIDTH)


def normalised(norm: nn.Module, values: list[float]) -> list[float]:
    if isinstance(norm, nn.Identity):
        return values
    columns = [one.tolist() for one in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    both = zip(values, *columns, strict=True)
    return [(value - mean) / math.sqrt(var + 1e-5) * weight + bias for value, mean, var, weight, bias in both]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_the_sums_over_channels(activation: str, batch_norm: bool) -> None:
    module, x = example(expansion=1.5, activation=activation, batch_norm=batch_norm)
    expected = torch.empty_like(x)
    for image in range(2):
        for token in range(GRID.tokens):
            hidden = normalised(module.expand_norm, sums(module.expand, x[image, token].tolist()))
            active = [ACTIVATIONS[activation](one) for one in hidden]
            expected[image, token] = torch.tensor(normalised(module.contract_norm, sums(module.contract, active)))
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_inference_overwrites_nothing_but_its_own(activation: str, batch_norm: bool) -> None:
    module, x = example(activation=activation, batch_norm=batch_norm)
    before, expected = x.clone(), module(x)
    with torch.inference_mode(), overwriting():
        result = module(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(result, expected)
    module.requires_grad_(False)
    x.requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()


def test_tanh_form_of_gelu_is_kept_in_inference() -> None:
    module, x = example()
    assert isinstance(module.activation, nn.GELU)
    module.activation.approximate = "tanh"
    with torch.no_grad():
        torch.testing.assert_close(
            module(x), module.contract(nn.functional.gelu(module.expand(x), approximate="tanh")), atol=1e-6, rtol=0
        )


def test_batch_norm_takes_the_statistics_of_all_patches_in_training() -> None:
    module, x = example(batch_norm=True)
    module.train()
    hidden = module.expand(x)
    mean, variance = hidden.mean((0, 1)), hidden.var((0, 1), correction=0)
    expected = (hidden - mean) / (variance + 1e-5).sqrt() * module.expand_norm.weight + module.expand_norm.bias
    torch.testing.assert_close(module.expand_norm(module.expand(x)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "star_relu"])
def test_deployed_computes_the_same_without_batch_norms(activation: str) -> None:
    module, x = example(activation=activation, batch_norm=True)
    deployed = module.deployed()
    assert not any(isinstance(one, BatchNorm) for one in deployed.modules())
    torch.testing.assert_close(deployed(x), module(x), atol=1e-5, rtol=0)
    assert module.expand.bias is None, "deploying must leave the trained form as it is"


def test_deployed_without_batch_norms_is_the_mixing_itself() -> None:
    module, _ = example()
    assert module.deployed() is module


def test_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of gelu, relu, .*, got 'gulu'; did you mean gelu\?"):
        ChannelMlp(GRID, WIDTH, activation="gulu")


def test_linear_equals_the_sums_over_channels() -> None:
    torch.manual_seed(0)
    module, x = ChannelLinear(GRID, WIDTH), torch.randn(2, GRID.tokens, WIDTH)
    nn.init.normal_(module.linear.bias)
    for image in range(2):
        for token in range(GRID.tokens):
            expected = torch.tensor(sums(module.linear, x[image, token].tolist()))
            torch.testing.assert_close(module(x)[image, token], expected, atol=1e-5, rtol=0)


def test_none_is_the_identity() -> None:
    module, x = NoChannelMixing(GRID, WIDTH), torch.randn(2, GRID.tokens, WIDTH)
    assert module(x) is x
    assert NoChannelMixing.empty


FORMULAS = [
    # mixing, channels, parameters, multiply-adds of one image of 14 × 14 patches
    (lambda grid, width: ChannelMlp(grid, width), 384, 1_181_568, 231_211_008),
    (lambda grid, width: ChannelMlp(grid, width), 768, 4_722_432, 924_844_032),
    (lambda grid, width: ChannelMlp(grid, width, expansion=3), 384, 886_272, 173_408_256),
    (lambda grid, width: ChannelMlp(grid, width, activation="star_relu"), 384, 1_181_570, 231_211_008),
    (lambda grid, width: ChannelMlp(grid, width, batch_norm=True), 384, 1_183_488, 231_211_008),
    (lambda grid, width: ChannelLinear(grid, width), 384, 147_840, 28_901_376),
    (lambda grid, width: NoChannelMixing(grid, width), 384, 0, 0),
]


@pytest.mark.parametrize(("make", "width", "params", "macs"), FORMULAS)
def test_cost_equals_the_closed_formula(
    make: Callable[[Grid, int], ChannelMixing], width: int, params: int, macs: int
) -> None:
    assert cost(make, width) == (params, macs)
