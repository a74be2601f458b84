"""Workers behind a gRPC proxy, for real, before PostgreSQL: they fill a study as if they asked the database, claims and
ends of trials mean the same, and a proxy that is started again, or hangs, is waited for.

make test-cluster ARGS=tests/test_cluster_proxy.py
"""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster_machines import Command, answers, end_processes_below, free_port, said_by, start_command, wait_until
from cluster_services import LEFT_OPEN, PASSWORD, SMALL, Open, Postgres, start_postgres
from filled_studies import TEMPLATE, fabricated
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage
from optuna.study._frozen import FrozenStudy

from explore.evaluation import COMPLETE, Evaluation
from explore.search.grpc_proxy import Client, start_server
from explore.search.storage import open_storage, open_study
from explore.search.study import TakenOver, create_study

pytest.importorskip("grpc")
pytestmark = [pytest.mark.cluster, LEFT_OPEN]


@contextmanager
def proxy(server: Postgres, port: int) -> Iterator[Command]:
    where = ["storage=grpc", "storage.host=127.0.0.1", f"storage.port={port}"]
    process = start_command("proxy", *where, environment={"EXPLORE_STORAGE_URL": server.secret})
    try:
        wait_until(lambda: answers(port), 120, "the proxy")
        yield process
    finally:
        end_processes_below([process])
        assert process.stdout
        assert process.stderr
        with process.stdout, process.stderr:
            said = process.stdout.read() + process.stderr.read()
    assert PASSWORD not in said
    assert f"127.0.0.1:{port} stands before postgresql://explorer:***@127.0.0.1" in said


def test_workers_behind_a_proxy_fill_a_study_though_it_is_started_again(tmp_path: Path, server: Postgres) -> None:
    port = free_port()
    places = ["study=proxied", "storage=grpc", "storage.host=127.0.0.1", f"storage.port={port}"]
    sweep = [*SMALL, "trials=4", "cluster=manual"]
    with proxy(server, port):
        begin = [*sweep, *places, f"outputs={tmp_path}", "cluster.follow=false"]
        said_by(start_command("sweep", *begin, environment={}))
        workers = [start_command("worker", *places, "workers=1", environment={}) for _ in range(2)]
        study = open_study(f"grpc://127.0.0.1:{port}", "proxied")
        wait_until(lambda: [trial for trial in study.trials() if trial.evaluation.epochs], 240, "training")
    time.sleep(3)
    with proxy(server, port):
        said = [said_by(worker, 400) for worker in workers]
        assert [trial.status for trial in study.trials()] == [COMPLETE] * 4
        assert sum("nothing is left to do, report" in words for words in said) == 1
        assert "Traceback" not in "".join(said)


def test_what_has_ended_cannot_be_written_over_through_a_proxy(server: Postgres, opened: Open) -> None:
    port = free_port()
    with proxy(server, port):
        storage = open_storage(f"grpc://127.0.0.1:{port}")
        study = create_study(storage, "ended", {"space": {}})
        again = create_study(storage, "ended", {"space": {}})
        trial = study.claim(TEMPLATE.proposal, command="", target=1)
        assert trial is not None
        assert again.claim(TEMPLATE.proposal, command="", target=1) is None
        [complete] = fabricated([(0.9, 1000.0)])
        assert study.finish(trial, complete.evaluation)
        assert not again.finish(trial, Evaluation(status="failed"))
        with pytest.raises(TakenOver):
            again.beat(trial)
        assert [one.status for one in again.trials()] == [COMPLETE]
        [behind] = opened("ended").trials()
        assert (behind.evaluation, again.trials()[0].evaluation) == (complete.evaluation, complete.evaluation)


def test_a_proxy_that_hangs_is_noticed_and_waited_for(
    server: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one whose machine has lost its power: what was asked arrived, and no answer ever comes."""
    for name in ("_PING_SECONDS", "_PONG_SECONDS"):
        monkeypatch.setattr(f"explore.search.grpc_proxy.{name}", 1.0)
    port = free_port()
    with proxy(server, port) as process, ThreadPoolExecutor(1) as thread:
        study = create_study(open_storage(f"grpc://127.0.0.1:{port}"), "hanging", {"space": {}})
        process.send_signal(signal.SIGSTOP)
        answer = thread.submit(lambda: study.notes)
        said = ""

        def told() -> bool:
            nonlocal said
            said += capsys.readouterr().err
            return (
                "explore: waiting for the storage: the storage does not answer: Stream removed (ping timeout);" in said
            )

        wait_until(told, 20, "to notice")
        assert not answer.done()
        process.send_signal(signal.SIGCONT)
        assert answer.result(timeout=60) == {}


def test_a_proxy_says_that_its_database_is_away_and_can_be_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """What waits for the database in the proxy does not keep it from ending; its port is its own."""
    port = free_port()
    with start_postgres() as server, proxy(server, port) as process, ThreadPoolExecutor(1) as thread:
        again = ["storage=grpc", "storage.host=127.0.0.1", f"storage.port={port}"]
        second = start_command("proxy", *again, environment={"EXPLORE_STORAGE_URL": server.secret})
        assert "storage.host and port must be free" in second.communicate(timeout=120)[1]
        study = create_study(open_storage(f"grpc://127.0.0.1:{port}"), "away", {"space": {}})
        server.stop("immediate")
        answer = thread.submit(lambda: study.notes)
        said = ""

        def told() -> bool:
            nonlocal said
            said += capsys.readouterr().err
            return "the storage does not answer" in said

        wait_until(told, 60, "to say so")
        assert "Exception calling application" not in said
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 130
        server.start()
        with proxy(server, port):
            assert answer.result(timeout=60) == {}


def test_an_answer_that_takes_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server breaks a connection on which it is asked too often whether it is there."""
    for name in ("_PING_SECONDS", "_PONG_SECONDS"):
        monkeypatch.setattr(f"explore.search.grpc_proxy.{name}", 0.5)
    storage, port = InMemoryStorage(), free_port()
    read = storage.get_all_studies

    def slowly() -> list[FrozenStudy]:
        time.sleep(6)
        return read()

    monkeypatch.setattr(storage, "get_all_studies", slowly)
    server = start_server(storage, "127.0.0.1", port)
    try:
        with pytest.warns(ExperimentalWarning):
            client = Client(host="127.0.0.1", port=port)
        assert client.get_all_studies() == []
        client.close()
    finally:
        server.stop(0)
