"""The published models have the published sizes: parameters to the unit, multiply-adds to the printed digits.

Everything is built on the meta device, so that the largest costs no memory. Run with `-s` to see the table.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.network import Network
from explore.architecture.published import PUBLISHED, published
from explore.architecture.spec import Architecture

every_model = pytest.mark.parametrize("name", PUBLISHED)


def hollow(architecture: Architecture) -> Network:
    with torch.device("meta"):
        return Network(architecture).eval()


def count(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())


@every_model
def test_parameters_and_multiply_adds(name: str) -> None:
    row = PUBLISHED[name]
    network = hollow(published(name))
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, row.image_size, row.image_size, device="meta"))
    macs = counter.get_total_flops() / 2
    print(
        f"{name:10} {count(network):12,} params  {macs / 1e9:8.3f} G multiply-adds  {row.top1:.2f} % ({row.training})"
    )
    assert count(network) == row.params
    assert macs == pytest.approx(row.macs, rel=5e-4)


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
    network = hollow(published(name))
    assert count(network) - count(network.head) == params


@pytest.mark.parametrize(
    ("name", "params"),
    [("vit_s32", 22_878_184), ("vit_s16", 22_049_896), ("vit_b32", 88_222_696), ("vit_b16", 86_566_120)],
)
def test_vits_with_mean_pooling(name: str, params: int) -> None:
    assert count(hollow(replace(published(name), pooling="mean"))) == params


def test_mixers_have_no_positions_and_vits_have_a_class_token() -> None:
    mixer, vit = hollow(published("mixer_s32")), hollow(published("vit_s32"))
    assert mixer.positions is None
    assert mixer.class_token is None
    assert vit.positions.shape == (1, 50, 384)
    assert vit.class_token.shape == (1, 1, 384)
    assert vit.stages[0][0].token.mixing.heads == 6


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"a published model must be one of mixer_b16, .*; did you mean mixer_b16\?"):
        published("mixer_b_16")
