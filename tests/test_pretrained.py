"""Official checkpoints give the official outputs, whatever their layout, and what does not fit is said by name.

The Mixer is held against a plain NumPy implementation of its published code, on checkpoints in both of its layouts.
"""

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from explore import train
from explore.architecture.catalog import Mixing
from explore.architecture.families.isotropic_layouts import MIXER
from explore.architecture.families.layout import Layout
from explore.architecture.network import Network
from explore.architecture.pretrained import check_pretrained, load_pretrained, names
from explore.architecture.spec import Architecture, Model, architecture
from explore.command import _run
from explore.training.checkpoint import CHECKPOINT

PATCH, SIDE, WIDTH, DEPTH, HIDDEN, CLASSES = 4, 4, 6, 2, 3, 5
TOKENS = SIDE**2
Arrays = dict[str, np.ndarray[Any, Any]]


def spec(image_size: int = PATCH * SIDE, classes: int = CLASSES, **options: Any) -> Architecture:
    model = Model.of({"patch_size": PATCH, "depth": DEPTH, "width": WIDTH, "gelu": "tanh"} | options.pop("model", {}))
    token = Mixing(name="mlp", options={"expansion": HIDDEN / WIDTH} | options)
    return architecture(model, token, Mixing(name="mlp"), image_size=image_size, channels=3, classes=classes)


def flax_checkpoint() -> Arrays:
    """A Mixer with random weights under the names and in the shapes of the official files."""
    draw = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"stem/kernel": (PATCH, PATCH, 3, WIDTH), "stem/bias": (WIDTH,)}
    for index in range(DEPTH):
        block = f"MixerBlock_{index}/"
        for norm in (0, 1):
            shapes |= {f"{block}LayerNorm_{norm}/scale": (WIDTH,), f"{block}LayerNorm_{norm}/bias": (WIDTH,)}
        for mixing, inner, hidden in (("token", TOKENS, HIDDEN), ("channel", WIDTH, 4 * WIDTH)):
            dense = f"{block}{mixing}_mixing/Dense_"
            shapes |= {f"{dense}0/kernel": (inner, hidden), f"{dense}0/bias": (hidden,)}
            shapes |= {f"{dense}1/kernel": (hidden, inner), f"{dense}1/bias": (inner,)}
    shapes |= {"pre_head_layer_norm/scale": (WIDTH,), "pre_head_layer_norm/bias": (WIDTH,)}
    shapes |= {"head/kernel": (WIDTH, CLASSES), "head/bias": (CLASSES,)}
    return {name: draw.normal(size=shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}


def before_linen(arrays: Arrays) -> Arrays:
    renamed = {}
    for name, array in arrays.items():
        old = name.replace("stem/", "embedding/").replace("pre_head_layer_norm", "Mixer/encoder_norm")
        old = old.replace("MixerBlock_", "Mixer/encoderblock_").replace("_mixing/", "_mixing_phase_0/")
        for dense in (0, 1):
            for kind in ("kernel", "bias"):
                old = old.replace(f"/Dense_{dense}/{kind}", f"/{kind}{dense + 1}")
        renamed[old] = array
    return renamed


def numpy_mixer(arrays: Arrays, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The published Flax code in NumPy: batch × height × width × 3 to logits."""

    def layer_norm(x: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-6)
        return scaled * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]

    def mlp(x: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
        hidden = x @ arrays[f"{name}/Dense_0/kernel"] + arrays[f"{name}/Dense_0/bias"]
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        return hidden @ arrays[f"{name}/Dense_1/kernel"] + arrays[f"{name}/Dense_1/bias"]

    rows = []
    for row in range(SIDE):
        for column in range(SIDE):
            patch = images[:, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)]
            rows.append(np.einsum("bhwc,hwcd->bd", patch, arrays["stem/kernel"]) + arrays["stem/bias"])
    x = np.stack(rows, 1)
    for index in range(DEPTH):
        block = f"MixerBlock_{index}"
        x = x + mlp(layer_norm(x, f"{block}/LayerNorm_0").swapaxes(1, 2), f"{block}/token_mixing").swapaxes(1, 2)
        x = x + mlp(layer_norm(x, f"{block}/LayerNorm_1"), f"{block}/channel_mixing")
    return layer_norm(x, "pre_head_layer_norm").mean(1) @ arrays["head/kernel"] + arrays["head/bias"]


def saved(folder: Path, arrays: Arrays) -> Path:
    path = folder / "Mixer-X_4.npz"
    np.savez(path, **arrays)
    return path


def images(size: int = PATCH * SIDE) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("layout", "rename"), [("mixer", dict), ("mixer_before_linen", before_linen)])
def test_mixer_checkpoint_gives_the_official_logits(
    layout: str, rename: Callable[[Arrays], Arrays], tmp_path: Path
) -> None:
    arrays, network = flax_checkpoint(), Network(spec()).eval()
    loaded = load_pretrained(network, saved(tmp_path, rename(arrays)))
    assert (loaded.layout, loaded.enlarged, loaded.fresh) == (layout, (), ())
    expected = numpy_mixer(arrays, images().permute(0, 2, 3, 1).numpy())
    torch.testing.assert_close(network(images()), torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5)


def test_file_of_torch_with_nested_tensors_and_own_names(tmp_path: Path) -> None:
    source, network = Network(spec()).eval(), Network(spec()).eval()
    torch.save({"epoch": 3, "args": Namespace(lr=0.1), "state_dict": source.state_dict()}, tmp_path / "own.pth")
    assert load_pretrained(network, tmp_path / "own.pth").words == (
        "the layout is explore; all tensors are taken as they are"
    )
    assert torch.equal(network(images()), source(images()))


def test_checkpoint_of_our_own_training(tmp_path: Path) -> None:
    source, network = Network(spec()).eval(), Network(spec()).eval()
    torch.save({"state_dict": {f"network.{key}": one for key, one in source.state_dict().items()}}, tmp_path / "a.ckpt")
    assert load_pretrained(network, tmp_path / "a.ckpt").layout == "explore"
    assert torch.equal(network(images()), source(images()))


def test_other_classes_get_a_new_head(tmp_path: Path) -> None:
    network = Network(spec(classes=7))
    head = network.head.weight.clone()
    loaded = load_pretrained(network, saved(tmp_path, flax_checkpoint()))
    assert loaded.fresh == ("head.weight", "head.bias")
    assert torch.equal(network.head.weight, head)
    assert network.stages[0][0].token.norm.weight.abs().max() != 1


@pytest.mark.parametrize("factor", [2, 3])
def test_larger_image_is_mixed_square_by_square(factor: int, tmp_path: Path) -> None:
    """The block-diagonal rule: before pooling, each square of a larger image is treated as an image of its own."""
    path, size = saved(tmp_path, flax_checkpoint()), PATCH * SIDE
    small = Network(spec()).eval()
    large = Network(spec(factor * size, expansion=factor**2 * HIDDEN / WIDTH)).eval()
    load_pretrained(small, path)
    loaded = load_pretrained(large, path)
    assert loaded.words.startswith("the layout is mixer; stages.0.0.token.mixing.expand.weight, ")
    assert loaded.words.endswith("and 3 more become block-diagonal, for more patches")
    assert loaded.enlarged == tuple(
        f"stages.0.{block}.token.mixing.{layer}.{kind}"
        for block in range(DEPTH)
        for layer in ("expand", "contract")
        for kind in ("weight", "bias")
    )
    given = images(factor * size)
    squares = given.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 1, 4, 5)
    pooled = torch.stack([small.norm(small.stages(small.stem(one))).mean(1) for one in squares.flatten(1, 2).unbind(1)])
    torch.testing.assert_close(large(given), small.head(pooled.mean(0)), atol=1e-5, rtol=1e-5)


def test_check_says_the_same_without_a_network(tmp_path: Path) -> None:
    path = saved(tmp_path, flax_checkpoint())
    assert check_pretrained(spec(), path) == load_pretrained(Network(spec()), path)


def test_names_are_public() -> None:
    found = names(Network(spec()), MIXER)
    assert found["stages.0.1.token.mixing.expand.weight"] == "MixerBlock_1/token_mixing/Dense_0/kernel"
    assert set(found.values()) == set(flax_checkpoint())


def without(arrays: Arrays, name: str) -> Arrays:
    return {key: array for key, array in arrays.items() if key != name}


REFUSED = [
    (
        lambda arrays: without(arrays, "MixerBlock_1/token_mixing/Dense_0/bias"),
        {},
        r"Mixer-X_4.npz must have every tensor .*, got none named MixerBlock_1/token_mixing/Dense_0/bias; try the",
    ),
    (
        lambda arrays: arrays | {"MixerBlock_2/LayerNorm_0/scale": arrays["stem/bias"]},
        {},
        r"must fit the network, got tensors it has no place for: MixerBlock_2/LayerNorm_0/scale; try the model=",
    ),
    (
        lambda arrays: arrays,
        {"image_size": 2 * PATCH * SIDE},
        r"MixerBlock_0/token_mixing/Dense_0/kernel must have the shape of stages.0.0.token.mixing.expand.weight, got "
        r"3 × 64 and 3 × 16; try .* for K times the image side, K² times the token_mixing.expansion",
    ),
    (
        lambda arrays: arrays,
        {"model": {"depth": 1}},
        r"got tensors it has no place for: MixerBlock_1/LayerNorm_0/bias, .* and 7 more; try the model=",
    ),
    (
        lambda arrays: {"a": arrays["stem/bias"]},
        {},
        r"must have the layout of one of explore, .*, got tensors such as a",
    ),
]


@pytest.mark.parametrize(("change", "options", "message"), REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_changes(
    change: Callable[[Arrays], Arrays], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    network = Network(spec(**options))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_pretrained(network, saved(tmp_path, change(flax_checkpoint())))
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrained must be a checkpoint \(.npz, .pth\), got .*none.npz: .*No such"):
        load_pretrained(Network(spec()), tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(ValueError, match=r"pretrained must be a checkpoint \(.npz, .pth\), got .*cut.npz"):
        load_pretrained(Network(spec()), tmp_path / "cut.npz")
    (tmp_path / "words.pth").write_text("# Words\n")
    with pytest.raises(ValueError, match=r"words.pth: it cannot be read as one \(UnpicklingError\)$"):
        load_pretrained(Network(spec()), tmp_path / "words.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"pretrained must hold named tensors, got list in .*list.pth"):
        load_pretrained(Network(spec()), tmp_path / "list.pth")


def test_layout_that_lacks_a_name_says_which() -> None:
    with pytest.raises(ValueError, match=r"the layout must name every tensor of the network, got none for stem.*more"):
        names(Network(spec()), Layout(outside={}, block={}))
    assert isinstance(Network(spec()).stages, nn.Sequential)


FINE_TUNING = (
    "model=isotropic",
    "data=digits",
    f"model.width={WIDTH}",
    f"model.depth={DEPTH}",
    "model.patch_size=2",
    "model.gelu=tanh",
    "training.epochs=1",
    "training.batch_size=256",
    "training.threads=1",
    "training.lr=1e-9",
    "throughput=off",
    "tracking.mode=disabled",
)


def checkpoint_for_digits() -> Arrays:
    """For gray images of 8 × 8 pixels and patches of 2 × 2."""
    arrays = flax_checkpoint()
    return arrays | {"stem/kernel": arrays["stem/kernel"][:2, :2, :1]}


def test_training_begins_with_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = checkpoint_for_digits()
    path = saved(tmp_path, arrays)
    status = _run(train.main, [*FINE_TUNING, f"pretrained={path}", "outputs=results"])
    words = f"explore: {path}: the layout is mixer; head.weight, head.bias start anew\n"
    assert (status, capsys.readouterr().err) == (0, words)
    (trained,) = (tmp_path / "results" / "train").glob(f"*/**/{CHECKPOINT}")
    weights = torch.load(trained, map_location="cpu", weights_only=False)["state_dict"]
    for index in range(DEPTH):
        (found,) = (one for key, one in weights.items() if key.endswith(f"0.{index}.channel.mixing.expand.weight"))
        expected = arrays[f"MixerBlock_{index}/channel_mixing/Dense_0/kernel"].T
        torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.width=8"], r"explore: Mixer-X_4.npz: stem/kernel must have the shape of stem.projection.weight, got "),
        (["token_mixing=attention"], r"explore: Mixer-X_4.npz must have .*; try the model= of this checkpoint"),
        (["pretrained=none.npz"], r"explore: pretrained must be a checkpoint \(.npz, .pth\), got none.npz: .*No such"),
    ],
)
def test_what_does_not_fit_is_one_line_of_the_command(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, checkpoint_for_digits())
    given = [] if arguments[0].startswith("pretrained") else [f"pretrained={path}"]
    assert _run(train.main, [*FINE_TUNING, *given, *arguments]) == 2
    refusal = capsys.readouterr().err
    assert re.match(message, refusal)
    assert refusal.count("\n") == 1
