"""Official checkpoints fit the published models: every tensor, by the names and shapes that the authors' code has.

`official_names` holds those of one small model for each layout; `[0-3]` in a name stands for each of these numbers.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from explore.architecture.layouts import LAYOUTS
from explore.architecture.pretrained import check_pretrained
from explore.architecture.published import PUBLISHED, published

FILES = sorted((Path(__file__).parent / "official_names").glob("*.json"))
WITHOUT_OFFICIAL_CODE = {"s2mlp", "s2mlpv2", "eamlp"}


def official(path: Path) -> dict[str, list[int]]:
    """Names and shapes, written out."""
    shapes: dict[str, list[int]] = {}
    for pattern, shape in json.loads(path.read_text())["tensors"].items():
        head, *rest = re.split(r"\[(\d+)-(\d+)\]", pattern)
        written = [head]
        for first, last, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            written = [f"{name}{number}{text}" for name in written for number in range(int(first), int(last) + 1)]
        shapes |= dict.fromkeys(written, shape)
    return shapes


def saved(folder: Path, shapes: dict[str, list[int]], *, arrays: bool) -> Path:
    """A checkpoint with one number repeated in each tensor, which takes no room in a file of torch."""
    path = folder / ("official.npz" if arrays else "official.pth")
    if arrays:
        np.savez(path, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    else:
        torch.save({"state_dict": {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}}, path)
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_official_tensor_has_its_place(path: Path, tmp_path: Path) -> None:
    loaded = check_pretrained(
        published(json.loads(path.read_text())["model"]), saved(tmp_path, official(path), arrays=path.stem == "mixer")
    )
    assert (loaded.layout, loaded.enlarged, loaded.fresh) == (path.stem, (), ())


def test_every_layout_is_held_against_official_names() -> None:
    # The old names of the Mixer are in no code that runs; `test_pretrained` has them.
    assert {path.stem for path in FILES} == set(LAYOUTS) - {"mixer_before_linen"}


def test_every_family_has_a_layout() -> None:
    models = {json.loads(path.read_text())["model"] for path in FILES}
    families = {PUBLISHED[name].paper for name in models}
    lacking = {name.partition("_")[0] for name, row in PUBLISHED.items() if row.paper not in families}
    assert lacking == WITHOUT_OFFICIAL_CODE


REFUSED: list[tuple[str, Any, str]] = [
    ("vip", lambda shapes: shapes | {"network.9.0.norm1.weight": [192]}, r"has no place for: network.9.0.norm1.weight"),
    (
        "vip",
        lambda shapes: {name: shape for name, shape in shapes.items() if not name.startswith("network.1.")},
        r"got none named network.1.proj.bias, network.1.proj.weight; try the model=",
    ),
    (
        "asmlp",
        lambda shapes: shapes | {"layers.0.downsample.norm.weight": [386]},
        r"layers.0.downsample.norm.weight must have the shape of stages.1.0.norm.weight, got 384 and 386; try",
    ),
    (
        "hiremlp",
        lambda shapes: shapes | {"network.0.0.attn.mlp_h1.weight": [32, 192, 1, 1]},
        r"mlp_h1.weight must have the shape of stages.0.0.token.mixing.along_height.expand.weight, got 32 × 256 and 32",
    ),
    (
        "resmlp",
        lambda shapes: {f"x.{name}": shape for name, shape in shapes.items()},
        r"must have the layout of one of",
    ),
]


@pytest.mark.parametrize(("layout", "change", "message"), REFUSED)
def test_what_does_not_fit_is_refused_by_name(layout: str, change: Any, message: str, tmp_path: Path) -> None:
    (path,) = (one for one in FILES if one.stem == layout)
    with pytest.raises(ValueError, match=message):
        check_pretrained(
            published(json.loads(path.read_text())["model"]), saved(tmp_path, change(official(path)), arrays=False)
        )


def test_names_of_parallel_training_are_read(tmp_path: Path) -> None:
    (path,) = (one for one in FILES if one.stem == "gmlp_timm")
    shapes = {f"module.{name}": shape for name, shape in official(path).items()}
    assert check_pretrained(published("gmlp_ti16"), saved(tmp_path, shapes, arrays=False)).layout == "gmlp_timm"
