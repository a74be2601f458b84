"""An ablation of four arms on a table in place of training."""

from collections.abc import Sequence
from pathlib import Path

from filled_studies import cost, curve
from optuna.distributions import CategoricalDistribution
from optuna.storages import InMemoryStorage

from explore.ablation.arms import Arm
from explore.ablation.design import NOTE, Design
from explore.ablation.options import Ablation
from explore.ablation.records import Scores
from explore.evaluation import (
    COMPLETE,
    Evaluation,
    Report,
)
from explore.search.study import Study, create_study

FACTORS = {
    "token_mixing": CategoricalDistribution(["mlp", "s2"]),
    "channel_mixing": CategoricalDistribution(["mlp", "swiglu"]),
}
ARMS = tuple(
    Arm(name=f"{token} + {channel}", levels={"token_mixing": token, "channel_mixing": channel}, free=8 + index)
    for index, (token, channel) in enumerate(
        (token, channel) for token in ("mlp", "s2") for channel in ("mlp", "swiglu")
    )
)
DESIGN = Design(
    factors=tuple(FACTORS),
    arms=ARMS,
    options=Ablation(by="model.width", seeds=2, max_seeds=6),
    first_seed=3,
    looks=(2, 4, 6),
)


def never(scores: Scores) -> bool:
    return False


def evaluate(overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
    given = dict(one.split("=") for one in overrides)
    accuracy = 0.9 + 0.01 * (given["token_mixing"] == "s2") + 1e-4 * int(given["training.seed"])
    return Evaluation(status=COMPLETE, cost=cost(1000 * float(given["model.width"])), curve=curve(accuracy))


def new_study() -> Study:
    study = create_study(InMemoryStorage(), "ablation", {})
    study.note(NOTE, DESIGN.to_dict())
    return study
