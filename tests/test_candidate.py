"""A candidate is built, counted, timed, compared with the limits and trained, and every way this can end has a name.

python -m pytest tests/test_candidate.py
"""

import fcntl
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from explore import candidate as module
from explore.candidate import COSTS, Candidate, Limits, build, evaluate
from explore.config import compose
from explore.cost.measure import timed_cost
from explore.cost.record import Cost, Throughput
from explore.cost.turns import Turns
from explore.data.dataset import load
from explore.evaluation import COMPLETE, DIVERGED, REFUSED, Epoch, Evaluation
from explore.training.checkpoint import CHECKPOINT
from explore.training.memory import give_back_memory
from explore.training.trained import trained_weights

TINY = (
    "data=digits",
    "model.patch_size=2",
    "model.width=16",
    "model.depth=1",
    "training.epochs=2",
    "training.batch_size=256",
    "training.lr=0.01",
    "training.threads=1",
    "training.precision=32-true",
    "cost.batch_size=8",
    "cost.max_seconds=0.01",
    "cost.warmup=0",
    "cost.block_seconds=0.001",
)


def candidate(*overrides: str) -> Candidate:
    return compose([*TINY, *overrides]).candidate


def silent(item: object) -> None:
    pass


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    return fail


def test_evaluation_is_complete_and_everything_is_reported(tmp_path: Path) -> None:
    reported: list[Any] = []
    evaluation = evaluate(candidate(), tmp_path, reported.append)
    assert (evaluation.status, evaluation.reason) == (COMPLETE, "")
    assert evaluation.cost
    assert evaluation.cost.throughput
    assert reported == [evaluation.cost, *evaluation.curve]
    assert [epoch.epoch for epoch in evaluation.curve] == [1, 2]
    assert evaluation.accuracy == evaluation.curve[-1].val_accuracy
    assert list(evaluation.seconds) == ["build", "cost", "train"]
    assert evaluation.constraints == {}
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, COSTS}
    assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict()))) == evaluation


def test_an_architecture_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def measure(cost: Cost, network: object, *rest: object) -> Cost:
        measured.append(cost.params)
        return timed_cost(cost, network, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("explore.candidate.timed_cost", measure)

    def cost(name: str, *overrides: str) -> Cost | None:
        one = candidate("training.epochs=1", *overrides)
        return evaluate(one, tmp_path / name, silent, tmp_path / "costs").cost

    first = cost("a")
    assert cost("b", "training.lr=0.02", "training.seed=3") == first
    assert len(measured) == 1
    assert cost("same", "cost.dispatch=eager") == first, "as it is by default on a processor"
    assert cost("dropping", "model.drop_path=0.1", "model.drop_path_schedule=uniform", "model.compile=off") == first
    assert cost("c", "model.width=24") != first
    assert cost("d", "cost.interval=0.03") != first
    assert len(measured) == 3
    kept = [path.name for path in (tmp_path / "costs").iterdir()]
    assert len(kept) == 3 + 1, "three architectures or protocols, and the reference network of the study"
    assert len([name for name in kept if name.startswith("reference-")]) == 1


def test_training_waits_for_one_who_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    epochs: list[object] = []
    one = candidate("throughput=off")
    with ThreadPoolExecutor(1) as thread:
        with Turns(torch.device("cpu")) as turns, turns.measuring():
            running = thread.submit(evaluate, one, tmp_path / "run", epochs.append)
            with pytest.raises(TimeoutError):
                running.result(1.0)
            assert epochs == []
        assert running.result(60).status == COMPLETE
    assert len(epochs) == 1 + one.training.epochs


def test_counting_takes_a_turn_and_timing_one_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: dict[str, bool] = {}

    def watched(name: str) -> Callable[..., Any]:
        action = getattr(module, name)

        def act(*arguments: Any, **named: Any) -> Any:
            seen[name] = someone_computes(tmp_path)
            return action(*arguments, **named)

        return act

    for name in ("load", "build", "measure_cost", "timed_cost"):
        monkeypatch.setattr(module, name, watched(name))
    assert evaluate(candidate(), tmp_path / "run", silent).status == COMPLETE
    assert seen == {"load": False, "build": False, "measure_cost": True, "timed_cost": False}


def someone_computes(folder: Path) -> bool:
    """Whether one who measures would have to wait."""
    (path,) = folder.glob("explore-device-*.lock")
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_seed_decides_the_weights_and_leaves_the_generator_alone() -> None:
    dataset = load(candidate().data)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = build(candidate(), dataset), build(candidate(), dataset)
    other = build(candidate("training.seed=1"), dataset)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.stem.projection.weight, other.stem.projection.weight)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("params=100", r"params 2,754 is above 100"),
        ("macs=1000", r"macs \d+,\d{3} is above 1,000"),
        ("throughput=1e12", r"throughput [\d,]+ images/s is below 1,000,000,000,000"),
    ],
)
def test_candidate_beyond_a_limit_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, reason: str
) -> None:
    monkeypatch.setattr("explore.training.fit.fit", raising(AssertionError("trained")))
    name = limit.partition("=")[0]
    if name != "throughput":
        monkeypatch.setattr(module, "timed_cost", raising(AssertionError("timed")))
    reported: list[Any] = []
    evaluation = evaluate(candidate(f"limits.{limit}"), tmp_path, reported.append)
    assert evaluation.status == REFUSED
    assert re.fullmatch(reason, evaluation.reason)
    assert list(evaluation.constraints) == [name]
    assert evaluation.constraints[name] > 0
    assert reported == [evaluation.cost]


def test_candidate_within_its_limits_says_by_how_much(tmp_path: Path) -> None:
    evaluation = evaluate(candidate("limits.params=1000000", "limits.throughput=0.001"), tmp_path, silent)
    assert evaluation.status == COMPLETE
    assert set(evaluation.constraints) == {"params", "throughput"}
    assert all(-1 <= excess < 0 for excess in evaluation.constraints.values())


def test_excess_is_a_fraction_of_the_limit() -> None:
    speed = Throughput(
        images_per_second=50.0,
        low=50.0,
        high=50.0,
        latency_ms=1.0,
        batch_size=1,
        precision="32-true",
        device="x",
        threads=1,
        blocks=1,
        torch_version="2",
    )
    cost = Cost(params=150, macs=100, memory_bytes=1, throughput=speed)
    limits = Limits(params=100, macs=100, throughput=100.0)
    assert limits.excess(cost) == {"params": 0.5, "macs": 0.0, "throughput": 1.0}
    assert Limits().excess(cost) == {}


@pytest.mark.parametrize("name", ["params", "macs", "throughput"])
def test_limit_that_nothing_keeps_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"limits.{name} must be above 0, or null for none, got 0"):
        candidate(f"limits.{name}=0").check(load(candidate().data))


def test_divergence_is_a_status(tmp_path: Path) -> None:
    wild = candidate("training.lr=1e30", "training.clip_norm=0", "training.warmup_epochs=0")
    evaluation = evaluate(wild, tmp_path, silent)
    assert evaluation.status == DIVERGED
    assert evaluation.reason.startswith("loss ")
    assert evaluation.cost


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.\nTried 2 GiB")])
@pytest.mark.parametrize("part", ["training.fit.fit", "candidate.build"])
def test_no_memory_is_infeasible_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, part: str
) -> None:
    monkeypatch.setattr(f"explore.{part}", raising(error))
    evaluation = evaluate(candidate(), tmp_path, silent)
    assert evaluation.status == REFUSED
    words = "no room left" if isinstance(error, MemoryError) else "CUDA out of memory."
    tried = "; out of memory with whole batches, went on with each in 8 parts" if part == "training.fit.fit" else ""
    assert evaluation.reason == f"out of memory: {words}{tried}"
    assert evaluation.constraints == {"memory": 1.0}
    assert (evaluation.cost is None) == (part == "candidate.build")


@pytest.mark.gpu
def test_a_gpu_without_room_for_a_batch_takes_it_in_parts(tmp_path: Path) -> None:
    large = candidate("training.batch_size=1024", "model.width=512", "model.depth=8", "throughput=off")
    torch.cuda.reset_peak_memory_stats()
    whole = evaluate(large, tmp_path / "whole", silent)
    peak, room = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    try:
        give_back_memory()
        torch.cuda.set_per_process_memory_fraction(0.6 * peak / room)
        parts = evaluate(large, tmp_path / "parts", silent)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (whole.status, whole.reason) == (COMPLETE, "")
    assert (parts.status, parts.reason) == (
        COMPLETE,
        "out of memory with whole batches, went on with each in 8 parts",
    )
    for one, other in zip(whole.curve, parts.curve, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-3)


def test_other_exceptions_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explore.training.fit.fit", raising(KeyError("x")))
    with pytest.raises(KeyError):
        evaluate(candidate(), tmp_path, silent)


@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_evaluation_measures_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    def stopper(item: Cost | Epoch) -> None:
        if isinstance(item, Epoch) and item.epoch == stop:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate(candidate(), tmp_path, stopper)
    monkeypatch.setattr(module, "measure_cost", raising(AssertionError("counted again")))
    monkeypatch.setattr(module, "timed_cost", raising(AssertionError("timed again")))
    reported: list[Any] = []
    evaluation = evaluate(candidate(), tmp_path, reported.append)
    assert evaluation.status == COMPLETE
    assert [epoch.epoch for epoch in evaluation.curve] == [1, 2]
    assert reported == [evaluation.cost, *evaluation.curve]


def test_test_accuracy_is_that_of_the_checkpoint_on_the_test_images(tmp_path: Path) -> None:
    evaluate(candidate("training.ema=0.5"), tmp_path, silent)
    dataset = load(candidate().data)
    network = build(candidate("training.seed=9"), dataset)
    network.load_state_dict({k.removeprefix("network."): v for k, v in trained_weights(tmp_path).items()})
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
    with torch.inference_mode():
        answers = network.eval()((dataset.test.images / 255 - mean) / std).argmax(1)
    expected = (answers == dataset.test.labels).double().mean().item()
    assert module.test_accuracy(candidate("training.ema=0.5"), tmp_path) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.patch_size=3", "patch_size must divide image_size, got 3 and 8; try 1, 2, 4, 8"),
        ("training.precision=fp16", "training.precision must be one of auto, 32-true, bf16-mixed, got 'fp16'"),
        ("cost.precision=fp16", "cost.precision must be one of auto, 32-true, bf16-mixed, got 'fp16'"),
        ("training.epochs=0", "training.epochs must be at least 1, got 0"),
    ],
)
def test_check_refuses_what_would_stop_the_candidate_later(override: str, message: str) -> None:
    dataset = load(candidate().data)
    candidate().check(dataset)
    with pytest.raises(ValueError, match=message):
        candidate(override).check(dataset)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.accelerator=gpu", "training.accelerator=gpu needs a GPU, and torch finds none here"),
        ("cost.device=cuda", "device must be one of auto, cpu on this machine, got 'cuda'"),
        ("cost.dispatch=graph", "cost.dispatch=graph must have a GPU, got cpu; try eager or compiled"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_where_it_would_be_needed(override: str, message: str) -> None:
    one = candidate(override)
    one.check(load(one.data))  # another machine may have it
    with pytest.raises(ValueError, match=re.escape(message)):
        one.check_machine()


def test_a_device_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=re.escape("cost.device must be one of auto, cpu, cuda, cuda:0, cuda:1, ...")):
        candidate("cost.device=tpu")
