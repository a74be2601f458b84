"""Seeds that are trained together come out as each would alone: curve, weights, checkpoint, and what goes on from it.

python -m pytest tests/test_together.py
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from digit_batches import digit_batches
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from explore.architecture.catalog import Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.data.loader import Batches
from explore.data.options import Augmentation
from explore.training.checkpoint import CHECKPOINT, read
from explore.training.fit import ReportEpochOf, fit, fit_together
from explore.training.module import Diverged
from explore.training.options import Training
from explore.training.pace import step_seconds
from explore.training.together import Classifiers, clip_each, losses, quiet_vmap, stacked
from explore.training.trained import accuracy

SHORT = Training(epochs=2, batch_size=256, lr=5e-3, precision="32-true", accelerator="cpu")
SEEDS = (3, 0)
KEEP_STATISTICS = {"repmlp", "external_attention", "hire", "sparse", "wave"}
Curve = list[dict[str, float]]


def network(seed: int, token: str = "mlp", channel: str = "mlp", **options: Any) -> Network:
    torch.manual_seed(seed)
    model = Model.of({"patch_size": 2, "depth": 2, "width": 16} | options)
    return Network(architecture(model, Mixing(name=token), Mixing(name=channel), image_size=8, channels=1, classes=10))


def batches(seed: int, augmentation: Augmentation | None = None, *, training: bool = True) -> Batches:
    split = "train" if training else "validation"
    options = {"augmentation": augmentation, "seed": seed, "shuffle": training, "drop_last": training}
    return digit_batches(SHORT.batch_size, split=split, **options)


def alone(folder: Path, recipe: Training, seed: int, augmentation: Augmentation | None, **options: Any) -> Curve:
    folder.mkdir(parents=True, exist_ok=True)
    loaders = batches(seed, augmentation), batches(seed, training=False)
    return fit(network(seed, **options), *loaders, replace(recipe, seed=seed), folder, lambda record: None)


def at_once(
    folder: Path,
    recipe: Training,
    augmentation: Augmentation | None = None,
    report: ReportEpochOf = lambda place, record: None,
    networks: list[nn.Module] | None = None,
    **options: Any,
) -> list[Curve]:
    folders = [folder / str(seed) for seed in SEEDS]
    for one in folders:
        one.mkdir(parents=True, exist_ok=True)
    networks = networks or [network(seed, **options) for seed in SEEDS]
    train = [batches(seed, augmentation) for seed in SEEDS]
    return fit_together(networks, train, batches(0, training=False), recipe, folders, report)


def check_alike(mine: Any, theirs: Any, path: str = "") -> None:
    """The same keys, types and shapes everywhere, and numbers that differ by rounding."""
    assert type(mine) is type(theirs), path
    if isinstance(mine, Mapping):
        assert list(mine) == list(theirs), path
        for key in mine:
            if key != "seconds":
                check_alike(mine[key], theirs[key], f"{path}.{key}")
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(theirs), path
        for place, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            check_alike(one, other, f"{path}[{place}]")
    elif isinstance(mine, Tensor):
        size = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-4 * size, msg=lambda text: f"{path}: {text}")
    elif isinstance(mine, float):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=3e-3), path
    else:
        assert mine == theirs, path


def laid_out(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with weights, and each kind of moment, in one row beside their shapes.

    Some gradients are zero but for rounding, which AdamW makes steps of: alone they would be compared with nothing.
    """
    (optimizer,) = checkpoint["optimizer_states"]
    state = {
        kind: row([one[kind] for one in optimizer["state"].values()]) for kind in ("step", "exp_avg", "exp_avg_sq")
    }
    weights = {
        name: (list(checkpoint[name]), row(list(checkpoint[name].values())))
        for name in ("state_dict", "current_model_state")
        if name in checkpoint
    }
    return {**checkpoint, **weights, "optimizer_states": [{**optimizer, "state": state}]}


def row(tensors: list[Tensor]) -> tuple[list[torch.Size], Tensor]:
    return [one.shape for one in tensors], torch.cat([one.flatten() for one in tensors])


@pytest.mark.parametrize(
    ("changes", "augmentation", "options"),
    [
        ({"ema": 0.9}, Augmentation(shift=1, flip=True, mixup=0.3, erasing=0.2), {}),
        ({"clip_norm": 0.05, "schedule": "linear"}, None, {"token": "s2", "channel": "swiglu", "width": 24}),
        pytest.param(
            {"clip_norm": 0.0, "weight_decay": 0.5, "rung": 2},
            Augmentation(cutmix=1.0),
            {"token": "attention"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_checkpoints_are_those_of_seeds_trained_alone(
    tmp_path: Path, changes: dict[str, Any], augmentation: Augmentation | None, options: dict[str, Any]
) -> None:
    recipe = replace(SHORT, **changes)
    curves = at_once(tmp_path / "together", recipe, augmentation, **options)
    for seed, curve in zip(SEEDS, curves, strict=True):
        check_alike(curve, alone(tmp_path / "alone" / str(seed), recipe, seed, augmentation, **options))
        mine, theirs = (read(tmp_path / how / str(seed) / CHECKPOINT) for how in ("together", "alone"))
        check_alike(laid_out(mine), laid_out(theirs))
        assert [path.name for path in (tmp_path / "together" / str(seed)).iterdir()] == [CHECKPOINT]
    assert curves[0] != curves[1]


@pytest.mark.parametrize("token", sorted(set(TOKEN_MIXINGS) - KEEP_STATISTICS))
def test_gradients_of_token_mixings_are_those_of_each_alone(token: str) -> None:
    check_gradients([network(seed, token, depth=1) for seed in SEEDS])


@pytest.mark.parametrize("channel", sorted(CHANNEL_MIXINGS))
def test_gradients_of_channel_mixings_are_those_of_each_alone(channel: str) -> None:
    check_gradients([network(seed, "mlp", channel, depth=1) for seed in SEEDS])


def test_gradients_of_mlps_that_alone_take_a_step_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explore.architecture.mlp_gradient.fit_into_cache", lambda values, itemsize: False)
    check_gradients([network(seed) for seed in SEEDS])


def check_gradients(networks: list[Network]) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(networks), 4, 1, 8, 8, generator=generator)
    targets = torch.randint(10, (len(networks), 4), generator=generator)
    whole = stacked(networks)
    with quiet_vmap():
        losses(whole, (images, targets), 0.1).sum().backward()
    for place, one in enumerate(networks):
        nn.functional.cross_entropy(one(images[place]), targets[place], label_smoothing=0.1).backward()
        size = max(float(parameter.grad.abs().max()) for parameter in one.parameters() if parameter.grad is not None)
        for (name, mine), theirs in zip(whole.named_parameters(), one.parameters(), strict=True):
            assert (mine.grad is None) == (theirs.grad is None), name
            if mine.grad is not None and theirs.grad is not None:
                assert float((mine.grad[place] - theirs.grad).abs().max()) <= 1e-5 * size, name


class Stopped(Exception):  # noqa: N818 - not an error
    """Raised by a report, as a person or a crash would stop a run."""


def test_each_goes_on_alone_from_where_all_were_stopped(tmp_path: Path) -> None:
    recipe = replace(SHORT, ema=0.9)

    def stop(place: int, record: Mapping[str, float]) -> None:
        if record["epoch"] == 1 and place == 1:
            raise Stopped

    with pytest.raises(Stopped):
        at_once(tmp_path / "together", recipe, report=stop)
    for seed in SEEDS:
        curve = alone(tmp_path / "together" / str(seed), recipe, seed, None)
        check_alike(curve, alone(tmp_path / "alone" / str(seed), recipe, seed, None))
        reached = accuracy(network(9), batches(seed, training=False), recipe, tmp_path / "together" / str(seed))
        assert reached == pytest.approx(curve[-1]["val_accuracy"])


def test_one_that_diverges_leaves_the_others_as_they_would_be(tmp_path: Path) -> None:
    reported: list[tuple[int, float]] = []
    curves = at_once(
        tmp_path,
        SHORT,
        networks=[broken(network(SEEDS[0])), network(SEEDS[1])],
        report=lambda place, record: reported.append((place, record["epoch"])),
    )
    assert curves[0] == []
    assert reported == [(1, 1), (1, 2)]
    assert not list((tmp_path / str(SEEDS[0])).iterdir())
    check_alike(curves[1], alone(tmp_path / "alone", SHORT, SEEDS[1], None))


def test_it_ends_when_all_have_diverged(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="no loss is a number in epoch 1"):
        at_once(tmp_path, SHORT, networks=[broken(network(seed)) for seed in SEEDS])


def test_it_ends_when_no_validation_loss_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Classifiers._add

    def spoilt(self: Classifiers, batch: tuple[Tensor, Tensor]) -> None:
        add(self, batch)
        self._validation[-1] = self._validation[-1] * torch.nan

    monkeypatch.setattr(Classifiers, "_add", spoilt)
    with pytest.raises(Diverged, match="no loss is a number in epoch 1"):
        at_once(tmp_path, SHORT)


def broken(one: Network) -> Network:
    with torch.no_grad():
        one.head.weight[0, 0] = torch.inf
    return one


@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4),
    st.floats(1e-3, 1e3),
    st.integers(0, 2**31),
)
def test_each_gradient_is_clipped_by_its_own_norm(shapes: list[list[int]], most: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([1e-3, 1.0, 1e3, 0.0])
    whole = [nn.Parameter(torch.zeros(len(scales), *shape)) for shape in shapes]
    for one in whole:
        one.grad = torch.randn(one.shape, generator=generator) * scales.view(-1, *[1] * (one.ndim - 1))
    each = [[nn.Parameter(one[place].detach().clone()) for one in whole] for place in range(len(scales))]
    for place, parameters in enumerate(each):
        for mine, one in zip(parameters, whole, strict=True):
            assert one.grad is not None
            mine.grad = one.grad[place].clone()
        nn.utils.clip_grad_norm_(parameters, most)
    clip_each(whole, most)
    for place, parameters in enumerate(each):
        for mine, one in zip(parameters, whole, strict=True):
            assert one.grad is not None
            torch.testing.assert_close(one.grad[place], mine.grad)


@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_steps_are_timed_in_turn(precision: str) -> None:
    rounds = timed([network(seed) for seed in SEEDS], precision)
    assert 2 <= len(rounds) <= 5
    assert all(alone > 0 and together > 0 for alone, together in rounds)


class Otherwise(nn.Module):
    """Computes so many times as much where several are worked on at once."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.times = times

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.layer(images.flatten(1))
        return found * self.times if torch._C._functorch.is_batchedtensor(found) else found


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ([network(seed, drop_path=0.5) for seed in SEEDS], "where they draw no random numbers in training"),
        (
            [network(seed, norm="batch") for seed in SEEDS],
            "where weights are all they learn, got .*num_batches",
        ),
        ([Otherwise(2.0) for _ in SEEDS], "gradients must be those of each network alone, got a difference of"),
        (
            [Otherwise(torch.nan) for _ in SEEDS],
            "gradients must be those of each network alone, got a difference of nan",
        ),
    ],
    ids=["stochastic depth", "batch norm", "another result", "no number"],
)
def test_what_would_not_come_out_the_same_is_refused(networks: list[nn.Module], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        timed(networks)


def timed(networks: list[Any], precision: str = "32-true") -> list[tuple[float, float]]:
    recipe = replace(SHORT, precision=precision)
    return step_seconds(networks, [batches(seed) for seed in SEEDS], recipe, torch.device("cpu"), nullcontext)
