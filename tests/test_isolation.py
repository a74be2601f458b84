"""A trial that raises, dies again and again or hangs costs itself and nothing else, one that died goes on, several
processes of one trial live and die together, and no trial outlives its worker."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from explore import faults
from explore.cluster import isolation
from explore.cluster.isolation import Isolated
from explore.cluster.pages import collapse_pages
from explore.cost.record import Cost
from explore.cost.waiting import WAITING
from explore.evaluation import COMPLETE, FAILED, STOPPED, Epoch, Evaluation, Report

COST = Cost(params=1, macs=2, memory_bytes=3, throughput=None)
EPOCH = Epoch(epoch=0, train_loss=1.0, val_loss=1.0, val_accuracy=0.5, lr=0.1, seconds=1.0)
DONE = Evaluation(status=COMPLETE, cost=COST, curve=(EPOCH,), seconds={"train": 1.0})


def reporting(job: str, folder: Path, report: Report) -> Evaluation:
    report(COST)
    report(EPOCH)
    return DONE


def printing(job: str, folder: Path, report: Report) -> Evaluation:
    print("printed", job)
    print("complained", file=sys.stderr)
    subprocess.run(["echo", "from below"], check=True)
    return DONE


def raising(job: str, folder: Path, report: Report) -> Evaluation:
    raise RuntimeError("a tensor has the wrong shape")


def exiting(job: str, folder: Path, report: Report) -> Evaluation:
    report(COST)
    os._exit(3)


def killed(job: str, folder: Path, report: Report) -> Evaluation:
    os.kill(os.getpid(), getattr(signal, job))
    return DONE


def dying_once(job: str, folder: Path, report: Report) -> Evaluation:
    """Die in the middle, and find what was left behind the next time."""
    report(COST)
    if not (folder / "left").exists():
        (folder / "left").write_text("half")
        os.kill(os.getpid(), getattr(signal, job))
    report(EPOCH)
    return DONE


def filling_the_disk(job: str, folder: Path, report: Report) -> Evaluation:
    report(EPOCH)
    with Path("/dev/full").open("w") as file:
        file.write("x" * 100_000)
    return DONE


def one_of_two(job: str, folder: Path, report: Report) -> Evaluation:
    """What `job` says in the second process of a team, for which the first waits, as for a message, or not."""
    place = int(os.environ["LOCAL_RANK"])
    report(EPOCH)
    shared = [os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES")]
    (folder / f"seen{place}").write_text(":".join(shared))
    while not (folder / f"seen{1 - place}").exists():
        time.sleep(0.01)
    if place == 0:
        time.sleep(0 if job == "COMPLETE" else 60)
        return DONE
    if job == "raise":
        raise RuntimeError("the second falls")
    if job == "die" and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Evaluation(status=STOPPED if job == "COMPLETE" else "diverged", reason=job)


def breaking_off(job: str, folder: Path, report: Report) -> Evaluation:
    """Die in the middle of a message."""
    os.write(report.__self__.fileno(), struct.pack("!i", 1000) + b"half")  # type: ignore[attr-defined]
    os._exit(3)


def lingering(job: str, folder: Path, report: Report) -> Evaluation:
    threading.Thread(target=time.sleep, args=(60,)).start()
    return DONE


def sleeping(job: str, folder: Path, report: Report) -> Evaluation:
    (folder / "pid").write_text(str(os.getpid()))
    report(EPOCH)
    time.sleep(60)
    return DONE


def hundred_seconds(job: str, folder: Path, report: Report) -> Evaluation:
    """Its report says to the test's clock that they are over."""
    if job == "waits for them":
        for _ in range(100):
            WAITING.add(1.0)
    report(EPOCH)
    time.sleep(2)
    return DONE


def idle() -> None:
    """Nothing to do while a trial runs."""


@pytest.fixture(scope="module", autouse=True)
def server() -> None:
    """Nothing here needs torch: a server that has not imported it is ready at once."""
    patch = pytest.MonkeyPatch()
    patch.setattr(isolation, "_PRELOAD", ["explore.evaluation"])
    isolation.start_server()
    patch.undo()


def evaluate(evaluator: Callable[[str, Path, Report], Evaluation], folder: Path, job: str = "job") -> Evaluation:
    return Isolated(evaluator, idle)(job, folder, lambda item: None)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)
    return happened()


def test_the_evaluation_and_its_reports_come_through(tmp_path: Path) -> None:
    seen: list[Cost | Epoch] = []
    assert Isolated(reporting, idle)("job", tmp_path / "new" / "folder", seen.append) == DONE
    assert seen == [COST, EPOCH]


def test_what_is_printed_goes_to_the_log_of_the_trial(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(printing, tmp_path, "one")
    evaluate(printing, tmp_path, "two")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert sorted(lines) == sorted(["printed one", "printed two", *2 * ["complained", "from below"]])
    assert capfd.readouterr() == ("", "")


def test_an_exception_is_a_failure_with_its_reason_and_its_traceback_is_logged(tmp_path: Path) -> None:
    result = evaluate(raising, tmp_path)
    assert (result.status, result.reason) == (FAILED, "RuntimeError: a tensor has the wrong shape")
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_an_exit_is_a_failure(tmp_path: Path) -> None:
    result = evaluate(exiting, tmp_path)
    assert result == Evaluation(
        status=FAILED, reason=f"its process ended with exit status 3, 3 times in all; see {tmp_path / 'log.txt'}"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SIGKILL", "its process was killed by SIGKILL, as the system does when memory runs out"),
        ("SIGSEGV", "its process was killed by SIGSEGV"),
        ("SIGBUS", "its process was killed by SIGBUS, as when a file that it reads was cut short"),
    ],
)
def test_a_process_that_is_killed_again_and_again_is_a_failure(name: str, reason: str, tmp_path: Path) -> None:
    result = evaluate(killed, tmp_path, name)
    assert result == Evaluation(status=FAILED, reason=f"{reason}, 3 times in all; see {tmp_path / 'log.txt'}")


def test_a_process_that_was_killed_is_started_again_and_says_so(tmp_path: Path) -> None:
    seen: list[Cost | Epoch] = []
    result = Isolated(dying_once, idle)("SIGKILL", tmp_path, seen.append)
    reason = "its process was killed by SIGKILL, as the system does when memory runs out, and was started again"
    assert result == replace(DONE, reason=reason)
    assert seen == [COST, COST, EPOCH]


def test_one_that_has_a_single_life_is_not_started_again(tmp_path: Path) -> None:
    result = Isolated(dying_once, idle, lives=1)("SIGKILL", tmp_path, lambda item: None)
    reason = "its process was killed by SIGKILL, as the system does when memory runs out; see "
    assert result == Evaluation(status=FAILED, reason=f"{reason}{tmp_path / 'log.txt'}")


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    result = Isolated(sleeping, idle, minutes=0.5 / 60)("job", tmp_path, lambda item: None)
    assert result.status == FAILED
    assert result.reason == "it took longer than 0.00833333 minutes (stopping.max_minutes) and was ended"
    assert not (tmp_path / "pid").exists() or not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(("job", "status"), [("works for a hundred seconds", FAILED), ("waits for them", COMPLETE)])
def test_a_wait_for_a_turn_does_not_count(
    job: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(isolation, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))

    def later(item: Cost | Epoch) -> None:
        now[0] += 100

    assert Isolated(hundred_seconds, idle, minutes=1)(job, tmp_path, later).status == status


def test_a_full_disk_is_no_fault_of_the_candidate(tmp_path: Path) -> None:
    with pytest.raises(
        faults.Unwritable, match=r"results must be kept, but no space is left on the disk; .* make room"
    ):
        evaluate(filling_the_disk, tmp_path)


@pytest.mark.parametrize(
    ("job", "status", "reason"),
    [
        ("COMPLETE", COMPLETE, ""),
        ("diverged", "diverged", "diverged"),
        ("raise", FAILED, "RuntimeError: the second falls"),
        ("die", "diverged", "die; its process was killed by SIGKILL, as the system does when memory runs out, and was"),
    ],
)
def test_a_team_has_one_result_and_one_that_reports(
    job: str, status: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_END_SECONDS", 0.2)
    seen: list[Cost | Epoch] = []
    gpus = {"CUDA_VISIBLE_DEVICES": "2,3"}
    result = Isolated(one_of_two, idle, processes=2, environment=gpus)(job, tmp_path, seen.append)
    assert result.status == status
    assert result.reason.startswith(reason)
    assert EPOCH in seen
    assert (tmp_path / "seen0").read_text().startswith("127.0.0.1:")
    assert (tmp_path / "seen0").read_text().endswith(":2,3")
    if job != "die":
        assert len(seen) == 1
        assert (tmp_path / "seen0").read_text() == (tmp_path / "seen1").read_text()


def test_a_process_that_dies_in_the_middle_of_a_message_is_a_failure(tmp_path: Path) -> None:
    result = evaluate(breaking_off, tmp_path)
    assert result.status == FAILED
    assert "exit status 3" in result.reason


def test_a_process_that_hangs_after_its_result_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_END_SECONDS", 0.2)
    assert evaluate(lingering, tmp_path) == DONE


def test_an_order_to_stop_ends_the_process_and_goes_on(tmp_path: Path) -> None:
    def tick() -> None:
        if (tmp_path / "pid").exists():
            raise InterruptedError("told to leave")

    with pytest.raises(InterruptedError, match="told to leave"):
        Isolated(sleeping, tick)("job", tmp_path, lambda item: None)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_what_ends_all_processes_of_a_job_is_left_to_the_worker(tmp_path: Path) -> None:
    """Otherwise a preempted trial might be recorded as failed before the worker has heard of it."""
    told: list[int] = []

    def tick() -> None:
        if (tmp_path / "pid").exists() and (pid := (tmp_path / "pid").read_text()):
            os.kill(int(pid), signal.SIGTERM)
            told.append(int(pid))
        if len(told) > 1:
            raise InterruptedError("told to leave")

    with pytest.raises(InterruptedError, match="told to leave"):
        Isolated(sleeping, tick)("job", tmp_path, lambda item: None)
    assert not alive(told[0])


def test_a_report_that_is_refused_ends_the_process(tmp_path: Path) -> None:
    def refuse(item: Cost | Epoch) -> None:
        raise LookupError("given up")

    with pytest.raises(LookupError, match="given up"):
        Isolated(sleeping, idle)("job", tmp_path, refuse)
    assert not alive(int((tmp_path / "pid").read_text()))


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_isolation import Isolated, idle, sleeping
if __name__ == "__main__":
    Isolated(sleeping, idle)("job", Path({folder!r}), lambda item: None)
"""


def test_a_trial_does_not_outlive_its_worker(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    with subprocess.Popen([sys.executable, str(tmp_path / "worker.py")]) as worker:
        assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", 30)
        trial = int((tmp_path / "pid").read_text())
        assert alive(trial)
        worker.kill()
    assert wait_for(lambda: not alive(trial))


def test_threads_may_evaluate_at_once(tmp_path: Path) -> None:
    results: dict[int, Evaluation] = {}
    evaluators = [reporting, raising, exiting]

    def run(number: int) -> None:
        results[number] = evaluate(evaluators[number], tmp_path / str(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[number].status for number in range(3)] == [COMPLETE, FAILED, FAILED]


def test_memory_in_large_pages_is_what_it_was() -> None:
    """The system may refuse: it is for the speed of a fork alone."""
    before = [os.urandom(2**22), bytearray(os.urandom(2**22))]
    copies = [bytes(one) for one in before]
    collapse_pages()
    before[1].append(1)
    assert [before[0], before[1][:-1]] == copies


def test_memory_is_put_into_large_pages_once_a_server_was_forked_often() -> None:
    code = """
import os
from explore.cluster import pages
pages.collapse_pages = lambda: print("collapsed after", forks)
pages.collapse_pages_after(2)
for forks in range(1, 5):
    if not (child := os.fork()):
        for _ in range(3):
            os.fork() or os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("collapsed after 2\n", "")
