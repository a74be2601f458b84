"""Architectures are resolved and refused as documented, and networks of every admissible shape work.

Covers isotropic networks, pyramids and hybrids, initialisation by seed, position encodings,
and a mixing added from outside the package.
"""

import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from small_networks import ATTENTION, MLP, STEPS, build, images, network, stage
from torch import Tensor, nn

from explore.architecture.blocks import BLOCKS, LayerScale, Residual
from explore.architecture.catalog import Grid, Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.layers import TokenMixing
from explore.architecture.network import Network, check
from explore.architecture.norms import NORMS
from explore.architecture.spec import Architecture, patch_sizes
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

# Resolving


def test_isotropic_is_one_stage() -> None:
    assert build().stages == (stage(2, 8, downsample=False),)


def test_stages_take_the_models_own_values_where_they_say_nothing() -> None:
    stages = [
        {"width": 16},
        {"depth": 1, "token_mixing": "attention"},
        {"token_mixing": {"name": "convolution", "kernel": 3}, "channel_mixing": "swiglu"},
    ]
    convolution = Mixing(name="convolution", options={"kernel": 3})
    assert build(stages=stages).stages == (
        stage(2, 16, downsample=False),
        stage(1, 8, ATTENTION),
        stage(2, 8, convolution, Mixing(name="swiglu")),
    )


def test_options_by_name_apply_to_the_models_own_mixing_of_that_name() -> None:
    stages = [{"token_mixing": {"convolution": {"kernel": 3}, "attention": {"heads": 2}}}]
    given = Mixing(name="convolution", options={"kernel": 5, "other": 1})
    assert build(given, stages=stages).stages[0].token_mixing[0].options == {"kernel": 3, "other": 1}
    assert build(MLP, stages=stages).stages[0].token_mixing == (MLP,)


def test_blocks_of_a_stage_take_a_list_in_turn() -> None:
    kernels = [{"convolution": {"kernel": kernel}} for kernel in (3, 5, 7)]
    built = network(Mixing(name="convolution"), depth=5, stages=[{"token_mixing": kernels}, {"depth": 1}])
    assert [one.kernel_size[0] for one in built.modules() if isinstance(one, nn.Conv2d)] == [3, 5, 7, 3, 5, 7]


def test_hybrid_by_block_without_a_downsample() -> None:
    stages = [{"depth": 1, "token_mixing": "convolution"}, {"depth": 2, "downsample": False}]
    hybrid = network(stages=stages)
    assert [type(block.token.mixing).__name__ for part in hybrid.stages for block in part] == [
        "DepthwiseConvolution",
        "TokenMlp",
        "TokenMlp",
    ]
    assert hybrid(images()).shape == (2, 10)


@given(image_size=st.integers(1, 96), downsamples=st.integers(0, 3), patch_size=st.integers(1, 96))
def test_patch_sizes_are_those_that_are_not_refused(image_size: int, downsamples: int, patch_size: int) -> None:
    try:
        build(image_size=image_size, patch_size=patch_size, stages=[{}] * (downsamples + 1))
        admitted = True
    except ValueError:
        admitted = False
    assert admitted == (patch_size in patch_sizes(image_size, downsamples))


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
    for part in pyramid.stages:
        part.register_forward_hook(lambda module, given, result: shapes.append(tuple(result.shape)))
    assert pyramid(images()).shape == (2, 10)
    assert shapes == [(2, 16, 8), (2, 4, 12), (2, 1, 16)]
    assert pyramid.stages[2][1].token.mixing.heads == 4


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any admissible architecture of a small size."""
    stages = [
        {
            "depth": draw(st.integers(1, 2)),
            "width": draw(st.sampled_from([1, 4, 12, 24])),
            "token_mixing": draw(st.sampled_from(sorted(TOKEN_MIXINGS))),
            "channel_mixing": draw(st.sampled_from(sorted(CHANNEL_MIXINGS))),
        }
        for _ in range(draw(st.integers(1, 3)))
    ]
    image_size = draw(st.integers(1, 16))
    sizes = [size for size in patch_sizes(image_size, len(stages) - 1) if image_size // size <= 8]
    assume(sizes)
    kinds = TOKEN_MIXINGS[stages[0]["token_mixing"]], CHANNEL_MIXINGS[stages[0]["channel_mixing"]]
    takes_class_token = len(stages) == 1 and all(kind.class_token for kind in kinds)
    return build(
        image_size=image_size,
        channels=draw(st.integers(1, 3)),
        classes=draw(st.integers(1, 5)),
        patch_size=draw(st.sampled_from(sizes)),
        stages=stages,
        layer_scale=draw(st.none() | st.floats(1e-4, 1)),
        drop_path=draw(st.floats(0, 0.9)),
        pooling=draw(st.sampled_from(["mean", "class_token"] if takes_class_token else ["mean"])),
        positions=draw(st.sampled_from(["auto", "none", "learned", "fixed"])),
        block=draw(st.sampled_from(sorted(BLOCKS))),
        norm=draw(st.sampled_from(sorted(NORMS))),
        stem={"overlap": draw(st.booleans()), "layers": draw(st.sampled_from([["projection"], STEPS]))},
        downsample={"overlap": draw(st.booleans()), "layers": draw(st.sampled_from([["norm", "projection"], STEPS]))},
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=architectures(), batch=st.integers(1, 3), training=st.booleans())
def test_every_admissible_architecture_gives_finite_logits(spec: Architecture, batch: int, training: bool) -> None:
    try:
        check(spec)
    except ValueError:
        reject()  # a mixing does not take this width or grid; that each says so is tested with it
    if training:
        batch += 1  # a batch norm over a single patch of a single image has no variance
    logits = Network(spec).train(training)(images(batch, spec.channels, spec.image_size))
    assert logits.shape == (batch, spec.classes)
    assert logits.isfinite().all()


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


def test_fixed_positions_are_sines_and_cosines_without_weights() -> None:
    fixed = network(positions="fixed")
    assert "positions" not in fixed.state_dict()
    for place, channel in itertools.product(range(16), range(8)):
        angle = place / 10_000 ** (2 * (channel // 2) / 8)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert fixed.positions[0, place, channel].item() == pytest.approx(expected, abs=1e-6)


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


def test_norm_after_pooling_sees_the_mean() -> None:
    before, after = network(), network(norm_after_pooling=True)
    tokens = before.stages(before.stem(images()))
    torch.testing.assert_close(before(images()), before.head(before.norm(tokens).mean(1)))
    torch.testing.assert_close(after(images()), after.head(after.norm(tokens.mean(1))))


def test_final_norm_may_be_another_or_none() -> None:
    assert isinstance(network(final_norm="none").norm, nn.Identity)
    assert isinstance(network(norm="batch").norm, nn.BatchNorm1d)
    assert isinstance(network(norm="batch", final_norm="layer").norm, nn.LayerNorm)


def test_tanh_form_reaches_every_gelu() -> None:
    approximate, exact = network(gelu="tanh"), network()
    forms = {one.approximate for one in approximate.modules() if isinstance(one, nn.GELU)}
    assert forms == {"tanh"}
    difference = (approximate(images()) - exact(images())).abs().max()
    assert 0 < difference < 1e-2


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


def test_uniform_drop_rates_are_the_same_in_every_block() -> None:
    assert drop_rates(depth=3, drop_path=0.2, drop_path_schedule="uniform") == pytest.approx([0.2] * 3)


def test_modules_are_registered() -> None:
    names = {name.split(".")[0] for name, _ in network(ATTENTION, pooling="class_token").named_parameters()}
    assert names == {"stem", "class_token", "positions", "stages", "norm", "head"}
    assert isinstance(network().stages, nn.Sequential)
