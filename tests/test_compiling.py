"""A network is compiled where that pays in the steps of its process, and learns the same under the same names.

python -m pytest tests/test_compiling.py
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.training import compiling
from explore.training.compiling import COMPILE_SECONDS, MARGIN, SAVED_SHARE, Compiling, pays
from explore.training.fit import fit
from explore.training.options import Training
from explore.training.trained import trained_weights

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decision alone: loading the compiler takes seconds."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(compiling.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return now


def looked_at(
    clock: list[float], seconds_per_step: float, steps: int, *, first: int = 0, waits: float = 0.0
) -> Compiling:
    """A run whose steps take so long, the first ten of them a hundred times as long, and wait for their turns."""
    form = Compiling(nn.Identity(), "auto")
    for step in range(first, min(steps, first + 200)):
        clock[0] += waits
        with form.timing(GPU):
            clock[0] += seconds_per_step * (100 if step - first < 10 else 1)
        if step % 10 == 0:
            form.look(steps - step, GPU, lambda answer: answer)
    return form


@given(st.floats(1e-4, 10), st.integers(0, 10**6))
def test_compiling_pays_when_it_saves_more_than_it_costs(seconds: float, steps: int) -> None:
    assert pays(seconds, steps) == (seconds * steps * SAVED_SHARE >= MARGIN * COMPILE_SECONDS)
    assert not pays(seconds, steps) or pays(seconds, steps + 1)


@pytest.mark.parametrize(("seconds", "decision"), [(0.001, False), (0.1, False), (0.13, True), (1.0, True)])
@pytest.mark.parametrize("first", [0, 7, 500])
@pytest.mark.parametrize("waits", [0.0, 100.0])
@pytest.mark.usefixtures("not_compiled")
def test_auto_decides_by_the_steps_that_are_warm_and_not_by_their_waiting(
    clock: list[float], seconds: float, decision: bool, first: int, waits: float
) -> None:
    assert looked_at(clock, seconds, 10_060 + first, first=first, waits=waits).decision is decision


def test_a_run_too_short_to_time_is_not_compiled(clock: list[float]) -> None:
    form = looked_at(clock, 100.0, 30)
    assert form.decision is None
    assert isinstance(form.forward, nn.Identity)


def test_auto_is_off_on_a_processor() -> None:
    form = Compiling(nn.Identity(), "auto")
    form.look(10**9, CPU, lambda answer: answer)
    assert form.decision is False


def test_a_step_that_is_slow_by_chance_decides_nothing(clock: list[float]) -> None:
    form = Compiling(nn.Identity(), "auto")
    for step in range(60):
        with form.timing(GPU):
            clock[0] += 1000.0 if step % 5 == 0 else 0.01
    form.look(10_000, GPU, lambda answer: answer)
    assert form.decision is False


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"compile must be one of auto, off, on"):
        network(Model(patch_size=2, compile="yes"))


def network(model: Model) -> Network:
    torch.manual_seed(0)
    return Network(architecture(model, Mixing(name="mlp"), Mixing(name="mlp"), image_size=8, channels=1, classes=10))


class Noise:
    """Batches of noise."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            yield torch.randn(16, 1, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)

    def set_epoch(self, epoch: int) -> None:
        pass


def test_the_steps_that_are_asked_about_are_those_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a rung that stops before the last epoch, and of one that goes on from its checkpoint."""
    asked: list[int] = []

    class Asked(Compiling):
        def look(self, steps_left: int, *rest: object) -> None:
            assert self.decision is None, "each decides anew"
            asked.append(steps_left)

    monkeypatch.setattr("explore.training.fit.Compiling", Asked)
    recipe = Training(epochs=9, batch_size=16, precision="32-true", accelerator="cpu")
    for until in (2, 5):
        net = network(Model(patch_size=4, depth=1, width=8))
        fit(net, Noise(), Noise(), recipe, tmp_path, lambda record: None, compiled="auto", until=until)
    assert asked == [7, 3, 11, 7, 3], "after the first of the four steps of each epoch"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_compiled_network_learns_the_same_curve_under_the_same_names(tmp_path: Path) -> None:
    recipe = Training(epochs=3, batch_size=16, precision="32-true", accelerator="cpu")
    curves = {}
    for mode in ("off", "on"):
        (tmp_path / mode).mkdir()
        net = network(Model(patch_size=4, depth=2, width=8, drop_path=0.3))
        curves[mode] = fit(net, Noise(), Noise(), recipe, tmp_path / mode, lambda record: None, compiled=mode)
    for plain, compiled in zip(curves["off"], curves["on"], strict=True):
        assert compiled == pytest.approx({**plain, "seconds": compiled["seconds"]}, rel=1e-4)
    assert trained_weights(tmp_path / "on").keys() == trained_weights(tmp_path / "off").keys()
    again = fit(net, Noise(), Noise(), recipe, tmp_path / "on", lambda record: None, compiled="off")
    assert again == curves["on"], "either form goes on from the other's checkpoint"


def test_it_is_no_part_of_the_network() -> None:
    plain, compiled = Model(patch_size=4), Model(patch_size=4, compile="on")
    assert asdict(replace(compiled, compile="auto")) == asdict(plain)
    assert network(plain).state_dict().keys() == network(compiled).state_dict().keys()
