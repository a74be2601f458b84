"""Invented ablations with the marks of real ones: seeds that help all arms alike, saturating curves, small effects."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp

from explore.ablation.options import Ablation
from explore.ablation.records import Difference, Effect, Findings, Scores
from explore.evaluation import COMPLETE, FAILED

MIXINGS = {"token_mixing": ["mlp", "attention", "s2", "convolution", "pooling"], "channel_mixing": ["mlp", "swiglu"]}
EPOCHS, LEVEL = 30, 0.0158


def name_of(levels: Mapping[str, Any]) -> str:
    return " + ".join(str(level) for level in levels.values())


def invented(factors: Mapping[str, Sequence[Any]] = MIXINGS, seeds: int = 8, failing: str = "") -> dict[str, Any]:
    """Options, scores, findings and runs of an ablation; one run of the arm `failing` fails."""
    random = np.random.default_rng(7)
    combinations = [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]
    arms = {name_of(levels): levels for levels in combinations}
    luck, true = random.normal(0, 0.004, seeds), 0.965 + random.normal(0, 0.006, len(arms))
    records = []
    for seed, (number, (name, levels)) in product(range(seeds), enumerate(arms.items())):
        reached = true[number] + luck[seed] + random.normal(0, 0.0015)
        speed = 21_000.0 * (1 + 0.35 * number)
        curve = reached - (reached - 0.1) * np.exp(-np.arange(1, EPOCHS + 1) / (2.5 + number / 5))
        words = " ".join(f"{key}={level}" for key, level in levels.items())
        record = {
            **{"arm": name, **levels, "seed": seed, "status": COMPLETE, "val_accuracy": reached},
            **{"curve": [*(curve[:-1] + random.normal(0, 0.002, EPOCHS - 1)), reached], "reason": ""},
            **{"throughput": speed, "throughput_low": 0.97 * speed, "throughput_high": 1.04 * speed},
            **{"macs": 1_204_224 + 900 * number, "params": 61_322 + 3000 * number, "model.width": 64 + 2 * number},
            **{"residual": 0.0007 * number, "command": f"python -m explore.train {words} training.seed={seed}"},
        }
        if name == failing and seed == 2:
            record |= {"status": FAILED, "val_accuracy": None, "curve": [], "reason": "RuntimeError: out of memory"}
        records.append(record)
    runs = pd.DataFrame(records)
    sound = {name: levels for name, levels in arms.items() if name != failing}
    table = runs.pivot_table(index="seed", columns="arm", values="val_accuracy")[list(sound)].astype(float)
    scores = Scores(factors=factors, arms=sound, accuracies=table)
    options = Ablation(by="model.width")
    return {"options": options, "scores": scores, "findings": findings(scores, options.margin), "runs": runs}


def findings(scores: Scores, margin: float) -> Findings:
    """Roughly what an analysis says: t intervals and t-tests, bootstraps a little narrower, corrected by Bonferroni."""
    levels = []
    for key, (first, *others) in scores.factors.items():
        means = {one: _mean_of(scores, key, one) for one in (first, *others)}
        levels += [_difference(means[one] - means[first], key, one, first, len(others), margin) for one in others]
    first, *others = scores.arms
    table = scores.accuracies
    arms = [_difference(table[one] - table[first], "arm", one, first, len(others), margin) for one in others]
    effect = Effect(of=("token_mixing",), f=43.1, df=4, df_error=28, epsilon=0.71, p=2e-8, share=0.86)
    both = replace(effect, of=("token_mixing", "channel_mixing"), f=1.31, p=0.29, share=0.16)
    return Findings(
        level=LEVEL,
        bootstrap_level=2 ** (1 - len(table)),
        looks=(5, 8, 12, 20),
        seeds=len(table),
        levels=levels,
        arms=arms,
        effects=[effect, both] if len(scores.factors) > 1 else [effect],
        words=["attention beats mlp by 0.42 points (98.42 % CI 0.10 to 0.74).", "All else is open."],
    )


def _mean_of(scores: Scores, key: str, level: Any) -> "pd.Series[float]":
    return scores.accuracies[[name for name, one in scores.arms.items() if one[key] == level]].mean(axis=1)


def _difference(pairs: "pd.Series[float]", of: str, name: Any, against: Any, tests: int, margin: float) -> Difference:
    mean, error = pairs.mean(), pairs.std() / len(pairs) ** 0.5
    half = error * student_t.ppf(1 - LEVEL / 2, len(pairs) - 1)
    p = float(ttest_1samp(pairs, 0).pvalue)
    return Difference(
        of=of,
        name=str(name),
        against=str(against),
        mean=mean,
        low=mean - half,
        high=mean + half,
        bootstrap_low=mean - 0.8 * half,
        bootstrap_high=mean + 0.75 * half,
        effect=mean / pairs.std(),
        p=p,
        p_holm=min(1.0, p * tests),
        seeds=len(pairs),
        different=min(1.0, p * tests) < LEVEL,
        negligible=abs(mean) + half < margin,
    )
