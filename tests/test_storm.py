"""A search under blow upon blow: of a worker, the process of a trial, the command, of all at once, each a `kill -9`
at a moment drawn at random. In the end it has exactly as many trials as it should, no configuration twice and none left
running; what was found is found again; whoever was interrupted went on from the last checkpoint.

Once with curves that are looked up, and once with real training, which takes a fifth of the blows.

python -m pytest tests/test_storm.py -m slow
EXPLORE_KILLS=100 python -m pytest tests/test_storm.py -m slow    # 100 and 20, ten minutes
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
from small_sweeps import SMOKE, children_of

from benchmarks.looked_up import LOG
from explore.evaluation import COMPLETE, INTERRUPTED, RUNNING, STOPPED
from explore.search.storage import find_study
from explore.search.study import Study
from explore.search.trial import Trial, candidates, finished

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("EXPLORE_KILLS", "4"))
KINDS = {"trial": 8, "all": 2, "worker": 5, "command": 3}  # each once, then so often in proportion
EPOCHS = 27
_DEATHS = 2  # a third one in the same stretch counts as the trial's own fault
_PATIENCE_SECONDS = 600


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@dataclass
class Storm:
    """Beats down on the commands of a study, the first of which begins it; whatever is killed of them comes back."""

    name: str
    output: Path
    commands: Mapping[str, Sequence[str]]
    moments: random.Random = field(default_factory=lambda: random.Random(0))
    seen: list[Trial] = field(default_factory=list)  # as they stood when something was killed
    deaths: Counter[int] = field(default_factory=Counter)  # of processes of trials, by row
    blows: Counter[str] = field(default_factory=Counter)
    at_work: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @cached_property
    def study(self) -> Study:
        found: list[Study] = []

        def begun() -> bool:
            study = find_study(f"sqlite:///{self.output}/study.db", self.name)
            found.extend([study] if study and study.trials() else [])
            return bool(found)

        wait_for(begun, "the study")
        return found[0]

    def rage(self, kills: int) -> None:
        """So many blows; then everything comes to its end by itself."""
        try:
            for name in self.commands:
                self._start(name)
                assert self.study
            drawn = self.moments.choices(list(KINDS), list(KINDS.values()), k=kills)
            for kind in [*KINDS, *drawn][:kills]:
                strike = {"trial": self._strike_a_trial, "all": self._strike_all}.get(kind)
                strike() if strike else self._strike_one(kind)
                self.blows[kind] += 1
            for name, process in self.at_work.items():
                assert process.wait(timeout=900) == 0, self._said(name)
                assert "Traceback" not in self._said(name)
        finally:
            for process in self.at_work.values():
                _kill(process)

    def _strike_a_trial(self) -> None:
        struck: list[int] = []

        def strike() -> bool:
            time.sleep(self.moments.uniform(0, 0.5))
            self.seen += (trials := self.study.trials())
            rows = {one.folder: one.row for one in trials if one.status == RUNNING}
            alive = [(pid, row) for pid, folder in self._processes() if (row := rows.get(folder)) is not None]
            alive = [(pid, row) for pid, row in alive if self.deaths[row] < _DEATHS]
            if alive:
                pid, row = self.moments.choice(alive)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.deaths[row] += 1
                    struck.append(pid)
            return bool(struck)

        wait_for(strike, "the process of a trial")

    def _strike_one(self, kind: str) -> None:
        name = self.moments.choice([name for name in self.commands if name.startswith(kind)])
        wait_for(lambda: self._works(name), f"a trial of {name}")
        time.sleep(self.moments.uniform(0, 1))
        self.seen += self.study.trials()
        self.at_work[name].kill()  # alone: what it has started must see for itself that it is gone
        self.at_work[name].wait()
        self._start(name)

    def _strike_all(self) -> None:
        wait_for(lambda: self._works(next(iter(self.commands))), "a trial of the command")
        time.sleep(self.moments.uniform(0, 1))
        self.seen += self.study.trials()
        for process in self.at_work.values():
            _kill(process)
        for name in self.commands:
            self._start(name)

    def _start(self, name: str) -> None:
        with self._log(name).open("ab") as log:
            self.at_work[name] = subprocess.Popen(
                [sys.executable, "-m", *self.commands[name]], stdout=log, stderr=log, start_new_session=True
            )

    def _works(self, name: str) -> bool:
        assert self.at_work[name].poll() is None, f"the search is over too early: {self._said(name)}"
        pid = self.at_work[name].pid
        return any(one.status == RUNNING and one.owner["pid"] == pid for one in self.study.trials())

    def _processes(self) -> list[tuple[int, str]]:
        """Those of trials, with the folder of each."""
        found = []
        for pid in children_of(self.output):
            with suppress(OSError):
                log = Path(os.readlink(f"/proc/{pid}/fd/1"))
                found.append((int(pid), str(log.parent.relative_to(self.output))))
        return found

    def _log(self, name: str) -> Path:
        return self.output.with_name(f"{name}.said")

    def _said(self, name: str) -> str:
        return self._log(name).read_text()

    def nothing_is_lost(self, count: int, epochs: int) -> None:
        """Without a tolerance everybody is trained to the end."""
        trials = {trial.number: trial for trial in self.study.trials()}
        everyone = list(trials.values())
        assert {trial.status for trial in candidates(everyone)} == {COMPLETE}
        assert len(finished(everyone)) == count
        assert {trial.status for trial in everyone} <= {COMPLETE, STOPPED}
        assert len({trial.proposal.key for trial in everyone}) == len(everyone)
        stretches = {one.row: one for one in self.study.stretches()}
        before = [(stretches[one.continues], one) for one in stretches.values() if one.continues is not None]
        for earlier, later in [*before, *((one, trials[one.number]) for one in self.seen)]:
            # What was written down is found again with its seconds: nobody trained it twice. Of the last epoch of one
            # that was killed the checkpoint may not have been written yet.
            whole = earlier.status in (COMPLETE, STOPPED)
            kept = earlier.evaluation.curve if whole else earlier.evaluation.curve[:-1]
            assert later.evaluation.curve[: len(kept)] == kept
            assert (later.number, later.folder) == (earlier.number, earlier.folder)
        for trial in candidates(everyone):
            assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, epochs + 1))
        if self.blows.total() > self.blows["trial"]:
            assert any(one.status == INTERRUPTED for one in stretches.values())

    def times_trained(self, trial: Trial) -> Counter[int]:
        return Counter(map(int, (self.output / trial.folder / LOG).read_text().split()))

    def interruptions(self, trial: Trial) -> int:
        rows = [one for one in self.study.stretches() if one.number == trial.number]
        return sum((one.status == INTERRUPTED) + self.deaths[one.row] for one in rows)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """And all that it has started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_storm_of_kills_costs_an_epoch_each(tmp_path: Path) -> None:
    output, count = tmp_path / "looked up", 2 * KILLS
    where = ["benchmarks.table_worker", f"sqlite:///{output}/study.db", "storm", str(output)]
    options = [f"trials={count}", f"epochs={EPOCHS}", "epoch_seconds=0.1"]
    commands = {
        "command": [*where, *options, "workers=2"],
        "worker1": [*where, *options],
        "worker2": [*where, *options],
    }
    storm = Storm("storm", output, commands)
    storm.rage(KILLS)
    storm.nothing_is_lost(count, EPOCHS)
    twice = 0
    for trial in candidates(storm.study.trials()):
        times = storm.times_trained(trial)
        again = sum(times.values()) - EPOCHS
        assert set(times) == set(range(1, EPOCHS + 1))
        assert again <= storm.interruptions(trial), "a kill may cost the epoch that is being trained"
        twice += again
    # Some found their victim between two trials.
    assert sum(storm.interruptions(trial) for trial in storm.study.trials()) >= KILLS // 2
    print(f"{dict(storm.blows)}: {count} trials, {len(storm.study.stretches())} stretches, {twice} epochs twice")


def test_a_storm_of_kills_on_real_training(tmp_path: Path) -> None:
    kills = max(2, KILLS // 5)
    count, epochs = 5 * (kills - 1), 9
    own = [f"trials={count}", f"training.epochs={epochs}", "search.tolerance=0", f"outputs={tmp_path}"]
    commands = {
        "command": ["explore.sweep", *SMOKE, *own],
        "worker": ["explore.worker", "study=smoke", f"outputs={tmp_path}", "workers=1"],
    }
    storm = Storm("smoke", tmp_path / "smoke", commands)
    storm.rage(kills)
    storm.nothing_is_lost(count, epochs)
    print(f"{dict(storm.blows)}: {count} trials, {len(storm.study.stretches())} stretches")
    assert (tmp_path / "smoke/report.html").exists()
