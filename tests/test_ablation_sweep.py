"""An ablation from the command to its report: real training, the same seeds for all, and a verdict with intervals."""

import json
from pathlib import Path

import pandas as pd
import pytest
from small_sweeps import study_of, sweep

from explore import export
from explore.ablation.design import SEED, design_of
from explore.command import _run
from explore.evaluation import COMPLETE

TINY = [
    "sampler=paired",
    "study=tiny",
    "training.epochs=1",
    "model.patch_size=4",
    "model.width=8",
    "~space.model.patch_size",
    "~space.model.depth",
    "~space.model.width",
    "~space.training.lr",
    "cost.max_seconds=0.1",
]


@pytest.mark.slow
def test_an_ablation_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = ["ablation.seeds=2", "ablation.max_seeds=3", "ablation.tolerance=0.1"]
    assert sweep(tmp_path, *TINY, *seeds) == 0
    study = study_of(tmp_path, "tiny")
    design, trials = design_of(study), study.trials()
    assert design
    assert design.looks == (2, 3)
    assert [arm.name for arm in design.arms] == ["mlp", "pooling"]
    assert {trial.status for trial in trials} == {COMPLETE}
    assert len(trials) in (4, 6)
    of_arms = [
        {trial.proposal.values[SEED] for trial in trials if trial.proposal.values["token_mixing"] == name}
        for name in ("mlp", "pooling")
    ]
    assert of_arms[0] == of_arms[1]
    macs = [trial.evaluation.cost.macs for trial in trials[:2] if trial.evaluation.cost]
    assert abs(macs[1] / macs[0] - 1) <= 0.1
    folder = tmp_path / "tiny"
    for name in ("report.html", "arms.csv", "runs.csv", "differences.csv", "arms.tex", "arms.md"):
        assert (folder / name).stat().st_size, name
    runs = pd.read_csv(folder / "runs.csv")
    assert len(runs) == len(trials)
    assert "Token mixing" in capsys.readouterr().out

    # A run can be exported, whatever its arm was matched by.
    status = _run(export.main, ["study=tiny", "trial=1", "format=torch_export", f"outputs={tmp_path}"], export.own)
    assert status == 0, capsys.readouterr().err
    assert "Trained for an ablation" in (folder / "export" / "trial-0001.pt2.md").read_text()
    capsys.readouterr()

    # Typed again it has nothing to do, and says the same.
    assert sweep(tmp_path, *TINY, *seeds, "format=json") == 0
    assert len(study_of(tmp_path, "tiny").trials()) == len(trials)
    said = json.loads(capsys.readouterr().out)
    assert said["seeds"] in (2, 3)
    assert [one["name"] for one in said["levels"]] == ["pooling"]
    assert said["words"]

    # Whoever asks for more seeds after having looked is refused.
    assert sweep(tmp_path, *TINY, "ablation.seeds=2", "ablation.max_seeds=9", "ablation.tolerance=0.1") == 2
    assert "ablation.max_seeds: the study has 3, you ask for 9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trials=10", "an ablation trains every arm to the end with the same seeds, got trials=10"),
        ("stopping.eta=2", "an ablation trains every arm to the end with the same seeds, got stopping.eta=2"),
        ("ablation.match=flops", "ablation.match must be one of macs, params, throughput, none, got 'flops'"),
        ("ablation.seeds=1", "ablation.seeds must be at least 2, got 1"),
        ("ablation.max_seeds=3", "ablation.max_seeds must be at least ablation.seeds, 5, got 3"),
        ("ablation.margin=0", "ablation.margin must lie between 0 and 1, got 0"),
        ("ablation.arms=3", "unknown key ablation.arms"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    override: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, *TINY, override) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
