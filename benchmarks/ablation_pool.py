"""Final accuracies of one small network trained many times, each time with another seed: `tables/ablation.csv`.

Its JSON beside it says how it was made.
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.origin import origin
from explore.candidate import evaluate
from explore.config import compose
from explore.evaluation import COMPLETE

FILE = Path(__file__).parent / "tables" / "ablation.csv"
# Few epochs at a high rate: seconds for a network, and seeds a point apart, as they are where an ablation is asked for.
BASE = (
    "+sweep=pareto",
    "data=digits",
    "model.patch_size=4",
    "model.width=64",
    "model.depth=1",
    "training.lr=1e-2",
    "training.epochs=9",
    "training.rung=9",
    "training.threads=1",
)


def pool() -> NDArray[np.float64]:
    """Validation accuracies as fractions, by seed."""
    return pd.read_csv(FILE)["accuracy"].to_numpy()


def record(networks: int) -> None:
    """Train the seeds that are missing of `networks`; each is kept at once."""
    known = len(pool()) if FILE.exists() else 0
    for seed in range(known, networks):
        accuracy = _trained(seed)
        with FILE.open("a") as file:
            file.write(f"{seed},{accuracy:.6f}\n" if seed else f"seed,accuracy\n{seed},{accuracy:.6f}\n")
        print(f"{seed + 1} of {networks}: {accuracy:.4f}", flush=True)
    command = f"python -m benchmarks.ablation_calibration record networks={networks}"
    FILE.with_suffix(".json").write_text(json.dumps({**origin(command), "base": BASE}, indent=2) + "\n")


def _trained(seed: int) -> float:
    candidate = compose(BASE).candidate
    candidate = replace(candidate, timed=False, training=replace(candidate.training, seed=seed))
    with TemporaryDirectory() as folder:
        evaluation = evaluate(candidate, Path(folder), lambda item: None)
    assert evaluation.status == COMPLETE, evaluation.reason
    return evaluation.curve[-1].val_accuracy
