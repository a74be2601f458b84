"""Seeds of a candidate: whether it pays to train them at once is measured once, and whoever evaluates them afterwards
finds them as if each had been trained alone, also when the process that trained them was killed.

python -m pytest tests/test_seeds_together.py
"""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from digit_batches import digit_batches
from small_sweeps import study_of, sweep

from explore import together as module
from explore.ablation.design import SEED, design_of
from explore.candidate import Candidate, evaluate
from explore.cluster.isolation import Isolated, start_server
from explore.config import compose
from explore.data.loader import Batches
from explore.data.options import Augmentation
from explore.evaluation import COMPLETE, IN_BLOCK, STOPPED, Epoch, Evaluation, Pace
from explore.evaluator import TrainingEvaluator, train_block
from explore.together import pace, train_together
from explore.training.checkpoint import CHECKPOINT
from explore.working import at_once

TINY = (
    "data=digits",
    "data.augmentation.shift=1",
    "model.patch_size=4",
    "model.width=8",
    "model.depth=1",
    "training.epochs=2",
    "training.batch_size=512",
    "training.threads=1",
    "training.ema=0.9",
    "training.precision=32-true",
    "cost.max_seconds=0.01",
    "cost.warmup=0",
    "cost.block_seconds=0.001",
)
SEEDS = (0, 1)


def candidate(*overrides: str) -> Candidate:
    return compose([*TINY, *overrides]).candidate


def folders(folder: Path) -> list[Path]:
    return [folder / str(seed) for seed in SEEDS]


def accuracies(folder: Path) -> list[list[float]]:
    """What evaluations with each seed find, who go on from what is there."""
    found = []
    for seed, one in zip(SEEDS, folders(folder), strict=True):
        result = evaluate(candidate(f"training.seed={seed}"), one, lambda item: None, folder / "costs")
        assert result.status == COMPLETE
        found.append([value for epoch in result.curve for value in (epoch.train_loss, epoch.val_accuracy)])
    return found


def test_a_pace_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pace(candidate(), 3, tmp_path)
    assert found.seeds == 3
    assert found.refusal == ""
    assert found.speedup > 0
    assert found.pays == (found.speedup >= 1.25)
    monkeypatch.delattr(module, "step_seconds")
    assert pace(candidate("training.seed=5", "training.lr=0.1"), 3, tmp_path) == found
    other = pace(candidate("training.batch_size=256"), 3, tmp_path)
    assert "step_seconds" in other.refusal  # it would have been measured


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.devices=2", "each is trained on several devices"),
        ("model.compile=on", "model.compile=on compiles each by itself"),
        ("model.norm=batch", "networks are trained together where weights are all they learn, got"),
    ],
)
def test_what_cannot_be_trained_together_has_its_reason(override: str, words: str, tmp_path: Path) -> None:
    found = pace(candidate(override), 3, tmp_path)
    assert words in found.refusal
    assert not found.pays


@pytest.mark.parametrize(
    ("error", "words", "kept"),
    [
        (torch.OutOfMemoryError("no room\nat all"), "OutOfMemoryError: no room", False),
        (RuntimeError("no such operator\nhere"), "RuntimeError: no such operator", True),
    ],
)
def test_what_goes_wrong_is_a_reason_and_no_loss_and_kept_unless_it_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str, kept: bool
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(module, "step_seconds", fail)
    assert pace(candidate(), 3, tmp_path) == Pace(seeds=3, refusal=words)
    monkeypatch.setattr(module, "step_seconds", lambda *arguments: [(2.0, 1.0)])
    assert (pace(candidate(), 3, tmp_path) == Pace(seeds=3, refusal=words)) is kept


def test_a_block_has_the_time_of_its_seeds_and_the_pace_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float, int]] = []

    @dataclass
    class Noting:
        evaluate: Callable[..., Evaluation]
        tick: Callable[[], None]
        processes: int
        minutes: float
        environment: dict[str, str]
        lives: int = 3

        def __call__(self, job: object, folder: Path, report: object) -> Evaluation:
            asked.append((self.evaluate.__name__, self.minutes, self.lives))
            return Evaluation(status=COMPLETE)

    monkeypatch.setattr("explore.working.Isolated", Noting)
    plan: Any = SimpleNamespace(max_minutes=10.0, design=SimpleNamespace(tried_together=3))
    measured, trained = at_once(plan, TrainingEvaluator(TINY), lambda: None, {})
    measured(["training.seed=1"], Path("one"))
    trained([[f"training.seed={seed}"] for seed in SEEDS], folders(Path("out")), lambda item: None)
    assert asked == [("measure_pace", 10.0, 1), ("train_block", 20.0, 3)]


def test_evaluations_after_it_are_those_of_seeds_trained_alone(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    candidates = [candidate(f"training.seed={seed}") for seed in SEEDS]
    together = tmp_path / "together"

    def report(item: tuple[int, Epoch]) -> None:
        seen.append((item[0], item[1].epoch))

    assert train_together(candidates, folders(together), report).status == COMPLETE
    assert sorted(seen) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    written = [(folder / CHECKPOINT).stat().st_mtime_ns for folder in folders(together)]
    for mine, theirs in zip(accuracies(together), accuracies(tmp_path / "alone"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=3e-3)
    assert [(folder / CHECKPOINT).stat().st_mtime_ns for folder in folders(together)] == written
    assert train_together(candidates, folders(together), report).status == STOPPED  # nothing is trained twice


def test_the_batches_of_another_seed_are_those_of_new_ones() -> None:
    def of(seed: int) -> Batches:
        return digit_batches(512, augmentation=Augmentation(shift=1, mixup=0.2), seed=seed, shuffle=True)

    for mine, theirs in zip(of(0).seeded(4), of(4), strict=True):
        assert all(map(torch.equal, mine, theirs))


@pytest.mark.slow
def test_a_block_whose_process_is_killed_goes_on_seed_by_seed(tmp_path: Path) -> None:
    start_server()
    evaluator = TrainingEvaluator((*TINY, "training.epochs=3", "training.rung=1"))
    block = evaluator.block([[f"training.seed={seed}"] for seed in SEEDS], folders(tmp_path / "killed"))
    killed: list[int] = []

    def kill(item: tuple[int, Epoch]) -> None:
        for child in multiprocessing.active_children() if not killed else ():
            killed.append(child.pid or 0)
            child.kill()

    folders(tmp_path / "killed")[0].mkdir(parents=True)
    isolated: Isolated[object, tuple[int, Epoch]] = Isolated(train_block, lambda: None)  # type: ignore[arg-type]
    result = isolated(block, block.folders[0], kill)
    assert killed
    assert result.status == STOPPED
    assert "SIGKILL" in result.reason
    for mine, theirs in zip(accuracies(tmp_path / "killed"), accuracies(tmp_path / "alone"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=3e-3)


@pytest.mark.slow
def test_an_ablation_with_blocks_finds_what_one_without_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explore.evaluation.WORTH_IT", 0.0)
    changes = [f"~space.{key}" for key in ("model.patch_size", "model.depth", "model.width", "training.lr")]
    asked = ["sampler=paired", *changes, "model.patch_size=4", "model.width=8", "training.epochs=1"]
    asked += ["ablation.match=none", "ablation.seeds=4", "ablation.max_seeds=4", "cost.max_seconds=0.1", "workers=1"]
    asked += ["training.threads=1", "training.precision=32-true"]
    assert sweep(tmp_path, *asked, "study=auto") == 0
    assert "6 of 8 runs were trained together with others of their arm" in capsys.readouterr().out
    assert sweep(tmp_path, *asked, "study=off", "ablation.together=off") == 0
    assert "trained together" not in capsys.readouterr().out
    together, alone = ({one.proposal.key: one for one in study_of(tmp_path, name).trials()} for name in ("auto", "off"))
    assert together.keys() == alone.keys()
    assert len(together) == 8
    for key, trial in together.items():
        assert trial.accuracy == pytest.approx(alone[key].accuracy, abs=3e-3)
        assert (IN_BLOCK in trial.evaluation.seconds) == (trial.proposal.values[SEED] != 0)
        assert IN_BLOCK not in alone[key].evaluation.seconds
    # How they are trained can be changed at any time.
    assert sweep(tmp_path, *asked, "study=auto", "ablation.together=off") == 0
    design = design_of(study_of(tmp_path, "auto"))
    assert design
    assert design == replace(design, options=replace(design.options, together="off"))
