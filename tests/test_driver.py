"""What a command does whose workers are elsewhere: it starts those that are missing, once, and says how to follow them.

python -m pytest tests/test_driver.py                # with real clusters: tests/test_cluster_*.py
"""

import shlex
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filled_studies import new_study

from explore import driver
from explore.cluster.job import Job
from explore.cluster.options import Manual
from explore.cluster.slurm import Slurm


def plan(folder: Path, **options: Any) -> Any:
    known = {"study": "shoes", "output": folder, "workers": 3, "notes": {"overrides": []}, "places": [], "url": ""}
    return SimpleNamespace(**known, cluster=Slurm(**options), command="python -m explore.sweep +sweep=pareto")


def test_of_two_who_begin_at_once_the_second_finds_the_workers_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def submit(self: Slurm, job: Job, count: int) -> list[str]:
        time.sleep(0.2)
        started.append(count)
        return [str(len(started))]

    def active(self: Slurm, names: Sequence[str]) -> int:
        return sum(started[int(name) - 1] for name in names)

    monkeypatch.setattr(Slurm, "submit", submit)
    monkeypatch.setattr(Slurm, "active", active)
    study = new_study()
    with ThreadPoolExecutor(2) as pool:
        names = list(pool.map(lambda _: driver.submit(plan(tmp_path), study), range(2)))
    assert (started, names) == ([3], [["1"], ["1"]])
    assert [job["names"] for job in study.notes["jobs"]] == [["1"]]


def test_nobody_is_asked_for_workers_that_were_never_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of `cluster=manual` nobody could say."""
    by_hand = plan(tmp_path)
    by_hand.cluster = Manual()
    assert driver.submit(by_hand, new_study()) == []
    assert "Start workers, on as many machines as you like: " in capsys.readouterr().err


def test_the_command_that_follows_does_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = plan(tmp_path, follow=False)
    asked.command = shlex.join(["python", "-m", "explore.sweep", "study=a b", "cluster=slurm", "cluster.follow=false"])
    assert driver.search(asked, new_study(), None, []) == 0  # type: ignore[arg-type]
    first, second = capsys.readouterr().out.splitlines()
    assert first == "Follow it: python -m explore.sweep 'study=a b' cluster=slurm"
    assert second == "Stop it:   python -m explore.stop study=shoes"
