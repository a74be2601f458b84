"""Architectures that break a rule are refused before anything is built, each with the rule and what to do."""

from typing import Any

import pytest
import torch
from small_networks import ATTENTION, MLP, build

from explore.architecture.catalog import Mixing
from explore.architecture.network import check

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
        r"the grid must be even before each downsample, got 7 × 7 patches before downsample 1 of 1 "
        r"\(image_size 28, patch_size 4\); try patch_size 1, 2, 7, 14$",
    ),
    (
        {"image_size": 28, "patch_size": 2, "stages": [{}, {}, {}]},
        r"got 7 × 7 patches before downsample 2 of 2 .*; try patch_size 1, 7$",
    ),
    (
        {"image_size": 7, "patch_size": 1, "stages": [{}, {}]},
        r"before downsample 1 of 1 .*; use fewer stages or another image_size$",
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
    (
        {"positions": "learn"},
        r"positions must be one of auto, fixed, learned, none, got 'learn'; did you mean learned\?",
    ),
    (
        {"token_mixing": ATTENTION, "pooling": "class_token", "stages": [{}, {}]},
        r"pooling=class_token needs a network without downsample, got 1; use pooling=mean",
    ),
    (
        {"token_mixing": ATTENTION, "pooling": "class_token", "norm_after_pooling": True},
        r"norm_after_pooling needs pooling=mean, got class_token; leave it out",
    ),
    ({"gelu": "exact"}, r"gelu must be one of erf, tanh, got 'exact'"),
    ({"norm_eps": 0.0}, r"norm_eps must be above 0, got 0.0"),
    ({"drop_path_schedule": "linaer"}, r"drop_path_schedule must be one of linear, uniform, .* mean linear\?"),
    ({"stages": [{"downsample": True}]}, r"model.stages\[0\].downsample must be true or false, and false in the first"),
    (
        {"stages": [{}, {"width": 16, "downsample": False}]},
        r"a stage without downsample must keep the width, got 16 behind 8 in model.stages\[1\]; give both",
    ),
    ({"stages": [{"token_mixing": []}]}, r"model.stages\[0\].token_mixing must name a mixing, got an empty list"),
    (
        {"stages": [{"token_mixing": {"kernel": 3}}]},
        r"model.stages\[0\].token_mixing must be a name, a mapping with a name, or .* got kernel: 3; try \{name: mlp\}",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED_BY_THE_SPECIFICATION)
def test_specification_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


REFUSED_BY_THE_CHECK = [
    (
        {"token_mixing": MLP, "pooling": "class_token"},
        r"pooling=class_token needs a token_mixing that takes a class token \(attention.*\), got 'mlp'; use",
    ),
    ({"token_mixing": Mixing(name="atention")}, r"token_mixing must be one of .*; did you mean attention\?"),
    ({"stages": [{"channel_mixing": "swiglo"}]}, r"channel_mixing must be one of .*; did you mean swiglu\?"),
    (
        {"stages": [{}, {"token_mixing": {"name": "attention", "heads": 3}}]},
        r"heads must divide width, got 3 and 8; try 1, 2, 4, 8",
    ),
    ({"block": "prenorm"}, r"block must be one of .*, got 'prenorm'; did you mean pre_norm\?"),
    ({"norm": "layernorm"}, r"norm must be one of affine, batch, group, layer, rms, got 'layernorm'"),
    ({"final_norm": "non"}, r"final_norm must be one of affine, auto, .*; did you mean none\?"),
    ({"block": "convmixer", "activation": "glu"}, r"activation must be one of gelu, .*; did you mean gelu\?"),
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
    check(build(width=100_000, depth=1, classes=1000, positions="learned"))
