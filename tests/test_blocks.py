"""Every block design computes the formula in its documentation, and norms, activations and stochastic depth theirs."""

from collections.abc import Callable

import pytest
import torch
from small_networks import overwriting
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.activations import ACTIVATIONS, activation
from explore.architecture.blocks import BLOCKS, StochasticDepth, Surroundings
from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing.mlp import ChannelMlp
from explore.architecture.hidden import added
from explore.architecture.layers import ChannelMixing, TokenMixing
from explore.architecture.norms import NORMS, norm
from explore.architecture.token_mixing.mlp import TokenMlp

GRID, WIDTH = Grid(2, 3), 8


def around(layer_scale: float | None = None) -> Surroundings:
    return Surroundings(
        norm=lambda width: NORMS["layer"](width, 1e-6), activation=lambda: activation("relu"), layer_scale=layer_scale
    )


def normalised(x: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,), eps=1e-6)


def pieces(design: str, layer_scale: float | None = None) -> tuple[nn.Module, TokenMlp, ChannelMlp, Tensor]:
    torch.manual_seed(0)
    token, channel = TokenMlp(GRID, WIDTH), ChannelMlp(GRID, WIDTH)
    return BLOCKS[design](token, channel, WIDTH, around(layer_scale)), token, channel, torch.randn(2, 6, WIDTH)


def test_pre_norm() -> None:
    block, token, channel, x = pieces("pre_norm")
    between = x + token(normalised(x))
    torch.testing.assert_close(block(x), between + channel(normalised(between)))


def test_post_norm() -> None:
    block, token, channel, x = pieces("post_norm")
    between = normalised(x + token(x))
    torch.testing.assert_close(block(x), normalised(between + channel(between)))


def test_joint() -> None:
    block, token, channel, x = pieces("joint", layer_scale=0.5)
    torch.testing.assert_close(block(x), x + 0.5 * channel(normalised(token(normalised(x)))))


def test_convnext() -> None:
    block, token, channel, x = pieces("convnext", layer_scale=0.5)
    torch.testing.assert_close(block(x), x + 0.5 * channel(normalised(token(x))))


def test_convmixer() -> None:
    block, token, channel, x = pieces("convmixer")
    between = x + normalised(F.relu(token(x)))
    torch.testing.assert_close(block(x), normalised(F.relu(channel(between))))


class Nothing(ChannelMixing):
    empty = True

    def forward(self, x: Tensor) -> Tensor:
        return x


class Normalising(TokenMixing):
    has_norm = True

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


@pytest.mark.parametrize("design", ["pre_norm", "post_norm"])
def test_branch_of_an_empty_channel_mixing_is_left_out(design: str) -> None:
    block, x = BLOCKS[design](TokenMlp(GRID, WIDTH), Nothing(), WIDTH, around()), torch.randn(2, 6, WIDTH)
    assert not [name for name, _ in block.named_parameters() if name.startswith("channel")]
    assert torch.equal(block.channel(x), x)


@pytest.mark.parametrize("design", ["pre_norm", "joint"])
def test_mixing_with_a_norm_of_its_own_gets_no_other(design: str) -> None:
    block = BLOCKS[design](Normalising(), ChannelMlp(GRID, WIDTH), WIDTH, around())
    assert isinstance((block.token if design == "pre_norm" else block).norm, nn.Identity)


def test_stochastic_depth_drops_whole_images_and_rescales_the_rest() -> None:
    torch.manual_seed(0)
    dropped = StochasticDepth(0.25)(torch.ones(20_000, 2, 3))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all()
    # 20,000 draws have a standard error of 0.003.
    assert (dropped[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.012)
    assert dropped.mean().item() == pytest.approx(1, abs=0.016)


def test_stochastic_depth_does_nothing_in_evaluation() -> None:
    x = torch.randn(4, 2, 3)
    assert StochasticDepth(0.9).eval()(x) is x
    assert StochasticDepth(0.0).train()(x) is x


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x.flip(1), lambda x: x.transpose(1, 2)[:, :6]])
def test_inference_leaves_its_input_alone(view: Callable[[Tensor], Tensor]) -> None:
    """Branches are added in place there, which must not reach what came in, even where a mixing hands that on."""
    x = torch.randn(2, 6, 6)
    kept, expected = x.clone(), x + view(x)
    with torch.no_grad(), overwriting():
        assert torch.equal(added(x, view(x)), expected)
    assert torch.equal(x, kept)


# Norms: each over the axes it names, against plain formulas


def test_norms_take_their_statistics_where_they_say() -> None:
    x = torch.randn(3, 6, WIDTH) * 2 + 1

    def standardised(axes: tuple[int, ...]) -> Tensor:
        return (x - x.mean(axes, keepdim=True)) / (x.var(axes, keepdim=True, unbiased=False) + 1e-5).sqrt()

    expected = {
        "layer": standardised((2,)),
        "group": standardised((1, 2)),
        "batch": standardised((0, 1)),
        "rms": x / (x.square().mean(2, keepdim=True) + 1e-5).sqrt(),
        "affine": x,
    }
    assert expected.keys() == NORMS.keys()
    for name, result in expected.items():
        torch.testing.assert_close(norm(name, WIDTH, 1e-5)(x), result, msg=name)


@pytest.mark.parametrize("name", NORMS)
def test_norms_have_a_weight_per_channel_and_know_vectors(name: str) -> None:
    module = norm(name, WIDTH, 1e-5).eval()
    with torch.no_grad():
        module.weight.mul_(3)
    plain = norm(name, WIDTH, 1e-5).eval()
    x = torch.randn(2, WIDTH)
    torch.testing.assert_close(module(x), 3 * plain(x))
    assert module(x.unsqueeze(1)).shape == (2, 1, WIDTH)


def test_group_norm_equals_that_of_torch() -> None:
    x, ours, reference = torch.randn(2, 6, WIDTH), norm("group", WIDTH, 1e-5), nn.GroupNorm(1, WIDTH)
    with torch.no_grad():
        ours.weight.normal_()
        ours.bias.normal_()
        reference.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), reference(x.transpose(1, 2)).transpose(1, 2))


def test_unknown_norm() -> None:
    with pytest.raises(ValueError, match=r"norm must be one of affine, batch, group, layer, rms, got 'bach'; .* batch"):
        norm("bach", 8, 1e-5)


# Activation functions


def test_activations() -> None:
    x = torch.tensor([-1.0, 0.0, 0.5, 2.0])
    expected = {
        "gelu": x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "relu": x.clamp(min=0),
        "silu": x / (1 + (-x).exp()),
        "squared_relu": torch.tensor([0, 0, 0.25, 4]),
        "star_relu": torch.tensor([0, 0, 0.25, 4]),
    }
    assert expected.keys() == ACTIVATIONS.keys()
    for name, result in expected.items():
        torch.testing.assert_close(activation(name)(x), result, msg=name)


def test_star_relu_learns_scale_and_bias() -> None:
    star = activation("star_relu")
    with torch.no_grad():
        star.scale.fill_(2)
        star.bias.fill_(-1)
    torch.testing.assert_close(star(torch.tensor([-1.0, 3.0])), torch.tensor([-1.0, 17.0]))


def test_unknown_activation() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of gelu, .*, got 'gleu'; did you mean gelu"):
        activation("gleu")
