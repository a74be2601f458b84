"""The published models have the published sizes: parameters to the unit, multiply-adds to the printed digits.

Everything is built on the meta device, so that the largest costs no memory. Run with `-s` to see the table, and with
`-m "slow or not slow"` to see the multiply-adds of all.
"""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.layers import ChannelMixing
from explore.architecture.network import Network
from explore.architecture.published import PUBLISHED, adapted, published
from explore.architecture.spec import Architecture, Stage
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

every_model = pytest.mark.parametrize("name", PUBLISHED)
# The first of each paper: what is the same for the others is not built again.
FIRST = tuple({row.paper: name for name, row in reversed(PUBLISHED.items())}.values())
every_family = pytest.mark.parametrize("name", FIRST)


def hollow(architecture: Architecture) -> Network:
    with torch.device("meta"):
        return Network(architecture).eval()


@cache
def built(name: str) -> Network:
    """A published network; no test changes it."""
    return hollow(published(name))


def shallow(architecture: Architecture) -> Architecture:
    """The same with as few blocks as show all there is in a stage: those behind them are the same again."""

    def enough(stage: Stage) -> int:
        return min(stage.depth, 2 * max(len(stage.token_mixing), len(stage.channel_mixing)))

    return replace(architecture, stages=tuple(replace(one, depth=enough(one)) for one in architecture.stages))


def parameters(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())


def channel_parameters(network: nn.Module) -> int:
    return sum(parameters(one) for one in network.modules() if isinstance(one, ChannelMixing))


def macs(network: nn.Module, image_size: int) -> float:
    """Multiply-adds of matrix products and convolutions for one image, counted by torch and not by this package."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, image_size, image_size, device="meta"))
    return counter.get_total_flops() / 2


@every_model
def test_parameters(name: str) -> None:
    row, network = PUBLISHED[name], built(name)
    assert parameters(network) == row.params
    if row.deployed:
        deployed = network.deployed()
        # The authors keep the batch norms of their channel MLPs.
        folded = channel_parameters(network) - channel_parameters(deployed)
        assert parameters(deployed) + folded == row.deployed[0]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in PUBLISHED]
)
def test_multiply_adds(name: str) -> None:
    row, network = PUBLISHED[name], built(name)
    counted = macs(network, row.image_size)
    top1 = "" if row.top1 is None else f"{row.top1:.2f} % ({row.training})"
    print(f"{name:18} {parameters(network):12,} params  {counted / 1e9:8.3f} G multiply-adds  {top1}")
    assert counted == pytest.approx(row.macs, rel=5e-3)
    if row.deployed:
        deployed = network.deployed()
        inference = macs(deployed, row.image_size)
        print(f"{'  deployed':18} {parameters(deployed):12,} params  {inference / 1e9:8.3f} G multiply-adds")
        assert inference == pytest.approx(row.deployed[1], rel=5e-3)


@every_family
def test_other_numbers_of_classes_change_the_head_only(name: str) -> None:
    spec = shallow(published(name))
    other = hollow(replace(spec, classes=7))
    assert parameters(hollow(spec)) - parameters(other) == (spec.classes - 7) * (spec.stages[-1].width + 1)


@every_family
def test_other_images_change_only_what_is_tied_to_the_grid(name: str) -> None:
    """Twice the side at the same patch size; positions and the weights of tied mixings grow, nothing else does."""
    spec = shallow(published(name))
    larger = replace(spec, image_size=2 * spec.image_size)
    network = hollow(larger)
    grown = {
        key
        for (key, before), (_, after) in zip(
            hollow(spec).state_dict().items(), network.state_dict().items(), strict=True
        )
        if before.shape != after.shape
    }
    tied = any(TOKEN_MIXINGS[one.name].tied_to_grid for stage in spec.stages for one in stage.token_mixing)
    assert {key for key in grown if ".token." not in key} <= {"positions"}
    assert tied or not {key for key in grown if ".token." in key}
    logits = network(torch.empty(2, 3, larger.image_size, larger.image_size, device="meta"))
    assert logits.shape == (2, spec.classes)


@every_family
@pytest.mark.parametrize("image_size", [28, 64])
def test_adapted_to_small_images(name: str, image_size: int) -> None:
    """Every admissible size works; the others are refused with the sizes that would do."""
    try:
        network = hollow(shallow(adapted(name, image_size=image_size, channels=1, classes=10)))
    except ValueError as refusal:
        assert re.search(r"(must|needs) .*, got .*(try|use)", str(refusal))  # noqa: PT017 - some sizes cannot be
        return
    assert network(torch.empty(3, 1, image_size, image_size, device="meta")).shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("mixer_s32", 18_591_624),
        ("mixer_s16", 18_015_264),
        ("mixer_b32", 59_524_428),
        ("mixer_b16", 59_111_472),
        ("mixer_l32", 205_914_264),
        ("mixer_l16", 207_171_168),
        ("mixer_h14", 431_069_952),
    ],
)
def test_mixers_without_the_head(name: str, params: int) -> None:
    network = built(name)
    assert parameters(network) - parameters(network.head) == params


@pytest.mark.parametrize(
    ("name", "params"),
    [("vit_s32", 22_878_184), ("vit_s16", 22_049_896), ("vit_b32", 88_222_696), ("vit_b16", 86_566_120)],
)
def test_vits_with_mean_pooling(name: str, params: int) -> None:
    spec = published(name)
    assert parameters(hollow(replace(spec, model=replace(spec.model, pooling="mean")))) == params


def test_mixers_have_no_positions_and_vits_have_a_class_token() -> None:
    mixer, vit = built("mixer_s32"), built("vit_s32")
    assert mixer.positions is None
    assert mixer.class_token is None
    assert vit.positions.shape == (1, 50, 384)
    assert vit.class_token.shape == (1, 1, 384)
    assert vit.stages[0][0].token.mixing.heads == 6


def test_the_page_has_these_figures() -> None:
    page = (Path(__file__).parents[1] / "docs" / "published.md").read_text()
    written = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", page, re.MULTILINE))
    assert written == {name: f"{row.params:,}" for name, row in PUBLISHED.items()}


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"a published model must be one of .*mixer_b16, .*; did you mean mixer_b16\?"):
        published("mixer_b_16")
