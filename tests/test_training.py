"""Training learns, repeats itself to the bit, goes on from any epoch as if never stopped, and ends when it diverges.

python -m pytest tests/test_training.py
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.data.dataset import load
from explore.data.loader import Batches
from explore.data.options import Augmentation, Digits
from explore.training.checkpoint import CHECKPOINT, read
from explore.training.compiling import Compiling
from explore.training.fit import fit
from explore.training.module import Classifier, Diverged
from explore.training.optimizer import averaging, make_optimizer, rate
from explore.training.options import Training
from explore.training.trained import accuracy, trained_weights

SHORT = Training(epochs=3, batch_size=256, lr=5e-3, precision="32-true", accelerator="cpu", rung=1)
Curve = list[dict[str, float]]


class Stopped(Exception):  # noqa: N818 - not an error
    """Raised by a report, as a person or a crash would stop a run."""


def network(
    seed: int = 0, *, drop_path: float = 0.0, width: int = 16, mixing: str = "mlp", pooling: str = "mean"
) -> Network:
    torch.manual_seed(seed)
    model = Model(patch_size=2, depth=2, width=width, drop_path=drop_path, pooling=pooling)
    mixings = Mixing(name=mixing), Mixing(name="mlp")
    return Network(architecture(model, *mixings, image_size=8, channels=1, classes=10))


def batches(recipe: Training, augmentation: Augmentation | None = None) -> tuple[Batches, Batches]:
    digits = load(Digits())

    def of(split: str, augmented: Augmentation | None) -> Batches:
        return Batches(
            getattr(digits, split),
            recipe.batch_size,
            device="cpu",
            mean=digits.mean,
            std=digits.std,
            classes=10,
            augmentation=augmented,
            seed=recipe.seed,
            shuffle=split == "train",
            drop_last=split == "train",
        )

    return of("train", augmentation), of("validation", None)


def train(
    folder: Path,
    recipe: Training = SHORT,
    *,
    augmentation: Augmentation | None = None,
    drop_path: float = 0.0,
    report: Callable[[Mapping[str, float]], None] = lambda record: None,
    until: int | None = None,
) -> Curve:
    folder.mkdir(exist_ok=True)
    loaders = batches(recipe, augmentation)
    return fit(network(recipe.seed, drop_path=drop_path), *loaders, recipe, folder, report, until=until)


def comparable(curve: Curve) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in curve]


def test_digits_are_learned(tmp_path: Path) -> None:
    recipe = replace(SHORT, epochs=6, batch_size=64, lr=1e-2)
    curve = fit(network(width=32), *batches(recipe), recipe, tmp_path, lambda record: None)
    assert [record["epoch"] for record in curve] == list(range(1, 7))
    assert curve[-1]["val_accuracy"] > 0.85
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert curve[-1]["val_loss"] < curve[0]["val_loss"]
    assert all(record["seconds"] > 0 for record in curve)
    assert max(record["lr"] for record in curve) <= recipe.lr


def test_seed_decides_the_curve(tmp_path: Path) -> None:
    augmentation = Augmentation(shift=1, mixup=0.2)
    first = train(tmp_path / "a", augmentation=augmentation, drop_path=0.2)
    torch.rand(7)  # what the process drew before must not matter
    again = train(tmp_path / "b", augmentation=augmentation, drop_path=0.2)
    other = train(tmp_path / "c", replace(SHORT, seed=1), augmentation=augmentation, drop_path=0.2)
    assert comparable(first) == comparable(again)
    assert comparable(first) != comparable(other)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_run_is_the_uninterrupted_one(tmp_path: Path, ema: float, stop: int) -> None:
    recipe = replace(SHORT, ema=ema)
    options = {"augmentation": Augmentation(shift=1, flip=True, mixup=0.3, erasing=0.2), "drop_path": 0.3}
    whole = train(tmp_path / "whole", recipe, **options)  # type: ignore[arg-type]

    def stopper(record: Mapping[str, float]) -> None:
        if record["epoch"] == stop:
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path / "parts", recipe, report=stopper, **options)  # type: ignore[arg-type]
    reported: Curve = []
    curve = train(tmp_path / "parts", recipe, report=lambda one: reported.append(dict(one)), **options)  # type: ignore[arg-type]
    assert comparable(curve) == comparable(reported) == comparable(whole)
    expected = trained_weights(tmp_path / "whole")
    assert all(torch.equal(weight, expected[name]) for name, weight in trained_weights(tmp_path / "parts").items())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_in_parts_is_the_training_at_once(tmp_path: Path, ema: float) -> None:
    recipe = replace(SHORT, ema=ema)
    whole = train(tmp_path / "whole", recipe)
    for until, trained in ((1, 1), (2, 2), (2, 2), (1, 2)):
        assert len(train(tmp_path / "parts", recipe, until=until)) == trained
    assert comparable(train(tmp_path / "parts", recipe)) == comparable(whole)
    expected = trained_weights(tmp_path / "whole")
    assert all(torch.equal(weight, expected[name]) for name, weight in trained_weights(tmp_path / "parts").items())


def test_finished_run_reports_its_whole_curve_again_and_trains_no_more(tmp_path: Path) -> None:
    whole = train(tmp_path)
    before = (tmp_path / CHECKPOINT).stat().st_mtime_ns
    reported: Curve = []
    assert train(tmp_path, report=lambda one: reported.append(dict(one))) == whole == reported
    assert (tmp_path / CHECKPOINT).stat().st_mtime_ns == before


def test_weights_that_are_evaluated_are_those_that_are_saved(tmp_path: Path) -> None:
    recipe = replace(SHORT, ema=0.95)
    curve = train(tmp_path, recipe)
    _, validation = batches(recipe)
    assert accuracy(network(seed=5), validation, recipe, tmp_path) == pytest.approx(curve[-1]["val_accuracy"], abs=1e-6)
    checkpoint = read(tmp_path / CHECKPOINT)
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert any(not torch.equal(averaged[name], current[name]) for name in averaged)


def test_average_follows_its_formula(tmp_path: Path) -> None:
    recipe = replace(SHORT, epochs=1, batch_size=512, ema=0.5)  # two steps
    train(tmp_path, recipe)
    start = network().state_dict()
    plain = train_states(replace(recipe, ema=0.0))
    averaged = trained_weights(tmp_path)
    # Lightning's average begins with the weights after the first step.
    assert len(plain) == 2
    for name, weight in averaged.items():
        bare = name.removeprefix("network.")
        candidates = [plain[0][bare], start[bare]]
        decay = averaging(1, recipe)
        expected = [decay * one + (1 - decay) * plain[1][bare] for one in candidates]
        assert any(torch.allclose(weight, one, atol=1e-6) for one in expected), name


def test_average_of_a_network_with_indices_is_evaluated_with_them(tmp_path: Path) -> None:
    recipe = replace(SHORT, epochs=2, ema=0.9)
    start = network(mixing="s2")
    curve = fit(start, *batches(recipe), recipe, tmp_path, lambda record: None)
    _, validation = batches(recipe)
    again = accuracy(network(seed=5, mixing="s2"), validation, recipe, tmp_path)
    assert curve[-1]["val_accuracy"] == pytest.approx(again, abs=1e-6)


def train_states(recipe: Training) -> list[dict[str, Tensor]]:
    """The weights after each step of one epoch, by a plain loop of the same recipe."""
    net = network()
    loader, _ = batches(recipe)
    optimizer = make_optimizer(net, recipe)
    loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    states = []
    for step, (images, labels) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * rate(step, len(loader), recipe)
        optimizer.zero_grad()
        loss(net(images), labels).backward()
        nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_norm)
        optimizer.step()
        states.append({name: weight.clone() for name, weight in net.state_dict().items()})
    return states


@pytest.mark.parametrize("clip_norm", [0.01, 1.0])
def test_trainer_does_what_a_plain_loop_does(tmp_path: Path, clip_norm: float) -> None:
    recipe = replace(SHORT, epochs=1, clip_norm=clip_norm)
    train(tmp_path, recipe)
    expected = train_states(recipe)[-1]
    for name, weight in trained_weights(tmp_path).items():
        torch.testing.assert_close(weight, expected[name.removeprefix("network.")])


def test_gradient_is_clipped_unless_the_norm_is_zero(tmp_path: Path) -> None:
    weights = []
    for index, clip_norm in enumerate((0.0, 1e9, 1e-6)):
        train(tmp_path / str(index), replace(SHORT, epochs=1, clip_norm=clip_norm))
        weights.append(trained_weights(tmp_path / str(index))["network.head.weight"])
    assert torch.allclose(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


@pytest.mark.parametrize("targets", ["labels", "distributions"])
def test_label_smoothing_is_in_the_training_loss(targets: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(10, (6,))
    target = labels if targets == "labels" else nn.functional.one_hot(labels, 10).float()
    images = torch.rand(6, 1, 8, 8)
    net = network()
    recipe = replace(SHORT, label_smoothing=0.3)
    loss = Classifier(net, recipe, 1, Compiling(net, "off")).loss((images, target))
    log = net(images).log_softmax(1)
    expected = -(0.7 * log.gather(1, labels[:, None])[:, 0] + 0.3 * log.mean(1)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_targets_of_mixed_images_are_learned_from(tmp_path: Path) -> None:
    mixed = train(tmp_path / "mixed", augmentation=Augmentation(mixup=0.5, cutmix=0.5))
    plain = train(tmp_path / "plain")
    assert all(math.isfinite(record["train_loss"]) for record in mixed)
    assert comparable(mixed) != comparable(plain)


def test_validation_loss_is_plain_cross_entropy_over_all_images(tmp_path: Path) -> None:
    curve = train(tmp_path, replace(SHORT, epochs=1, label_smoothing=0.4, batch_size=100))
    net = network()
    net.load_state_dict({key.removeprefix("network."): value for key, value in trained_weights(tmp_path).items()})
    _, validation = batches(SHORT)
    with torch.inference_mode():
        logits, labels = (torch.cat(part) for part in zip(*((net(x), y) for x, y in validation), strict=True))
    assert curve[0]["val_loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
    assert curve[0]["val_accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item(), abs=1e-6)


class Broken(nn.Module):
    """Gives logits that are not numbers, in training, validation or both."""

    def __init__(self, *, in_training: bool) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.in_training = in_training

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits * math.nan if self.training == self.in_training else logits


def test_divergence_ends_the_run_at_the_first_step(tmp_path: Path) -> None:
    steps: list[int] = []

    class Counted(Batches):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().__iter__():
                steps.append(1)
                yield batch

    loader, validation = batches(replace(SHORT, batch_size=16))
    loader.__class__ = Counted
    with pytest.raises(Diverged, match="loss nan in epoch 1, step 1"):
        fit(Broken(in_training=True), loader, validation, SHORT, tmp_path, lambda record: None)
    assert len(steps) <= 2
    assert not (tmp_path / CHECKPOINT).exists()


def test_divergence_in_validation_only_is_divergence(tmp_path: Path) -> None:
    reported: list[Mapping[str, float]] = []
    with pytest.raises(Diverged, match="validation loss nan in epoch 1"):
        fit(Broken(in_training=False), *batches(SHORT), SHORT, tmp_path, reported.append)
    assert not reported


def test_absurd_learning_rate_diverges(tmp_path: Path) -> None:
    recipe = replace(SHORT, lr=1e30, warmup_epochs=0.0, epochs=5, clip_norm=0.0)
    reported: list[Mapping[str, float]] = []
    with pytest.raises(Diverged, match="loss"):
        train(tmp_path, recipe, report=reported.append)
    assert len(reported) <= 1


def test_bf16_trains_on_the_processor(tmp_path: Path) -> None:
    curve = train(tmp_path / "half", replace(SHORT, precision="bf16-mixed"))
    exact = train(tmp_path / "full")
    assert comparable(curve) != comparable(exact)
    assert curve[-1]["val_loss"] == pytest.approx(exact[-1]["val_loss"], rel=0.1)
    assert {weight.dtype for weight in trained_weights(tmp_path / "half").values()} == {torch.float32}


def test_every_batch_is_worked_on_in_a_turn_and_none_outside(tmp_path: Path) -> None:
    open_turns: list[int] = []
    seen: list[bool] = []

    @contextmanager
    def turn() -> Iterator[None]:
        open_turns.append(len(seen))
        yield
        open_turns.pop()

    net = network()
    net.register_forward_hook(lambda *_: seen.append(bool(open_turns)))
    loader, validation = batches(SHORT)
    reports: list[bool] = []
    fit(net, loader, validation, SHORT, tmp_path, lambda record: reports.append(bool(open_turns)), turn=turn)
    assert seen == [True] * 3 * (len(loader) + len(validation))
    assert reports == [False] * 3
    accuracy(net, validation, SHORT, tmp_path, turn=turn)
    assert seen == [True] * (3 * len(loader) + 4 * len(validation))
    assert not open_turns


def test_a_turn_is_given_back_by_a_run_that_diverges(tmp_path: Path) -> None:
    turns: list[str] = []

    @contextmanager
    def turn() -> Iterator[None]:
        turns.append("taken")
        try:
            yield
        finally:
            turns.append("given back")

    with pytest.raises(Diverged):
        fit(Broken(in_training=True), *batches(SHORT), SHORT, tmp_path, lambda record: None, turn=turn)
    assert turns == ["taken", "given back"]


def test_checkpoint_counts_optimizer_steps_and_the_rate_follows_them(tmp_path: Path) -> None:
    recipe = replace(SHORT, batch_size=128)
    curve = train(tmp_path, recipe)
    steps = len(batches(recipe)[0])
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["global_step"] == 3 * steps
    assert [record["lr"] for record in curve] == [
        recipe.lr * rate(epoch * steps, 3 * steps, recipe) for epoch in (1, 2, 3)
    ]


def test_interruption_stays_one(tmp_path: Path) -> None:
    def interrupt(record: Mapping[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, report=interrupt)
    assert (tmp_path / CHECKPOINT).exists()


def test_training_warns_of_nothing_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tmp_path, replace(SHORT, epochs=1, ema=0.9))
    assert capfd.readouterr() == ("", "")
