"""Studies to report on, filled as workers fill them: through claim and finish, in Optuna's in-memory storage."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.storages import InMemoryStorage

from explore.cost.record import Cost, Throughput
from explore.evaluation import COMPLETE, Epoch, Evaluation
from explore.search.study import Study, create_study
from explore.search.trial import Proposal, Trial


def new_study(name: str = "pareto") -> Study:
    return create_study(InMemoryStorage(), name, {"space": {}})


def cost(speed: float, device: str = "AMD EPYC", *, settled: bool | None = None) -> Cost:
    timed = Throughput(
        images_per_second=speed,
        low=0.9 * speed,
        high=1.1 * speed,
        latency_ms=2000 / speed,
        batch_size=256,
        precision="32-true",
        device=device,
        threads=1,
        blocks=15,
        torch_version="2.13.0",
        settled=settled,
    )
    return Cost(params=54_321, macs=12_345_678, memory_bytes=1_048_576, throughput=timed)


def curve(accuracy: float) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(epoch=n, train_loss=1 / n, val_loss=1 / n, val_accuracy=accuracy * n / 3, lr=1e-3, seconds=1.0)
        for n in (1, 2, 3)
    )


def add(
    study: Study,
    accuracy: float = 0.9,
    speed: float = 1000.0,
    *,
    status: str = COMPLETE,
    reason: str = "",
    values: Mapping[str, Any] | None = None,
    device: str = "AMD EPYC",
    settled: bool | None = None,
) -> Trial:
    """Evaluate one candidate, by default another one each time."""
    sampled = {"model.depth": len(study.trials()) + 1, **(values or {})}
    distributions = {
        key: IntDistribution(1, 10_000) if key == "model.depth" else CategoricalDistribution([value])
        for key, value in sampled.items()
    }
    proposal = Proposal(values=sampled, distributions=distributions, overrides=[])
    trial = study.claim(proposal, command=f"python -m explore.train model.depth={sampled['model.depth']}", target=9999)
    assert trial is not None
    trained = status == COMPLETE
    evaluation = Evaluation(
        status=status,
        reason=reason,
        cost=cost(speed, device, settled=settled) if trained else None,
        curve=curve(accuracy) if trained else (),
        seconds={"cost": 1.5, "train": 3.0} if trained else {},
    )
    assert study.finish(trial, evaluation)
    return trial


def searched(count: int = 24) -> Study:
    """A study with a clear trade-off: deeper is slower and more accurate."""
    study = new_study()
    for depth in range(1, count + 1):
        mixing = {"token_mixing": ("mlp", "attention")[depth % 2], "channel_mixing": ("mlp", "swiglu")[depth % 3 == 0]}
        heads = {"token_mixing.heads": 4} if depth % 2 else {}
        add(study, 0.99 - 0.3 / depth, 50_000 / depth, values=mixing | heads)
    return study


TEMPLATE = add(new_study())


def fabricated(points: Sequence[tuple[float, float]]) -> list[Trial]:
    return [
        replace(TEMPLATE, number=n, evaluation=Evaluation(status=COMPLETE, cost=cost(speed), curve=curve(accuracy)))
        for n, (accuracy, speed) in enumerate(points)
    ]
