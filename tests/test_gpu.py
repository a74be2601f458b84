"""A GPU computes what a processor computes, trains the same networks, and goes on from where it was stopped.

make test-gpu
"""

import copy
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from digit_batches import digit_batches
from on_gpu import GPU, SHORT, WAITING, batches, every_mixing, network
from small_sweeps import WHOLE, sweep, trials_of
from torch import Tensor, nn

from explore import export
from explore.architecture.channel_mixing.experts import expert_product
from explore.command import _run
from explore.cost.options import Measuring
from explore.cost.throughput import measure_throughput
from explore.cost.turns import Turns, strangers
from explore.data.gathering import Streamed
from explore.data.options import Augmentation
from explore.evaluation import COMPLETE
from explore.launching import at_once
from explore.training.fit import fit, fit_together
from explore.training.pace import step_seconds
from explore.training.trained import accuracy, restore

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of convolutions in float32 as well, which a GPU would round to ten bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def images() -> Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def gradients(net: nn.Module, device: str | torch.device) -> tuple[Tensor, list[Tensor]]:
    """Logits and the gradient of each parameter, both on the processor."""
    net.to(device).zero_grad()
    logits = net(images().to(device))
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)).to(device)
    (logits * weights).sum().backward()
    return logits.detach().cpu(), [one.grad.cpu().clone() for one in net.parameters() if one.grad is not None]


@every_mixing
def test_logits_and_gradients_are_those_of_a_processor(token: str, channel: str) -> None:
    net = network(token, channel).eval()
    (expected, theirs), (found, mine) = gradients(net, "cpu"), gradients(net, GPU)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert len(mine) == len(theirs) > 0
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * max(1.0, float(other.abs().max())), rtol=1e-3)


@every_mixing
def test_the_deployed_form_answers_the_same_in_either_precision(token: str, channel: str) -> None:
    net = network(token, channel).eval()
    deployed = copy.deepcopy(net.deployed()).eval().to(GPU)
    with torch.inference_mode():
        expected = net(images())
        torch.testing.assert_close(deployed(images().to(GPU)).cpu(), expected, atol=1e-4, rtol=1e-3)
        with torch.autocast("cuda", torch.bfloat16):
            torch.testing.assert_close(deployed(images().to(GPU)).float().cpu(), expected, atol=0.05, rtol=0.05)


@every_mixing
def test_a_training_step_in_bfloat16_reaches_every_parameter(token: str, channel: str) -> None:
    net = network(token, channel).train().to(GPU)
    with torch.autocast("cuda", torch.bfloat16):
        logits = net(images().to(GPU))
    (logits.float() * torch.randn_like(logits.float())).sum().backward()
    for name, one in net.named_parameters():
        assert one.grad is not None, name
        assert one.grad.isfinite().all(), name


def test_many_rows_of_an_expert_add_up_in_bfloat16() -> None:
    """One by one in bfloat16, 256 and 1 are 256."""
    rows, ends = torch.zeros(1000, 8), torch.tensor([600, 1000], dtype=torch.int32)
    weight, bias = torch.zeros(2, 8, 8), torch.zeros(2, 8)
    given = [one.to(GPU, torch.bfloat16).requires_grad_() for one in (rows, weight, bias)]
    expert_product(given[0], ends.to(GPU), *given[1:]).sum().backward()
    assert given[2].grad is not None
    assert given[2].grad[:, 0].tolist() == [600, 400]


# A step of the whole batch takes 6.4 GiB, one of an eighth 0.9.
FULL = """
import sys
from pathlib import Path
import torch
from explore.candidate import evaluate
from explore.config import compose
small = ["model.patch_size=1", "model.width=512", "model.depth=4", "training.precision=32-true", "cost.batch_size=1"]
config = compose(["data=digits", *small, "throughput=false", "training.batch_size=1024", "training.epochs=1"])
torch.cuda.set_per_process_memory_fraction(3 * 2**30 / torch.cuda.get_device_properties(0).total_memory)
ended = evaluate(config.candidate, Path(sys.argv[1]), lambda item: None)
print(ended.status, ended.reason, sep=": ")
"""


def test_memory_that_runs_out_is_tried_again_in_parts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = "complete: out of memory with whole batches, went on with each in 8 parts"
    assert result.stdout.splitlines()[-1:] == [said], result.stderr


def test_seeds_repeat_and_a_stopped_training_goes_on_as_if_it_never_was(tmp_path: Path) -> None:
    def curve(folder: str, until: int | None = None) -> list[dict[str, float]]:
        (tmp_path / folder).mkdir(exist_ok=True)
        loaders = batches(training=True), batches(training=False)
        found = fit(network(drop_path=0.1), *loaders, SHORT, tmp_path / folder, lambda record: None, until=until)
        return [{key: value for key, value in record.items() if key != "seconds"} for record in found]

    whole = curve("whole")
    assert whole[-1]["val_accuracy"] > 0.7
    assert curve("again") == whole
    assert curve("stopped", until=2) == whole[:2]
    assert curve("stopped") == whole
    trained = network()
    assert restore(trained, tmp_path / "whole")[-1]["val_accuracy"] == whole[-1]["val_accuracy"]
    found = accuracy(network(), batches(training=False), SHORT, tmp_path / "whole")
    assert found == pytest.approx(whole[-1]["val_accuracy"])


def test_a_checkpoint_of_a_gpu_goes_on_on_a_processor(tmp_path: Path) -> None:
    def curve(device: str, accelerator: str, until: int | None) -> list[dict[str, float]]:
        recipe = replace(SHORT, accelerator=accelerator)
        train, validation = (batches(training=training, device=device) for training in (True, False))
        return fit(network(), train, validation, recipe, tmp_path, lambda record: None, until=until)

    begun, ended = curve("cuda", "gpu", until=2), curve("cpu", "cpu", until=None)
    assert ended[:2] == begun
    assert ended[-1]["val_accuracy"] > ended[0]["val_accuracy"]


def test_seeds_trained_together_come_out_as_each_alone(tmp_path: Path) -> None:
    recipe, seeds = replace(SHORT, epochs=2), (3, 0)
    alone = []
    for seed in seeds:
        (folder := tmp_path / f"alone-{seed}").mkdir()
        loaders = batches(training=True, seed=seed), batches(training=False)
        alone.append(fit(network(seed=seed), *loaders, replace(recipe, seed=seed), folder, lambda record: None))
    folders = [tmp_path / str(seed) for seed in seeds]
    for folder in folders:
        folder.mkdir()
    together = fit_together(
        [network(seed=seed) for seed in seeds],
        [batches(training=True, seed=seed) for seed in seeds],
        batches(training=False),
        recipe,
        folders,
        lambda place, record: None,
    )
    for one, other in zip(together, alone, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)
            assert mine["val_accuracy"] == pytest.approx(theirs["val_accuracy"], abs=0.01)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_seeds_together_are_timed(precision: str) -> None:
    loaders = [batches(training=True, seed=seed) for seed in range(3)]
    recipe = replace(SHORT, precision=precision)
    rounds = step_seconds([network(seed=seed) for seed in range(3)], loaders, recipe, GPU, nullcontext)
    assert all(alone > 0 and share > 0 for alone, share in rounds)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    curves = {}
    for mode in ("off", "on"):
        (tmp_path / mode).mkdir()
        loaders = batches(training=True), batches(training=False)
        recipe = replace(SHORT, epochs=2)
        curves[mode] = fit(network(), *loaders, recipe, tmp_path / mode, lambda record: None, compiled=mode)
    for plain, compiled in zip(curves["off"], curves["on"], strict=True):
        assert compiled["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-3)


@pytest.mark.parametrize("augmentation", [None, Augmentation(shift=1, flip=True)], ids=["plain", "moved"])
def test_images_from_disk_are_those_that_are_kept_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch, augmentation: Augmentation | None
) -> None:
    def passed() -> list[tuple[Tensor, Tensor]]:
        return list(digit_batches(100, device="cuda", augmentation=augmentation, shuffle=True))

    kept = passed()
    monkeypatch.setattr("explore.data.loader.fits", lambda images, margin, device: False)
    for (images, targets), (streamed, same) in zip(kept, passed(), strict=True):
        assert streamed.is_cuda
        assert torch.equal(streamed, images)
        assert torch.equal(same, targets)


def test_batches_are_whole_however_late_their_copies_and_the_work_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that arrive long after they were begun are waited for, and no batch is written over before it was used."""
    monkeypatch.setattr("explore.data.gathering.threads_for", lambda device: 4)
    images = torch.randint(256, (1000, 3, 224, 224), dtype=torch.uint8)
    place = Streamed(images, 0, GPU)
    gather, copies = place._gather, place._copies

    def late(rows: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        with torch.cuda.stream(copies):
            torch.cuda._sleep(20_000_000)  # cycles: some ten milliseconds
        return gather(rows)

    monkeypatch.setattr(place, "_gather", late)
    parts = list(torch.randperm(len(images)).split(32))
    found = []
    for batch in place.pick(parts, [None] * len(parts)):
        torch.cuda._sleep(20_000_000)
        found.append(batch.sum((1, 2, 3), dtype=torch.int64))
        del batch
    expected = [images[rows].sum((1, 2, 3), dtype=torch.int64) for rows in parts]
    assert torch.equal(torch.cat(found).cpu(), torch.cat(expected))


@every_mixing
def test_a_captured_pass_gives_the_logits_of_an_eager_one(token: str, channel: str) -> None:
    net = network(token, channel).deployed().eval().to(GPU)
    batch, kept = torch.zeros(6, 1, 8, 8, device=GPU), dict[str, Tensor]()

    def action() -> None:
        kept["logits"] = net(batch)

    with torch.inference_mode():
        launch = at_once(action, GPU)
        assert (launch is action) is ((token, channel, "float32") in WAITING)
        for factor in (1.0, 2.0):
            batch.copy_(factor * images())
            launch()
            found = kept["logits"].clone()
            torch.testing.assert_close(found, net(batch), atol=1e-4, rtol=1e-3)


def test_an_automatic_batch_size_is_found_by_what_is_captured() -> None:
    options = Measuring(device="cuda", precision="32-true", batch_size="auto", max_seconds=1.0)
    found = measure_throughput(network().deployed(), (1, 8, 8), options)
    assert found.dispatch == "graph"
    assert found.batch_size >= 8


@pytest.mark.parametrize("dispatch", ["eager", "graph", "compiled"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_throughput_is_that_of_the_gpu(dispatch: str) -> None:
    options = Measuring(device="cuda", precision="bf16-mixed", dispatch=dispatch, max_seconds=1.0)
    found = measure_throughput(network().deployed(), (1, 8, 8), options)
    assert (found.device, found.precision, found.dispatch) == (torch.cuda.get_device_name(), "bf16-mixed", dispatch)
    assert found.driver
    assert found.images_per_second > 0
    assert found.memory_bytes
    assert found.latency_p90_ms
    assert 0 < found.latency_ms <= found.latency_p90_ms


FOREIGN = "import sys, torch; held = torch.zeros(9, device='cuda'); print('here', flush=True); sys.stdin.read()"


def test_a_program_of_others_is_named_unless_it_takes_turns() -> None:
    if not (shutil.which("nvidia-smi")):
        pytest.skip("needs nvidia-smi")
    command = [sys.executable, "-c", FOREIGN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as foreign:
        assert foreign.stdout
        assert foreign.stdout.readline() == "here\n"
        torch.zeros(1, device=GPU)
        with Turns(GPU) as turns, turns.measuring():
            found = strangers(GPU)
        foreign.communicate("")
    if not found:
        pytest.skip("this system does not show who computes on its GPU")
    assert [name for name in found if name.endswith(f"({foreign.pid})")], found
    assert not [name for name in found if name.endswith(f"({os.getpid()})")], found


def test_a_search_runs_on_the_gpu_and_its_front_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(tmp_path, *WHOLE) == 0, capsys.readouterr().err
    trials = trials_of(tmp_path)
    assert [one.status for one in trials] == [COMPLETE] * 4
    for one in trials:
        assert one.evaluation.cost is not None
        assert one.evaluation.cost.throughput is not None
        assert one.evaluation.cost.throughput.device == torch.cuda.get_device_name()
    words = [f"outputs={tmp_path}", "study=smoke", "trial=front", "format=torch_export"]
    assert _run(export.main, words, export.own) == 0, capsys.readouterr().err
