"""What can be said of workers of Ray without Ray: which addresses are refused before it is asked, that an actor whose
worker cannot begin says what its node lacks, and that one whose worker has ended ends too.

python -m pytest tests/test_ray.py             # the real one: tests/test_cluster_ray.py
"""

import socket
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from explore.cluster.job import Job
from explore.cluster.ray import Ray
from explore.command import Refused
from explore.stop import _cancel as cancel

NAMELESS = "cluster.address must be auto, HOST:PORT or ray://HOST:PORT, got"


class ActorError(Exception):
    """What Ray says of an actor that is dead."""

    def __init__(self, cause: Exception | None) -> None:
        how = f"The actor died because of an error\n  File ray.py\n{type(cause).__name__}: {cause}"
        super().__init__(how if cause else "The actor is dead because it was killed by `ray.kill`.")
        self.actor_init_failed = cause is not None


class FakeRay:
    """A cluster in this process: its actors begin at once, and those that cannot are dead."""

    exceptions = SimpleNamespace(RayError=ActorError)

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.actors: dict[str, Any] = {}
        self.gone = False

    def is_initialized(self) -> bool:
        return True

    def remote(self, kind: type) -> Any:
        def options(**given: Any) -> Any:
            self.asked.append(given)
            return SimpleNamespace(remote=lambda *arguments: self.begin(kind, arguments))

        return SimpleNamespace(options=options)

    def begin(self, kind: type, arguments: tuple[Any, ...]) -> Any:
        self.actors[arguments[0]] = kind
        failed = None
        try:
            kind(*arguments)
        except Exception as cause:
            failed = cause
            del self.actors[arguments[0]]
        return SimpleNamespace(begun=SimpleNamespace(remote=lambda: failed))

    def get(self, of_a_dead_one: Exception | None, timeout: float) -> None:
        raise ActorError(of_a_dead_one)

    def get_actor(self, name: str, namespace: str = "") -> Any:
        if self.gone:
            raise ConnectionError("Client is shutting down.")
        if name not in self.actors:
            raise ValueError(f"no actor {name}")
        return name

    def kill(self, name: str, no_restart: bool) -> None:
        assert no_restart
        del self.actors[name]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)  # type: ignore[arg-type]
    return fake


def job(folder: Path, *command: str) -> Job:
    secrets = {"SECRET": "open sesame"}
    return Job(name="shoes", command=command, folder=folder, secrets=secrets, logs=folder / "logs")


def test_an_actor_ends_with_its_worker(tmp_path: Path, ray: FakeRay) -> None:
    options = Ray(gpus=0.5, cpus=3.0, resources={"place": 1.0})
    names = options.submit(job(tmp_path, "sh", "-c", 'echo "$SECRET $EXPLORE_CORES"; sleep 0.2'), 2)
    assert options.active(names) == 2
    wait_for(lambda: options.active(names) == 0)
    assert [(tmp_path / "logs" / f"{name}.log").read_text() for name in names] == ["open sesame 3\n"] * 2
    assert options.unable(names) == []
    assert [one["num_gpus"] for one in ray.asked] == [0.5, 0.5]
    assert "sesame" not in str(ray.asked)


@pytest.mark.parametrize(("gpus", "word"), [(0.0, "workers=1"), (0.5, "workers=1"), (1.0, "sh"), (2.0, "sh")])
def test_a_worker_with_a_part_of_a_gpu_works_on_one_trial(gpus: float, word: str, tmp_path: Path, ray: FakeRay) -> None:
    options = Ray(gpus=gpus)
    names = options.submit(job(tmp_path, "sh", "-c", 'echo "$0"'), 1)
    wait_for(lambda: options.active(names) == 0)
    assert (tmp_path / "logs" / f"{names[0]}.log").read_text() == f"{word}\n"


def test_a_worker_that_cannot_begin_leaves_no_actor_and_its_reason(
    tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, here = Ray(), socket.gethostname()
    names = options.submit(replace(job(tmp_path, "true"), folder=tmp_path / "gone"), 2)
    assert options.active(names) == 0
    needed = f"nodes of Ray must have {tmp_path}/gone, {tmp_path}/logs and setpriv of util-linux"
    reason = f"{needed}, got {here} without {tmp_path}/gone: No such file or directory"
    assert options.unable(names) == [reason]
    assert [(tmp_path / "logs" / f"{name}.log").read_text() for name in names] == [f"{reason}\n"] * 2
    monkeypatch.setattr(Path, "mkdir", lambda *given, **more: None)  # as if here, and not on the node
    capsys.readouterr()
    names = options.submit(replace(job(tmp_path, "true"), logs=tmp_path / "unseen"), 1)
    [reason] = options.unable(names)
    assert reason.endswith(f"got {here} without {tmp_path}/unseen/{names[0]}.log: No such file or directory")
    assert capsys.readouterr().err == f"{reason}\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    [reason] = options.unable(options.submit(job(tmp_path, "true"), 1))
    assert reason.endswith(f"got {here} without setpriv: No such file or directory")


def test_ray_that_does_not_answer_is_not_without_workers(tmp_path: Path, ray: FakeRay) -> None:
    names = Ray().submit(replace(job(tmp_path, "true"), folder=tmp_path / "gone"), 1)
    ray.gone = True
    assert Ray().active(names) is None
    assert Ray().unable(names) == []
    stopping = {"kind": "ray", "options": vars(Ray()), "names": names}
    with pytest.raises(Refused, match=r"must be a Ray cluster that answers, got auto: Client is shutting down"):
        cancel([stopping], waiting=False)


class Stillborn:
    """Beginnings of a connection of which the first so many fail at the other end."""

    def __init__(self, failures: int) -> None:
        self.failures, self.asked = failures, 0

    def __call__(self, **given: Any) -> None:
        self.asked += 1
        if self.asked <= self.failures:
            trace = "Traceback (most recent call last):\n  File proxier.py\nRuntimeError: Proxy failed to connect\n"
            raise ConnectionAbortedError(f"Initialization failure from server:\n{trace}")


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_server_that_is_dead_at_birth_is_asked_for_again(
    failures: int, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = Stillborn(failures)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init, raising=False)
    told = r"that answers, got auto: RuntimeError: Proxy failed to connect$"
    with pytest.raises(ValueError, match=told) if failures == 3 else nullcontext():
        Ray().check()
    assert init.asked == min(failures + 1, 3)


@pytest.mark.parametrize("address", ["", "head", "local", "ray://head", "http://head:80", "head:99999", "[::1"])
def test_what_is_no_address_is_refused(address: str, ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match=NAMELESS):
        Ray(address=address).check()


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nobody_listens_is_refused_at_once(
    form: str, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("explore.cluster.ray.find_spec", lambda name: name)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listening
        address = form.format(taken.getsockname()[1])
        with pytest.raises(ValueError, match=r"must be a Ray cluster that answers, got .*: Connection refused") as no:
            Ray(address=address).check()
    assert f"got {address}:" in str(no.value)


def test_a_cluster_elsewhere_needs_more_than_ray(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("explore.cluster.ray.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"cluster.address=ray://head:10001 needs grpcio.*pip install 'explore\[ray\]'"
    ):
        Ray(address="ray://head:10001").check()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
