"""`explore.measure throughput=off study=NAME` predicts a speed from what a study has measured.

python -m pytest tests/test_predicted_speed.py
"""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from filled_studies import cost
from small_sweeps import study_of

from explore.architecture.network import Network
from explore.command import _run
from explore.config import compose
from explore.cost.latency_model import FEWEST
from explore.cost.measure import measure_cost
from explore.data.dataset import load
from explore.evaluation import COMPLETE, Evaluation
from explore.measure import main, own
from explore.search.space import parse_space
from explore.search.storage import open_storage
from explore.search.study import create_study

RATE = 2e9  # multiply-adds a second, whatever they belong to


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A study whose candidates are as fast as they are small."""
    (tmp_path / "known").mkdir()
    study = create_study(open_storage(f"sqlite:///{tmp_path}/known/study.db"), "known", {})
    space = parse_space(
        {"model.depth": "range(1, 6)", "model.width": "choice(8, 16, 32, 48)"}, lambda key, values: True
    )
    for depth, width in product((1, 2, 3, 4, 5), (8, 16, 32, 48)):
        candidate = compose(
            ["data=digits", "model.patch_size=2", f"model.depth={depth}", f"model.width={width}"]
        ).candidate
        dataset = load(candidate.data)
        with torch.device("meta"):
            network = Network(candidate.architecture(dataset)).deployed()
        counted = measure_cost(network, dataset.image_shape, replace(candidate.cost, precision="32-true"), timed=False)
        proposal = space.proposal({"model.depth": depth, "model.width": width})
        trial = study.claim(proposal, command="", target=99, continues=None)
        assert trial
        timed = cost(RATE / counted.macs).throughput
        study.finish(trial, Evaluation(status=COMPLETE, cost=replace(counted, throughput=timed)))
    assert len(study_of(tmp_path, "known").trials()) == FEWEST
    return tmp_path


def test_a_network_that_was_not_measured_is_predicted(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["data=digits", "model.patch_size=2", "model.depth=6", "model.width=24", "throughput=off"]
    asked += ["study=known", f"outputs={outputs}"]
    assert _run(main, [*asked, "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["throughput"] is None
    assert found["predicted"]["throughput"] == pytest.approx(RATE / found["deployed_macs"], rel=0.2)
    assert found["predicted"]["study"] == "known"
    assert found["predicted"]["errors"]["networks"] == FEWEST
    assert found["predicted"]["beyond"] == []
    assert _run(main, asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"predicted {found['predicted']['throughput']:,.0f} images/s" in shown
    assert "predicted from 20 networks of study known on" in shown


def test_it_is_said_where_a_network_is_unlike_all_that_were_measured(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["data=digits", "model.patch_size=2", "throughput=off", "study=known", f"outputs={outputs}"]
    assert _run(main, [*given, "token_mixing=attention", "model.width=256", "model.depth=8"], own) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"this one is [\d,.]+ times as slow as the slowest of them, and the only one with operators", words
    )
    assert "of the kind attention" in words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["throughput=off", "study=nobody"], "study nobody must exist"),
        (["study=known"], "study=known predicts a speed that is not measured; add throughput=off"),
        (
            ["throughput=off", "study=known", "token_mixing=all"],
            "study=known predicts the speed of one network",
        ),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    given: list[str], message: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(main, ["data=digits", "model.patch_size=2", f"outputs={outputs}", *given], own) == 2
    assert message in capsys.readouterr().err


def test_a_study_with_few_candidates_predicts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new").mkdir()
    create_study(open_storage(f"sqlite:///{tmp_path}/new/study.db"), "new", {})
    given = ["data=digits", "model.patch_size=2", "throughput=off", "study=new", f"outputs={tmp_path}"]
    assert _run(main, given) == 2
    assert f"at least {FEWEST} architectures that were measured, got 0" in capsys.readouterr().err
