"""What is launched at once on a GPU leaves what is called, kernel by kernel.

make test-gpu
"""

import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from digit_batches import digit_batches
from on_gpu import GPU, SHORT, WAITING, batches, every_mixing, network
from torch import Tensor, nn

from explore.architecture.network import Network
from explore.data.options import Augmentation
from explore.training.captured import UNCAPTURED, Captured
from explore.training.fit import fit
from explore.training.handing import Batch
from explore.training.optimizer import make_optimizer
from explore.training.pace import step_seconds
from explore.training.update import Update

pytestmark = pytest.mark.gpu


@every_mixing
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_captured_steps_are_those_that_are_called(
    monkeypatch: pytest.MonkeyPatch, token: str, channel: str, precision: str
) -> None:
    generator = torch.Generator().manual_seed(3)
    pairs = [
        (torch.randn(16, 1, 8, 8, generator=generator).to(GPU), torch.randint(10, (16,), generator=generator).to(GPU))
        for _ in range(UNCAPTURED + 6)
    ]
    found = {}
    for capturing in (True, False):
        net = network(token, channel, drop_path=0.2).train().to(GPU)
        optimizer = make_optimizer(net, SHORT)

        def work(batch: Batch, net: Network = net) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16, precision == "bfloat16", cache_enabled=False):
                loss = nn.functional.cross_entropy(net(batch[0]).float(), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            return loss.detach()

        monkeypatch.setattr("explore.training.captured.UNCAPTURED", UNCAPTURED if capturing else 99)
        gradient, losses = Captured(work, net), []
        torch.manual_seed(0)
        for batch in pairs:
            losses.append(gradient(batch))
            optimizer.step()
        expected = capturing and (token, channel, precision) not in WAITING
        assert gradient.captured is expected, gradient.called_because
        found[capturing] = [torch.stack(losses), *(one.grad for one in net.parameters()), *net.buffers()]
    for mine, theirs in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-2)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Captured]:
    """Those who find gradients, as they are made."""
    made: list[Captured] = []

    class Noted(Captured):
        def __init__(self, work: Callable[[Batch], Tensor], network: nn.Module, *, allowed: bool = True) -> None:
            super().__init__(work, network, allowed=allowed)
            made.append(self)

    for module in ("module", "pace"):
        monkeypatch.setattr(f"explore.training.{module}.Captured", Noted)
    return made


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[Update]:
    """Those who take steps of an optimizer, as they are made."""
    made: list[Update] = []

    class Noted(Update):
        def __init__(self, optimizer: torch.optim.Optimizer, fixed: Callable[[], bool]) -> None:
            super().__init__(optimizer, fixed)
            made.append(self)

    monkeypatch.setattr("explore.training.update.Update", Noted)
    return made


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.parametrize("compiled", ["off", "on"])
def test_a_fit_captures(tmp_path: Path, kept: list[Captured], updates: list[Update], compiled: str) -> None:
    loaders = batches(training=True), batches(training=False)
    fit(network(), *loaders, replace(SHORT, epochs=2), tmp_path, lambda record: None, compiled=compiled)
    assert [one.captured for one in kept] == [True], kept[0].called_because
    assert [one.captured for one in updates] == [True], updates[0].called_because


def test_updates_launched_at_once_are_ordinary_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = []
    for folder in ("at-once", "ordinary"):
        (tmp_path / folder).mkdir()
        loaders = batches(training=True), batches(training=False)
        curves.append(fit(network(), *loaders, SHORT, tmp_path / folder, lambda record: None))
        monkeypatch.setattr("explore.training.module.launch_updates", lambda optimizer, fixed: None)
    for mine, theirs in zip(*curves, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-3)


def test_no_step_waits_for_the_gpu(tmp_path: Path) -> None:
    """But every tenth, which looks at its loss."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            moved = Augmentation(shift=1, flip=True)
            train = digit_batches(16, split="train", device="cuda", shuffle=True, drop_last=True, augmentation=moved)
            fit(network(), train, batches(training=False), SHORT, tmp_path, lambda record: None)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [(one.filename, one.lineno) for one in said if "synchronizing CUDA operation" in str(one.message)]
    places = Counter(place for place in waits if Path(place[0]).name != "checkpoint.py")  # which waits for each tensor
    steps = len(train) * SHORT.epochs
    assert max(places.values()) < steps / 4, places.most_common()


def test_seeds_together_capture(kept: list[Captured]) -> None:
    loaders = [batches(training=True, seed=seed) for seed in range(3)]
    step_seconds([network(seed=seed) for seed in range(3)], loaders, SHORT, GPU, nullcontext)
    assert [one.captured for one in kept] == [True, True]


FAILING = """
import torch
from torch import nn
from explore.training.captured import Captured
network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).cuda()
optimizer = torch.optim.AdamW(network.parameters(), fused=True)

def work(batch):
    loss = nn.functional.cross_entropy(network(batch[0]), batch[1])
    loss.backward()
    assert loss.item() > 0
    return loss.detach()

steps = Captured(work, network)
steps._watched = work
for _ in range(12):
    steps((torch.randn(16, 4, device="cuda"), torch.randint(3, (16,), device="cuda")))
    optimizer.step()
assert not steps.captured
torch.cuda.empty_cache()
network(torch.randn(16, 4, device="cuda")).sum().item()
print("went on")
"""


def test_a_capture_that_fails_leaves_the_gpu_as_it_was() -> None:
    result = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=300)
    assert result.stdout == "went on\n", result.stderr
