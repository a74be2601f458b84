"""Architectures are resolved and refused as documented, and networks of every admissible shape work.

Covers isotropic networks, pyramids and hybrids, each rule with its message, initialisation by seed, stochastic depth,
position encodings, and a mixing added from outside the package.
"""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid, Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.layers import Downsample, LayerScale, Residual, Stem, StochasticDepth, TokenMixing
from explore.architecture.network import Network, check
from explore.architecture.spec import Architecture, Model, Stage, architecture, patch_sizes
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

MLP = Mixing(name="mlp")
ATTENTION = Mixing(name="attention")


def build(
    token_mixing: Mixing = MLP, image_size: int = 16, channels: int = 3, classes: int = 10, **model: Any
) -> Architecture:
    options = {"patch_size": 4, "depth": 2, "width": 8} | model
    return architecture(Model(**options), token_mixing, MLP, image_size=image_size, channels=channels, classes=classes)


def network(token_mixing: Mixing = MLP, seed: int = 0, **options: Any) -> Network:
    torch.manual_seed(seed)
    return Network(build(token_mixing, **options)).eval()


def images(batch: int = 2, channels: int = 3, size: int = 16) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


# Resolving


def test_isotropic_is_one_stage() -> None:
    assert build().stages == (Stage(depth=2, width=8, token_mixing=MLP, channel_mixing=MLP),)


def test_stages_take_the_models_own_values_where_they_say_nothing() -> None:
    stages = [
        {"width": 16},
        {"depth": 1, "token_mixing": "attention"},
        {"token_mixing": {"name": "convolution", "kernel": 3}, "channel_mixing": "swiglu"},
    ]
    convolution = Mixing(name="convolution", options={"kernel": 3})
    assert build(stages=stages).stages == (
        Stage(depth=2, width=16, token_mixing=MLP, channel_mixing=MLP),
        Stage(depth=1, width=8, token_mixing=ATTENTION, channel_mixing=MLP),
        Stage(depth=2, width=8, token_mixing=convolution, channel_mixing=Mixing(name="swiglu")),
    )


@given(image_size=st.integers(1, 96), stages=st.integers(1, 4), patch_size=st.integers(1, 96))
def test_patch_sizes_are_those_that_are_not_refused(image_size: int, stages: int, patch_size: int) -> None:
    try:
        build(image_size=image_size, patch_size=patch_size, stages=[{}] * stages)
        admitted = True
    except ValueError:
        admitted = False
    assert admitted == (patch_size in patch_sizes(image_size, stages))


def test_the_specification_does_not_import_torch() -> None:
    code = "import sys, explore.architecture.spec, explore.architecture.published; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Networks


def test_hybrid_pyramid_halves_the_grid_between_stages() -> None:
    stages = [
        {"depth": 1, "width": 8, "token_mixing": "convolution"},
        {"depth": 2, "width": 12, "token_mixing": "mlp", "channel_mixing": "swiglu"},
        {"depth": 1, "width": 16, "token_mixing": {"name": "attention", "heads": 4}},
    ]
    pyramid = network(stages=stages)
    shapes = []
    for stage in pyramid.stages:
        stage.register_forward_hook(lambda module, given, result: shapes.append(tuple(result.shape)))
    assert pyramid(images()).shape == (2, 10)
    assert shapes == [(2, 16, 8), (2, 4, 12), (2, 1, 16)]
    assert pyramid.stages[2][1].token.mixing.heads == 4


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any admissible architecture of a small size."""
    stages = [
        {
            "depth": draw(st.integers(1, 2)),
            "width": draw(st.integers(1, 9)),
            "token_mixing": draw(st.sampled_from(sorted(TOKEN_MIXINGS))),
            "channel_mixing": draw(st.sampled_from(sorted(CHANNEL_MIXINGS))),
        }
        for _ in range(draw(st.integers(1, 3)))
    ]
    image_size = draw(st.integers(1, 16))
    sizes = [size for size in patch_sizes(image_size, len(stages)) if image_size // size <= 8]
    assume(sizes)
    takes_class_token = len(stages) == 1 and TOKEN_MIXINGS[stages[0]["token_mixing"]].class_token
    return build(
        image_size=image_size,
        channels=draw(st.integers(1, 3)),
        classes=draw(st.integers(1, 5)),
        patch_size=draw(st.sampled_from(sizes)),
        stages=stages,
        layer_scale=draw(st.none() | st.floats(1e-4, 1)),
        drop_path=draw(st.floats(0, 0.9)),
        pooling=draw(st.sampled_from(["mean", "class_token"] if takes_class_token else ["mean"])),
        positions=draw(st.sampled_from(["auto", "none", "learned"])),
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=architectures(), batch=st.integers(1, 3), training=st.booleans())
def test_every_admissible_architecture_gives_finite_logits(spec: Architecture, batch: int, training: bool) -> None:
    try:
        check(spec)
    except ValueError as error:
        # At width 1 an expansion of 0.5 rounds to no hidden channel at all; that the message says so is tested apart.
        assume("expansion must give" not in str(error))
        raise
    logits = Network(spec).train(training)(images(batch, spec.channels, spec.image_size))
    assert logits.shape == (batch, spec.classes)
    assert logits.isfinite().all()


def test_stem_equals_a_strided_convolution() -> None:
    stem, image = Stem(3, 4, 8), torch.randn(2, 3, 8, 12)
    weight = stem.projection.weight.reshape(8, 3, 4, 4)
    expected = F.conv2d(image, weight, stem.projection.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(stem(image), expected)


def test_downsample_equals_a_strided_convolution() -> None:
    grid = Grid(4, 6)
    downsample, x = Downsample(grid, 5, 8), torch.randn(2, grid.tokens, 5)
    image = x.transpose(1, 2).reshape(2, 5, *grid)
    weight = downsample.projection.weight.reshape(8, 2, 2, 5).permute(0, 3, 1, 2)
    expected = F.conv2d(image, weight, downsample.projection.bias, stride=2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(downsample(x), expected)


def test_wrong_image_shape() -> None:
    with pytest.raises(ValueError, match=r"images must have the shape batch × 3 × 16 × 16, got 2 × 1 × 16 × 16"):
        network()(images(channels=1))


def test_a_mixing_from_outside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Roll(TokenMixing):
        """Hands each patch to the next."""

        def __init__(self, grid: Grid, width: int, *, by: int = 1) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor) -> Tensor:
            return x.roll(self.by, dims=1)

    monkeypatch.setitem(TOKEN_MIXINGS, "roll", Roll)
    rolled = network(Mixing(name="roll", options={"by": 2}))
    assert rolled(images()).shape == (2, 10)
    assert rolled.stages[0][0].token.mixing.by == 2


# Positions and pooling


@pytest.mark.parametrize(
    ("name", "positions", "learned"),
    [
        ("attention", "auto", True),
        ("attention", "none", False),
        ("mlp", "auto", False),
        ("mlp", "learned", True),
        ("pooling", "auto", False),
    ],
)
def test_positions(name: str, positions: str, learned: bool) -> None:
    assert (network(Mixing(name=name), positions=positions).positions is not None) is learned


def test_positions_are_what_tells_patches_apart() -> None:
    image = images()
    swapped = image.roll(4, dims=3)  # by one patch
    blind, seeing = network(ATTENTION, positions="none"), network(ATTENTION)
    torch.testing.assert_close(blind(swapped), blind(image))
    assert not torch.allclose(seeing(swapped), seeing(image), atol=1e-6)


def test_class_token_is_what_the_head_sees() -> None:
    vit = network(ATTENTION, pooling="class_token")
    assert vit.positions.shape == (1, 17, 8)
    seen = []
    vit.head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    vit.norm.register_forward_hook(lambda module, given, result: seen.append(result[:, 0]))
    assert vit(images()).shape == (2, 10)
    assert torch.equal(*seen)


# Initialisation


def test_initialisation_is_decided_by_the_seed() -> None:
    one, same, other = network(seed=3).state_dict(), network(seed=3).state_dict(), network(seed=4).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.projection.weight"], other["stem.projection.weight"])


@pytest.mark.parametrize("width", [64, 256])
def test_activations_keep_their_scale_at_every_width(width: int) -> None:
    deep = network(width=width, depth=2, image_size=32)
    stem = deep.stem(images(size=32))
    assert stem.std().item() == pytest.approx(1, rel=0.1)
    assert 0.5 < deep.stages(stem).std().item() < 3


def test_logits_are_nearly_flat_at_first_and_differ_between_images() -> None:
    logits = network(width=64)(images())
    assert logits.abs().max() < 1
    assert not torch.allclose(logits[0], logits[1])


def test_layer_scale_starts_at_its_value_on_both_branches() -> None:
    factors = [one.factor for one in network(layer_scale=1).modules() if isinstance(one, LayerScale)]
    assert len(factors) == 4
    assert all(torch.equal(factor, torch.ones(8)) for factor in factors)


# Stochastic depth


def drop_rates(**options: Any) -> list[float]:
    return [one.drop.rate for one in network(**options).modules() if isinstance(one, Residual)][::2]


def test_drop_rates_grow_linearly_over_the_blocks_of_all_stages() -> None:
    assert drop_rates(depth=5, drop_path=0.2) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert drop_rates(stages=[{"depth": 2}, {"depth": 3}], drop_path=0.2) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert drop_rates(depth=1, drop_path=0.2) == [0]


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


# Refusing

REFUSED_BY_THE_SPECIFICATION = [
    ({"patch_size": 5, "image_size": 28}, r"patch_size must divide image_size, got 5 and 28; try 1, 2, 4, 7, 14, 28$"),
    ({"patch_size": 0}, r"patch_size must be a whole number of at least 1, got 0"),
    ({"depth": 0}, r"depth must be a whole number of at least 1, got 0"),
    ({"width": -8}, r"width must be a whole number of at least 1, got -8"),
    ({"classes": 0}, r"classes must be a whole number of at least 1, got 0"),
    ({"channels": True}, r"channels must be a whole number of at least 1, got True"),
    ({"image_size": 0}, r"image_size must be a whole number of at least 1, got 0"),
    (
        {"image_size": 28, "stages": [{}, {}]},
        r"the grid must be even before each downsample, got 7 × 7 patches before stage 2 of 2 "
        r"\(image_size 28, patch_size 4\); try patch_size 1, 2, 7, 14$",
    ),
    (
        {"image_size": 28, "patch_size": 2, "stages": [{}, {}, {}]},
        r"got 7 × 7 patches before stage 3 of 3 .*; try patch_size 1, 7$",
    ),
    (
        {"image_size": 7, "patch_size": 1, "stages": [{}, {}]},
        r"before stage 2 of 2 .*; use fewer stages or another image_size$",
    ),
    ({"stages": [{"widht": 8}]}, r"a key of model.stages\[0\] must be one of channel_mixing, depth, .*mean width\?"),
    ({"stages": [{}, {"depth": "2"}]}, r"model.stages\[1\].depth must be a whole number of at least 1, got '2'"),
    ({"stages": [{"width": 0}]}, r"model.stages\[0\].width must be a whole number of at least 1, got 0"),
    ({"stages": [3]}, r"model.stages\[0\] must be a mapping, got 3; try \{depth: 2, width: 64\}"),
    ({"stages": [{"token_mixing": 3}]}, r"a mixing must be a name or a mapping with a name, got 3"),
    ({"drop_path": 1.0}, r"drop_path must be at least 0 and below 1, got 1.0"),
    ({"drop_path": float("nan")}, r"drop_path must be at least 0 and below 1, got nan"),
    ({"layer_scale": 0.0}, r"layer_scale must be above 0, or null for none, got 0.0"),
    ({"pooling": "max"}, r"pooling must be one of class_token, mean, got 'max'"),
    ({"positions": "learn"}, r"positions must be one of auto, learned, none, got 'learn'; did you mean learned\?"),
    (
        {"token_mixing": ATTENTION, "pooling": "class_token", "stages": [{}, {}]},
        r"pooling=class_token needs a single stage, got 2; use pooling=mean",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED_BY_THE_SPECIFICATION)
def test_specification_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


REFUSED_BY_THE_CHECK = [
    (
        {"token_mixing": MLP, "pooling": "class_token"},
        r"pooling=class_token needs a token_mixing that takes a class token \(attention\), got 'mlp'; use pooling=mean",
    ),
    ({"token_mixing": Mixing(name="atention")}, r"token_mixing must be one of .*; did you mean attention\?"),
    ({"stages": [{"channel_mixing": "swiglo"}]}, r"channel_mixing must be one of .*; did you mean swiglu\?"),
    (
        {"stages": [{}, {"token_mixing": {"name": "attention", "heads": 3}}]},
        r"heads must divide width, got 3 and 8; try 1, 2, 4, 8",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED_BY_THE_CHECK)
def test_check_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(build(**options))


def test_check_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    check(build(ATTENTION, pooling="class_token", stages=[]))
    check(build(Mixing(name="convolution")))
    assert torch.equal(torch.get_rng_state(), before)


def test_check_takes_no_memory() -> None:
    huge = build(width=100_000, depth=1, classes=1000)  # 300 GB of weights
    check(huge)
    check(replace(huge, positions="learned"))


def test_modules_are_registered() -> None:
    names = {name.split(".")[0] for name, _ in network(ATTENTION, pooling="class_token").named_parameters()}
    assert names == {"stem", "class_token", "positions", "stages", "norm", "head"}
    assert isinstance(network().stages, nn.Sequential)
