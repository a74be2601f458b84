"""What goes wrong in the middle of a real search costs no more than it must, is said in words, and nothing is lost.

python -m pytest tests/test_survival.py -m slow
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sweeps import WHOLE, study_of, sweep, trials_of

from explore.evaluation import COMPLETE, FAILED, REFUSED, STOPPED

pytestmark = pytest.mark.slow

OPTIONS = [*WHOLE, "references=[]", "tracking.mode=disabled", "workers=1"]
ROOM = 280  # MiB: too little for a whole batch of the candidate below, enough for an eighth


def meanwhile(act: Callable[[], bool]) -> threading.Thread:
    """Call `act` again and again until it has done what it waits for."""

    def wait() -> None:
        deadline = time.monotonic() + 600
        while not act() and time.monotonic() < deadline:
            time.sleep(0.01)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


FULL = """
import json, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from explore.search.storage import open_study

out = sys.argv[1]
command = [sys.executable, "-m", "explore.sweep", *{smoke!r}, "trials=3", "training.epochs=4", f"outputs={{out}}"]
seen = []

def mount(*options):
    subprocess.run(["mount", *options, out], check=True)

def read():
    trials = open_study(f"sqlite:///{{out}}/smoke/study.db", "smoke").trials()
    curves = [[epoch.train_loss for epoch in one.evaluation.curve] for one in trials]
    return [[one.status for one in trials], curves, [str(path) for path in Path(out).rglob("*.partial")]]

def run():
    done = subprocess.run(command, capture_output=True, text=True)
    # In another process: a file system with files that are open does not become read-only.
    with ProcessPoolExecutor(1, get_context("fork")) as reader:
        seen.append([done.returncode, done.stderr, *reader.submit(read).result()])

mount("-t", "tmpfs", "-o", "size=300k", "tmpfs")
run()
mount("-o", "remount,ro")
run()
mount("-o", "remount,rw,size=100m")
run()
print(json.dumps(seen))
"""


def test_a_full_disk_and_a_read_only_one_end_a_search_in_words_and_it_goes_on(tmp_path: Path) -> None:
    """On a file system of its own, in a namespace of its own, so that nobody needs to be an administrator."""
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*own, "true"], capture_output=True).returncode:
        pytest.skip("this kernel allows no file system of one's own")
    (tmp_path / "out").mkdir()
    script = [sys.executable, "-c", FULL.format(smoke=["+sweep=smoke", *OPTIONS]), str(tmp_path / "out")]
    done = subprocess.run([*own, *script], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    full, read_only, whole = json.loads(done.stdout)
    status, error, statuses, curves, files = full
    assert status == 2, error
    assert "but no space is left on the disk" in error
    assert "make room, and the same command goes on" in error
    assert "Traceback" not in error
    assert not files, "a disk that is full has better use for the room"
    assert FAILED not in statuses
    assert 0 < statuses.count(COMPLETE) < 3, "the disk of this test is too large or too small"
    assert read_only[0] == 2
    assert "outputs must be a folder that can be written to" in read_only[1]
    assert read_only[2:4] == [statuses, curves]
    assert whole[0] == 0, whole[1]
    assert whole[2] == [COMPLETE] * 3
    for before, after in zip(curves, whole[3], strict=False):
        assert after[: len(before)] == before, "what was found is kept"


def members(folder: Path, trial: int) -> list[int]:
    """The processes of a trial."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "fd" / "1") == str(folder / f"smoke/trials/{trial:04d}/log.txt"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_trial_that_is_killed_goes_on_and_one_that_dies_again_and_again_has_failed(tmp_path: Path) -> None:
    killed: list[int] = []
    first: dict[int, int] = {}

    def heard_of(trial: int) -> bool:
        """Whether there is a second checkpoint: of the first one its epochs were reported then."""
        checkpoint = tmp_path / f"smoke/trials/{trial:04d}/last.ckpt"
        written = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        return bool(written) and first.setdefault(trial, written) != written

    def kill() -> bool:
        """The first trial each time that it has two checkpoints and lives, the second once."""
        for trial, times in ((0, 3), (1, 4)):
            ready = heard_of(trial) and len(killed) < times
            for process in members(tmp_path, trial) if ready else []:
                if process not in killed:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
        return len(killed) == 4

    thread = meanwhile(kill)
    assert sweep(tmp_path, *OPTIONS, "trials=2", "training.epochs=120") == 0
    thread.join(1)
    failed, complete = trials_of(tmp_path)
    assert (failed.status, complete.status) == (FAILED, COMPLETE)
    death = "its process was killed by SIGKILL, as the system does when memory runs out"
    assert failed.evaluation.reason.startswith(f"{death}, 3 times in all; see ")
    assert failed.evaluation.curve, "what was known of it is kept"
    assert complete.evaluation.reason == f"{death}, and was started again"
    assert [epoch.epoch for epoch in complete.evaluation.curve] == list(range(1, 121))
    assert len(killed) == 4


HANGING = """
import time
from multiprocessing import parent_process
from pathlib import Path
from explore.architecture.layers import TokenMixing
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

HANGS = Path(__file__).with_name("hangs")

class Hanging(TokenMixing):
    def __init__(self, grid, width, *, at_all: bool = True):
        super().__init__()
    def forward(self, x):
        if self.training:
            HANGS.touch()
            time.sleep(600)
        return x

class Neighbour(TokenMixing):
    def __init__(self, grid, width, *, at_all: bool = True):
        super().__init__()
        while parent_process() and not HANGS.exists():
            time.sleep(0.1)
    def forward(self, x):
        return x

TOKEN_MIXINGS |= {'hanging': Hanging, 'neighbour': Neighbour}
"""


def test_a_trial_that_hangs_is_ended_and_its_neighbour_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging_mixing.py").write_text(HANGING)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["imports=[hanging_mixing]", "sampler=grid", "space.token_mixing=choice(hanging, neighbour)"]
    fixed = [f"space.model.{name}=choice({value})" for name, value in (("patch_size", 4), ("depth", 1), ("width", 8))]
    limit = ["space.training.lr=choice(0.01)", "stopping.max_minutes=0.6", "trials=2", "workers=2"]
    try:
        assert sweep(tmp_path, *OPTIONS, *options, *fixed, *limit) == 0
    finally:
        from hydra.core.config_store import ConfigStore

        from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

        for name in ("hanging", "neighbour"):
            TOKEN_MIXINGS.pop(name, None)
            ConfigStore.instance().repo["token_mixing"].pop(f"{name}.yaml", None)
        sys.modules.pop("hanging_mixing", None)
    by_mixing = {trial.proposal.values["token_mixing"]: trial for trial in trials_of(tmp_path)}
    assert by_mixing["neighbour"].status == COMPLETE, "it waited to measure, for as long as it has"
    assert by_mixing["hanging"].status == FAILED
    assert (
        by_mixing["hanging"].evaluation.reason == "it took longer than 0.6 minutes (stopping.max_minutes) and was ended"
    )
    assert by_mixing["hanging"].throughput, "what was measured is kept"


def test_images_that_break_while_a_search_runs_change_nothing(tmp_path: Path) -> None:
    images = tmp_path / "images"
    generator = np.random.default_rng(0)
    for label in ("boots", "sandals"):
        (images / label).mkdir(parents=True)
        for number in range(40):
            pixels = generator.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(images / label / f"{number}.png")

    def damage() -> bool:
        if not (tmp_path / "smoke/trials/0000/log.txt").exists():
            return False
        (images / "boots" / "0.png").write_text("no image any more")
        (images / "sandals" / "0.png").unlink()
        return True

    thread = meanwhile(damage)
    options = ["data=folder", f"data.path={images}", "training.batch_size=16", f"data.cache={tmp_path / 'cache'}"]
    assert sweep(tmp_path, *OPTIONS, *options, "trials=3") == 0
    thread.join(1)
    assert (images / "boots" / "0.png").read_text() == "no image any more"
    trials = trials_of(tmp_path)
    assert [trial.status for trial in trials] == [COMPLETE] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 1, "the files were not looked at again"
    assert not [trial.command for trial in trials if "snapshot" in trial.command]
    assert sweep(tmp_path, *OPTIONS, *options, "trials=4") == 2, "but before the next search begins"


def test_a_trial_may_have_several_devices(tmp_path: Path) -> None:
    """Two processes with gloo: one trial, not one for each, with the rungs and the curves of one process."""
    options = ["training.accelerator=cpu", "training.threads=1", "training.epochs=3", "trials=3", "stopping.rule=rungs"]
    options += ["training.precision=32-true"]
    found = []
    for devices in (1, 2):
        folder, several = tmp_path / str(devices), ["training.strategy=ddp"] if devices == 2 else []
        seen = [0]
        thread = meanwhile(lambda: bool(seen.append(len(members(folder, 0)))) or seen[-1] < max(seen))  # noqa: B023
        assert sweep(folder, *OPTIONS, *options, f"training.devices={devices}", *several) == 0
        thread.join(1)
        assert max(seen) == devices
        found.append(trials_of(folder))
    for one, two in zip(*found, strict=True):
        assert one.proposal.key == two.proposal.key
        assert two.throughput
        # Who goes on beyond the first rung depends on the speeds that were measured.
        for epoch, same in zip(one.evaluation.curve, two.evaluation.curve, strict=False):
            assert same.train_loss == pytest.approx(epoch.train_loss, rel=1e-3)
            assert same.val_accuracy == pytest.approx(epoch.val_accuracy, abs=0.01)
    assert {(trial.evaluation.epochs, trial.status) for trial in found[1]} <= {(1, STOPPED), (3, COMPLETE)}
    assert COMPLETE in {trial.status for trial in found[1]}
    notes = study_of(tmp_path / "2").notes
    assert notes["test_accuracy"], "the front was tested, on one device"


LITTLE = """
import json, resource, sys
from pathlib import Path
import explore.warm
from explore.candidate import build, evaluate
from explore.config import compose
from explore.data.dataset import load

candidate = compose(sys.argv[2:]).candidate
load(candidate.data)
with open("/proc/self/status") as file:
    used = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmSize"))
room = int(sys.argv[1]) << 20
if room:
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
import tempfile
print(json.dumps(evaluate(candidate, Path(tempfile.mkdtemp()), lambda item: None).to_dict()))
"""


def evaluated(room: int) -> dict[str, object]:
    """A candidate evaluated by a process that gets so many MiB more; 0 for no limit."""
    options = ["data=digits", "model.patch_size=1", "model.width=96", "model.depth=3", "throughput=off"]
    options += ["training.batch_size=512", "training.epochs=1", "training.threads=1", "cost.batch_size=1"]
    script = [sys.executable, "-c", LITTLE, str(room), *options, "training.precision=32-true"]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(script, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_out_of_memory_is_tried_again_in_parts_and_then_infeasible() -> None:
    """The address space of the process is limited: the allocator of PyTorch really fails."""
    whole, parts, none = evaluated(0), evaluated(ROOM), evaluated(40)
    assert (whole["status"], whole["reason"]) == (COMPLETE, "")
    assert (parts["status"], parts["reason"]) == (
        COMPLETE,
        "out of memory with whole batches, went on with each in 8 parts",
    )
    for one, other in zip(whole["curve"], parts["curve"], strict=True):  # type: ignore[call-overload]
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert other["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=0.01)
    assert none["status"] == REFUSED
    assert str(none["reason"]).startswith("out of memory: ")
    assert none["constraints"] == {"memory": 1.0}
