"""Who measures is alone on the device, who computes shares it, nobody waits for a process that was killed, and
processes that take no turns are named.

python -m pytest tests/test_turns.py
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from explore.cost.device import driver_version
from explore.cost.turns import Turns, strangers
from explore.cost.waiting import Waiting

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
AT_ONCE, SOON = 0.2, 20.0  # seconds


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def turns() -> Iterator[Callable[[], Turns]]:
    """Turns of as many parties as are asked for: locks belong to open files, so that one process can be several."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Turns(CPU))


def waiting(turn: AbstractContextManager[None]) -> tuple[threading.Thread, threading.Event]:
    """A thread that takes a turn, and what it sets when it has it."""
    has_it = threading.Event()

    def take() -> None:
        with turn:
            has_it.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread, has_it


def test_any_number_may_compute(turns: Callable[[], Turns]) -> None:
    with turns().computing(), turns().computing():
        thread, has_it = waiting(turns().computing())
        assert has_it.wait(SOON)
        thread.join()


def test_one_measures_when_the_last_has_computed(turns: Callable[[], Turns]) -> None:
    with turns().computing():
        thread, has_it = waiting(turns().measuring())
        assert not has_it.wait(AT_ONCE)
    assert has_it.wait(SOON)
    thread.join()


@pytest.mark.parametrize("kind", ["computing", "measuring"])
def test_nobody_gets_in_while_one_measures(turns: Callable[[], Turns], kind: str) -> None:
    with turns().measuring():
        thread, has_it = waiting(getattr(turns(), kind)())
        assert not has_it.wait(AT_ONCE)
    assert has_it.wait(SOON)
    thread.join()


def test_one_who_wants_to_measure_is_not_kept_waiting_by_ever_new_steps(turns: Callable[[], Turns]) -> None:
    """Two who compute in steps that overlap leave no moment without anybody."""
    first, second, measurer = turns(), turns(), turns()
    stop = threading.Event()

    def steps(own: Turns, other: threading.Event, mine: threading.Event) -> None:
        while not stop.is_set():
            with own.computing():
                mine.set()
                other.wait(0.05)  # until the other one is in its step
                other.clear()

    a, b = threading.Event(), threading.Event()
    workers = [
        threading.Thread(target=steps, args=(first, a, b), daemon=True),
        threading.Thread(target=steps, args=(second, b, a), daemon=True),
    ]
    for worker in workers:
        worker.start()
    thread, has_it = waiting(measurer.measuring())
    assert has_it.wait(SOON)
    stop.set()
    for one in (thread, *workers):
        one.join()


HOLDER = """
import sys, tempfile, time, torch
tempfile.tempdir = sys.argv[2]
from explore.cost.turns import Turns
with getattr(Turns(torch.device("cpu")), sys.argv[1])():
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["computing", "measuring"])
def test_nobody_waits_for_a_process_that_was_killed(turns: Callable[[], Turns], own_locks: Path, kind: str) -> None:
    command = [sys.executable, "-c", HOLDER, kind, str(own_locks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "mine\n"
        thread, has_it = waiting(turns().measuring())
        assert not has_it.wait(AT_ONCE)
        os.kill(holder.pid, signal.SIGKILL)
    assert has_it.wait(SOON)
    thread.join()


@pytest.mark.parametrize("holds", ["computing", "measuring"])
@pytest.mark.parametrize("wants", ["computing", "measuring"])
def test_nobody_waits_long_for_a_process_that_was_stopped(
    turns: Callable[[], Turns], own_locks: Path, holds: str, wants: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explore.cost.turns._PATIENCE", 0.1)
    command = [sys.executable, "-c", HOLDER, holds, str(own_locks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "mine\n"
        thread, has_it = waiting(getattr(turns(), wants)())
        assert has_it.wait(AT_ONCE) is (holds == wants == "computing")
        holder.send_signal(signal.SIGSTOP)
        assert has_it.wait(SOON)
        thread.join()
        holder.kill()


def test_beside_one_who_was_stopped_the_others_keep_to_their_turns(
    turns: Callable[[], Turns], own_locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explore.cost.turns._PATIENCE", 0.3)
    command = [sys.executable, "-c", HOLDER, "measuring", str(own_locks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "mine\n"
        holder.send_signal(signal.SIGSTOP)
        one, other = turns(), turns()
        with one.measuring():
            thread, has_it = waiting(other.computing())
            assert not has_it.wait(1.0)
        assert has_it.wait(SOON)
        thread.join()
        began = time.monotonic()
        for each in (one, other, turns()):
            with each.computing():
                pass
        assert time.monotonic() - began < 0.3, "the patience is over once and for all"
        holder.kill()


FORKING = """
import os, sys, tempfile, time, torch
tempfile.tempdir = sys.argv[1]
from explore.cost.turns import Turns
with Turns(torch.device("cpu")).measuring():
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(600)
"""


def test_nobody_waits_for_the_children_of_a_process_that_was_killed(
    turns: Callable[[], Turns], own_locks: Path
) -> None:
    command = [sys.executable, "-c", FORKING, str(own_locks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        child = int(holder.stdout.readline())
        try:
            thread, has_it = waiting(turns().measuring())
            assert not has_it.wait(AT_ONCE)
            holder.kill()
            assert has_it.wait(SOON)
            thread.join()
        finally:
            os.kill(child, signal.SIGKILL)


def test_one_who_is_not_stopped_is_waited_for(
    turns: Callable[[], Turns], own_locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explore.cost.turns._PATIENCE", 0.01)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "computing", str(own_locks)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "mine\n"
        holder.send_signal(signal.SIGSTOP)
        with turns().computing():
            thread, has_it = waiting(turns().measuring())
            assert not has_it.wait(AT_ONCE)
        assert has_it.wait(SOON)
        thread.join()
        holder.kill()


@pytest.mark.parametrize("kind", ["computing", "measuring"])
def test_seconds_of_waiting_are_told(turns: Callable[[], Turns], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr("explore.cost.turns.WAITING", Waiting(told.append))
    began = time.monotonic()
    with turns().measuring():
        thread, has_it = waiting(getattr(turns(), kind)())
        assert not has_it.wait(1.5)
        assert told, "while it waits, not only in the end"
    assert has_it.wait(SOON)
    thread.join()
    assert 0.5 <= sum(told) <= time.monotonic() - began
    told.clear()
    for _ in range(2000):
        with turns().computing():
            pass
    assert not told


def test_a_gpu_ends_its_work_before_another_measures(
    gpu: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    with Turns(GPU) as trainer, Turns(GPU) as measurer:
        with trainer.computing():
            pass
        assert waited == []
        with trainer.computing():
            thread, has_it = waiting(measurer.measuring())
            while not trainer._awaited():
                assert not has_it.is_set()
        assert waited == [GPU]
        assert has_it.wait(SOON)
        thread.join()


def test_a_turn_that_fails_is_over(turns: Callable[[], Turns]) -> None:
    with pytest.raises(RuntimeError, match="broken"), turns().measuring():
        raise RuntimeError("broken")
    with turns().measuring():
        pass


def test_a_processor_has_no_strangers_and_no_driver() -> None:
    assert strangers(CPU) == []
    assert driver_version(CPU) is None


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A GPU whose `nvidia-smi` says what a test wants, in the format of the real one."""
    properties = SimpleNamespace(uuid="8b1f")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def says(text: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\n[ "$3" = --id=GPU-8b1f ] && cat <<END\n{textwrap.dedent(text).strip()}\nEND\n')
        program.chmod(0o755)

    return says


def test_the_driver_is_that_of_the_gpu(gpu: Callable[[str], None]) -> None:
    gpu("580.95.05")
    assert driver_version(GPU) == "580.95.05"


def test_processes_that_take_no_turns_are_named(gpu: Callable[[str], None]) -> None:
    other = multiprocessing.get_context("spawn").Process(target=print)
    other.start()
    other.join()  # an identifier that is no process of ours
    gpu(f"""
        {other.pid}, /usr/bin/python3
        {os.getpid()}, python
        {other.pid + 1}, /usr/bin/nvidia-cuda-mps-server
        """)
    with Turns(GPU):
        assert strangers(GPU) == [f"/usr/bin/python3 ({other.pid})"]
    gpu(f"{other.pid + 1}, /usr/bin/nvidia-cuda-mps-server")
    with Turns(GPU):
        assert strangers(GPU) == [f"/usr/bin/nvidia-cuda-mps-server ({other.pid + 1})"], "it may hide anybody"
    gpu("No running processes found")
    assert strangers(GPU) == []


@pytest.mark.parametrize(("argument", "named"), [("explore.warm", False), ("other.program", True)])
def test_trials_of_another_user_are_no_strangers(
    argument: str, named: bool, gpu: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which files their processes have open may not be seen."""
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if str(folder).endswith("/fd"):
            raise PermissionError(13, "Permission denied", str(folder))
        return iter(listed(folder))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    command = [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()", argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as theirs:
        assert theirs.stdout
        assert theirs.stdout.readline() == "here\n"
        gpu(f"{theirs.pid}, /usr/bin/python3")
        found = strangers(GPU)
        theirs.communicate("")
    assert found == ([f"/usr/bin/python3 ({theirs.pid})"] if named else [])


def test_without_nvidia_smi_nobody_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="8b1f"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert strangers(GPU) == []
    assert driver_version(GPU) is None


def test_locks_in_use_do_not_look_forgotten(turns: Callable[[], Turns], own_locks: Path) -> None:
    turns()
    files = list(own_locks.glob("explore-*.lock"))
    assert len(files) == 2
    for file in files:
        os.utime(file, (0, 0))
    began = time.time()
    turns()
    assert all(file.stat().st_mtime > began - 60 for file in files)
