"""Training steps are timed as they are taken, and leave the network alone; networks side by side get their blocks in
turn; what is compiled computes the same, and what cannot be compiled is named.

python -m pytest tests/test_training_step.py -m "not gpu"
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from explore.cost.options import Measuring
from explore.cost.side_by_side import compare_throughput, compare_training_steps
from explore.cost.throughput import measure_throughput
from explore.cost.training_step import training_step

IMAGE = (1, 2, 2)


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


class Classifier(nn.Module):
    """Remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.log: list[tuple[bool, torch.dtype, int]] = []

    def __deepcopy__(self, memo: dict[int, object]) -> "Classifier":
        """A copy with weights of its own that writes into the same log."""
        result = Classifier()
        result.load_state_dict(self.state_dict())
        result.log = self.log
        return result

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        if torch.is_grad_enabled():
            self.log.append((self.training, logits.dtype, len(images)))
        return logits


def options(**changes: object) -> Measuring:
    given = {"batch_size": 10, "precision": "32-true", "device": "cpu", "warmup": 0, "block_seconds": 1e-9}
    given |= {"max_seconds": 0.01}
    return Measuring(**{**given, **changes})  # type: ignore[arg-type]


def ignore(text: str) -> None:
    """Nobody looks at the progress."""


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_steps_are_those_of_training_and_leave_the_network_alone(precision: str, dtype: torch.dtype) -> None:
    network = Classifier().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    compare_training_steps({"one": network}, IMAGE, options(precision=precision), ignore)
    assert set(network.log) == {(True, dtype, 10)}
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_step_changes_the_weights_and_clears_their_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[nn.Module] = []
    monkeypatch.setattr("copy.deepcopy", lambda network: copies.append(Classifier()) or copies[0])
    step = training_step(Classifier(), torch.rand(4, *IMAGE), "32-true")
    before = copies[0].linear.weight.clone()
    step()
    moved = (copies[0].linear.weight - before).abs()
    assert 0 < moved.max() < 1e-5
    assert all(parameter.grad is None for parameter in copies[0].parameters())


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="must have weights to be trained, got one on the meta device; build it on"):
        compare_training_steps({"one": nn.Linear(2, 2, device="meta")}, IMAGE, options(), ignore)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="device must be one of auto, cpu"):
        compare_training_steps({"a": Classifier()}, IMAGE, options(device="tpu"), ignore)


def test_speeds_side_by_side_go_by_name() -> None:
    networks = {"a": Classifier(), "b": Classifier()}
    seconds, failures = compare_throughput(networks, IMAGE, options(), ignore)
    training = compare_training_steps(networks, IMAGE, options(), ignore)
    assert (list(seconds), list(training), failures) == (["a", "b"], ["a", "b"], {})
    assert len(seconds["a"]) == len(seconds["b"]) > 0
    assert all(one > 0 for each in [*seconds.values(), *training.values()] for one in each)


def test_networks_that_cannot_be_compiled_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, said = Classifier(), Classifier(), list[str]()

    def refuse(images: Tensor) -> Tensor:
        raise RuntimeError("no compiler here\nand why")

    monkeypatch.setattr("torch.compile", lambda network, dynamic: refuse if network is bad else network)
    speeds, failures = compare_throughput({"a": good, "b": bad}, IMAGE, options(dispatch="compiled"), said.append)
    assert (list(speeds), failures) == (["a"], {"b": "no compiler here"})
    assert said == ["compiling a, 1 of 2", "compiling b, 2 of 2", "timing 1 network in turn, compiled"]


def test_networks_that_cannot_be_captured_are_named_and_timed_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is played: whoever is captured is not called again."""
    good, bad, said = Noted(), Noted(), list[str]()

    def capture(action: Any, device: torch.device, pool: object) -> Callable[[], object]:
        action()
        return action if action.func is bad else torch.rand(1).clone

    monkeypatch.setattr("explore.cost.session.at_once", capture)
    monkeypatch.setattr("explore.cost.session.resolve_dispatch", lambda name, device: "graph")
    seconds, failures = compare_throughput({"a": good, "b": bad}, IMAGE, options(dispatch="auto"), said.append)
    assert (list(seconds), list(failures)) == (["a", "b"], ["b"])
    assert good.calls == 1 < bad.calls
    assert said == ["timing 2 networks in turn, graph"]


def test_strangers_beside_a_comparison_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there, said = iter([[], ["python (7)"]]), list[str]()
    monkeypatch.setattr("explore.cost.session.strangers", lambda device: next(there))
    compare_throughput({"a": Noted()}, IMAGE, options(), said.append)
    assert said == ["timing 1 network in turn, eager", "not alone: python (7) used the GPU meanwhile"]


class Noted(nn.Module):
    """Counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images


class Branching(nn.Module):
    """Says whether it ran as a compiled program."""

    def __init__(self) -> None:
        super().__init__()
        self.eager: list[int] = []
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.eager.append(len(images))
        return images + 1


def test_more_networks_are_compiled_than_torch_makes_programs_of_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend="eager"))
    networks = {str(number): Branching() for number in range(10)}
    speeds, failures = compare_throughput(networks, IMAGE, options(dispatch="compiled"), ignore)
    assert (list(speeds), failures) == (list(networks), {})
    assert not any(network.eager for network in networks.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_dispatch_runs_the_compiled_program() -> None:
    network = Branching()
    speed = measure_throughput(network, IMAGE, options(dispatch="compiled"))
    assert speed.dispatch == "compiled"
    assert speed.images_per_second > 0
    assert network.eager == []
    measure_throughput(network, IMAGE, options())
    assert {1, 10} == set(network.eager)
