"""What W&B holds afterwards is read back from its offline files; and no search ever fails or waits for its sake.

python -m pytest tests/test_tracking.py
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from offline_runs import configuration, exit_code, items, nested, records, run_of, summary

from explore.cost.record import Cost, Throughput
from explore.evaluation import COMPLETE, FAILED, RUNNING, Epoch, Evaluation
from explore.search.trial import Proposal, Trial
from explore.tracking import Tracker, Tracking, config_path

SPEED = Throughput(
    images_per_second=1234.5,
    low=1200.0,
    high=1300.0,
    latency_ms=0.5,
    batch_size=8,
    precision="32-true",
    device="a processor",
    threads=1,
    blocks=3,
    torch_version="2",
)
COST = Cost(params=10, macs=20, memory_bytes=30, throughput=SPEED)
CURVE = tuple(
    Epoch(epoch=n, train_loss=2 / n, val_loss=3 / n, val_accuracy=n / 4, lr=0.1 / n, seconds=float(n)) for n in (1, 2)
)
DONE = Evaluation(status=COMPLETE, cost=COST, curve=CURVE, seconds={"train": 3.0})

PROGRESS = [
    {"trial": 1, "epochs": 1, "seconds": 2.0, "hypervolume": 0.25},
    {"trial": 0, "epochs": 4, "seconds": 9.5, "hypervolume": 0.5},
]


def trial(number: int = 7) -> Trial:
    proposal = Proposal(
        values={"token_mixing": "attention", "model.depth": 3, "training.lr": 0.01},
        distributions={},
        overrides=["token_mixing=attention", "model.depth=3"],
        sampler_state={},
    )
    return Trial(
        number=number,
        row=number,
        trial_id=number,
        proposal=proposal,
        command="python -m explore.train model.depth=3",
        folder=f"trials/{number:04d}",
        evaluation=Evaluation(status=RUNNING),
        started=None,
        ended=None,
        continues=None,
        owner={},
        heartbeat=0.0,
    )


def track(folder: Path, evaluation: Evaluation = DONE, options: Tracking | None = None) -> Tracker:
    tracker = Tracker(options or Tracking(project="shoes"), "pareto", folder)
    tracker.begin(trial())
    if evaluation.cost:
        tracker.report(evaluation.cost)
    for epoch in evaluation.curve:
        tracker.report(epoch)
    tracker.end(trial(), evaluation)
    return tracker


def test_run_of_a_trial_holds_all_that_is_known_of_it(tmp_path: Path) -> None:
    place = tmp_path / "trials" / "0007"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text("token_mixing: {name: attention, heads: 2}\nmodel: {depth: 3, width: 64}\n")
    track(tmp_path)
    found = records(tmp_path)
    run = run_of(found)
    assert (run.project, run.run_group, run.job_type, run.display_name) == ("shoes", "pareto", "trial", "trial-0007")
    assert set(run.tags) == {"token_mixing=attention", "complete"}

    assert run.notes == "attention, depth 3, lr 0.01\npython -m explore.train model.depth=3"

    # Nothing stands there twice, nor with a dot in its name, which W&B would take for a dictionary.
    assert configuration(found) == {
        "token_mixing": {"name": "attention", "heads": 2},
        "model": {"depth": 3, "width": 64},
        "training": {"lr": 0.01},
    }

    history = [row for row in items(found, "history", "item") if "val_accuracy" in row]
    assert [row["_step"] for row in history] == [1, 2]
    for row, epoch in zip(history, CURVE, strict=True):
        assert {key: row[key] for key in ("train_loss", "val_loss", "val_accuracy", "lr", "seconds")} == {
            key: getattr(epoch, key) for key in ("train_loss", "val_loss", "val_accuracy", "lr", "seconds")
        }

    end = summary(found)
    assert (end["status"], end["reason"], end["throughput"]) == (COMPLETE, "", 1234.5)
    assert end["val_accuracy"] == 0.5
    assert json.dumps(COST.to_dict(), sort_keys=True) == json.dumps(nested(end, "cost"), sort_keys=True)
    assert exit_code(found) == 0


def test_published_model_keeps_its_name_beside_the_settings_that_it_stands_for(tmp_path: Path) -> None:
    values = {"model": "mixer_s16", "model.patch_size": 8}
    named = replace(trial(), proposal=replace(trial().proposal, values=values))
    place = tmp_path / named.folder
    place.mkdir(parents=True)
    (place / "config.yaml").write_text("model: {patch_size: 8, width: 512}\n")
    tracker = Tracker(Tracking(), "pareto", tmp_path)
    tracker.write(named, DONE)
    found = records(tmp_path)
    assert configuration(found) == {"model": {"name": "mixer_s16", "patch_size": 8, "width": 512}}
    assert run_of(found).notes.splitlines()[0] == "mixer_s16, patch size 8"
    assert config_path("model") == "model.name"
    assert config_path("model.patch_size") == "model.patch_size"


def test_failed_trial_says_why(tmp_path: Path) -> None:
    track(tmp_path, Evaluation(status=FAILED, reason="out of memory: no room left"))
    found = records(tmp_path)
    assert set(run_of(found).tags) == {"token_mixing=attention", "failed"}
    assert summary(found)["reason"] == "out of memory: no room left"
    assert summary(found)["throughput"] is None
    assert exit_code(found) == 1


def test_run_of_the_study_holds_table_picture_and_hypervolume(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "front.png"
    Image.new("RGB", (4, 4)).save(picture)
    rows = [{"trial": 0, "val_accuracy": 0.5}, {"trial": 1, "val_accuracy": None}]
    Tracker(Tracking(), "pareto", tmp_path).study_run({"trials": rows}, {"front": picture}, PROGRESS)
    found = records(tmp_path)
    run = run_of(found)
    assert (run.run_group, run.job_type, run.display_name, list(run.tags)) == ("pareto", "study", "pareto", ["study"])
    history = list(items(found, "history", "item"))
    written = [[row[name] for name in ("_step", "epochs", "seconds", "hypervolume")] for row in history[:2]]
    assert written == [[1, 1, 2.0, 0.25], [2, 4, 9.5, 0.5]]
    (media,) = (tmp_path / "wandb").glob("offline-run-*/files/media")
    (table,) = (media / "table").glob("trials_*.json")
    assert json.loads(table.read_text()) == {
        "columns": ["trial", "val_accuracy"],
        "data": [[0, 0.5], [1, None]],
    }
    assert [path.read_bytes() for path in (media / "images").glob("front_*.png")] == [picture.read_bytes()]
    # What is sent of a table lies there as well, and not in the home of whoever happened to search.
    sent = [one.artifact for one in found if one.WhichOneof("record_type") == "artifact"]
    (content,) = (content for one in sent for content in one.manifest.contents)
    assert tmp_path / "wandb" in Path(content.local_path).parents
    assert json.loads(Path(content.local_path).read_text())["data"] == [[0, 0.5], [1, None]]
    assert "WANDB_DATA_DIR" not in os.environ


def test_two_trials_one_after_another_are_two_runs(tmp_path: Path) -> None:
    tracker = Tracker(Tracking(), "pareto", tmp_path)
    for number in (1, 2):
        tracker.begin(trial(number))
        tracker.end(trial(number), DONE)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
    assert not tracker.broken


def test_disabled_writes_nothing_and_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **named: pytest.fail("W&B was asked"))
    track(tmp_path, options=Tracking(mode="disabled")).study_run(
        {"trials": [{"trial": 0}]},
        {"front": tmp_path / "none.png"},
        [{"hypervolume": 1.0, "epochs": 1, "seconds": 1.0}],
    )
    assert list(tmp_path.iterdir()) == []


def test_failing_wandb_says_so_once_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(**named: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(wandb, "init", fail)
    tracker = track(tmp_path)
    tracker.begin(trial(8))
    tracker.study_run({"trials": [{"trial": 0}]}, {"front": tmp_path / "none.png"}, PROGRESS)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "explore: W&B failed and is left out from here on: No space left on device\n")


def test_folder_that_does_not_exist_yet_is_made(tmp_path: Path) -> None:
    tracker = track(tmp_path / "new" / "folder")
    assert not tracker.broken
    assert records(tmp_path / "new" / "folder")


def test_offline_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    track(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_online_without_a_key_is_refused_instead_of_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ValueError, match=r"tracking\.mode=online needs an API key, got none; set WANDB_API_KEY or run"):
        Tracking(mode="online").check()


def test_mode_is_one_of_three() -> None:
    for mode in ("offline", "disabled"):
        Tracking(mode=mode).check()
    with pytest.raises(ValueError, match=r"tracking\.mode must be one of offline, online, disabled, got 'dryrun'"):
        replace(Tracking(), mode="dryrun").check()
