"""Workers of one machine leave when told to, take turns, say what they died of, and share its cores.

python -m pytest tests/test_local.py
"""

import os
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from explore.cluster import local
from explore.cluster.local import Crew, Stop, cores, in_turn, threads_each
from explore.control_groups import quota


def test_a_crew_leaves_when_told_to_and_says_what_was_lost() -> None:
    left = []

    def work(place: int, stop: Stop) -> None:
        while not stop():
            time.sleep(0.01)
        left.append(threading.current_thread())
        if len(left) == 2:
            raise RuntimeError("the second falls")

    crew = Crew(work, 2)
    assert crew.working()
    crew.stop()
    assert not crew.working()
    assert len(left) == 2
    [report] = crew.lost
    assert "RuntimeError: the second falls" in report


def test_only_one_at_a_time_has_its_turn(tmp_path: Path) -> None:
    inside, most = [], []

    def work(place: int, stop: Stop) -> None:
        for _ in range(5):
            with in_turn(tmp_path / ".turn"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    crew = Crew(work, 4)
    crew.stop()
    assert (len(most), max(most), crew.lost) == (20, 1, [])


def test_workers_of_a_crew_have_places() -> None:
    places: list[int] = []
    crew = Crew(lambda place, stop: places.append(place), 3)
    crew.stop()
    assert sorted(places) == [0, 1, 2]


def test_a_turn_ends_with_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), in_turn(tmp_path / ".turn"):
        raise KeyError
    with in_turn(tmp_path / ".turn"):
        pass


def test_a_container_computes_with_as_many_threads_as_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "EXPLORE_CORES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(local, "quota", partial(quota, tmp_path, tmp_path / "own"))
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert (cores(), threads_each(2)) == (4, 2)
    monkeypatch.setenv("EXPLORE_CORES", "2")
    assert cores() == 2
    (tmp_path / "cpu.max").write_text("9900000 100000\n")
    monkeypatch.delenv("EXPLORE_CORES")
    assert cores() == 64


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "EXPLORE_CORES"])
def test_a_job_has_no_more_cores_than_were_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(local, "quota", lambda: None)
    assert cores() == 64
    monkeypatch.setenv(name, "4")
    assert cores() == 4


@pytest.mark.parametrize(
    ("asked", "processes", "threads"),
    [(None, 2, 32), ("4", 2, 4), ("40", 2, 32), ("4,2", 1, 4), ("", 1, 64), ("0", 1, 64), ("x", 3, 21), (None, 99, 1)],
)
def test_nobody_computes_with_more_threads_than_openmp_is_told(
    asked: str | None, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explore.cluster.local.cores", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads_each(processes) == threads


def test_there_is_a_core() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
