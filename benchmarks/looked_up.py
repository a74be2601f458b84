"""Made-up learning curves, looked up epoch by epoch as training would find them, with a checkpoint after each.

Light, so that a process that only looks up begins within milliseconds.
"""

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explore.cost.record import Cost, Throughput
from explore.evaluation import COMPLETE, STOPPED, Epoch, Evaluation, Report

CHECKPOINT, LOG = "last.ckpt", "trained.txt"


@dataclass(frozen=True)
class Job:
    """Look up `values` until an epoch of `last`, each of which takes so many seconds."""

    values: Mapping[str, Any]
    until: int
    last: int
    epoch_seconds: float


def look_up(job: Job, folder: Path, report: Report) -> Evaluation:
    """Evaluate a job as training does: goes on from its checkpoint, and reports the epochs before it first.

    Each epoch that is really gone through leaves a line in a log, so that it can be counted how often it was.
    """
    report(made_up_cost(job.values))
    whole = made_up_curve(job.values, job.last)
    curve = _gone_on_with(whole, folder / CHECKPOINT)
    for epoch in curve:
        report(epoch)
    for epoch in whole[len(curve) : job.until]:
        began = time.monotonic()
        time.sleep(job.epoch_seconds)
        with (folder / LOG).open("a") as log:
            log.write(f"{epoch.epoch}\n")
        curve.append(_lasting(epoch, time.monotonic() - began))
        _keep(curve, folder / CHECKPOINT)
        report(curve[-1])
    status = COMPLETE if len(curve) == job.last else STOPPED
    return Evaluation(status=status, cost=made_up_cost(job.values), curve=tuple(curve))


def made_up_cost(values: Mapping[str, Any]) -> Cost:
    """The larger the slower; always the same for the same values."""
    size = _size(values)
    speed = 1e6 / (size + 10) * _chance(values, "speed").uniform(0.7, 1.3)
    timed = Throughput(
        images_per_second=speed,
        low=0.99 * speed,
        high=1.01 * speed,
        latency_ms=1.0,
        batch_size=256,
        precision="32-true",
        device="none",
        threads=1,
        blocks=15,
        torch_version="none",
    )
    return Cost(params=int(1000 * size), macs=int(3000 * size), memory_bytes=1000, throughput=timed)


def made_up_curve(values: Mapping[str, Any], epochs: int) -> list[Epoch]:
    """The larger the more accurate; always the same for the same values."""
    chance = _chance(values, "curve")
    best = 1 - 0.5 / _size(values) ** 0.4 * chance.uniform(1, 1.5)
    return [
        Epoch(
            epoch=n,
            train_loss=chance.uniform(1, 2) / n,
            val_loss=chance.uniform(1, 2) / n,
            val_accuracy=best * (1 - 0.5 / n) / (1 - 0.5 / epochs),
            lr=1e-3 / n,
            seconds=chance.uniform(1, 2),
        )
        for n in range(1, epochs + 1)
    ]


def _size(values: Mapping[str, Any]) -> float:
    return float(values["model.depth"] * values["model.width"])


def _chance(values: Mapping[str, Any], part: str) -> random.Random:
    return random.Random(part + json.dumps(dict(sorted(values.items()))))


def _gone_on_with(whole: Sequence[Epoch], checkpoint: Path) -> list[Epoch]:
    seconds = json.loads(checkpoint.read_text()) if checkpoint.exists() else []
    return [_lasting(epoch, one) for epoch, one in zip(whole, seconds, strict=False)]


def _keep(curve: Sequence[Epoch], checkpoint: Path) -> None:
    unfinished = checkpoint.with_suffix(".partial")
    unfinished.write_text(json.dumps([epoch.seconds for epoch in curve]))
    os.replace(unfinished, checkpoint)


def _lasting(epoch: Epoch, seconds: float) -> Epoch:
    return Epoch(**{**vars(epoch), "seconds": seconds})
