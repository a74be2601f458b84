"""A PostgreSQL server in trouble, for real, and workers that wait for it: nobody is given up for the time that nobody
could be heard, and no trial is trained twice.

What is proved: a server that freezes for longer than a worker may be silent; connections that are cut; a machine whose
network is down for a moment, and then for so long that another one takes its trial, over which it does not write; a
machine that is gone and held a lock; a disk that is full and a database that is read-only are said in words.

make test-cluster ARGS=tests/test_cluster_database.py
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cluster_machines import DIE_WITH_US, ROOT, end_processes_below, said_by, start_command, start_network, wait_until
from cluster_services import EPOCHS, LEFT_OPEN, PASSWORD, Open, Postgres, assert_whole, begin, epochs_of
from filled_studies import TEMPLATE

from explore.evaluation import RUNNING
from explore.faults import Unwritable
from explore.search import patience
from explore.search.owner import GIVEN_UP_SECONDS
from explore.search.storage import open_storage
from explore.search.study import Study, create_study

pytestmark = [pytest.mark.cluster, LEFT_OPEN]
ENVIRONMENT = {"PGPASSWORD": PASSWORD}
CUT = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'explorer'"


def assert_nobody_was_given_up(study: Study) -> None:
    assert {one.continues for one in study.stretches()} == {None}


def hosts_at_work(study: Study) -> set[str]:
    """Those that have trained some epochs."""
    return {trial.owner["host"] for trial in study.trials() if trial.evaluation.epochs}


@pytest.mark.slow
def test_nobody_is_given_up_for_the_time_that_the_server_was_frozen(
    tmp_path: Path, server: Postgres, opened: Open
) -> None:
    places = begin("frozen", tmp_path, server.url, "trials=4", f"training.epochs={EPOCHS}")
    workers = [
        start_command("worker", *places, "workers=1", environment=ENVIRONMENT, machine=name)
        for name in ("alpha", "beta")
    ]
    study = opened("frozen")
    wait_until(lambda: len(hosts_at_work(study)) == 2, 120, "training", workers)
    with server.frozen():
        time.sleep(GIVEN_UP_SECONDS + 10)
    said = [said_by(worker) for worker in workers]
    assert_whole(study, 4, epochs=EPOCHS)
    assert_nobody_was_given_up(study)
    assert not any("Traceback" in words for words in said)


def test_connections_that_are_cut_are_made_again(tmp_path: Path, server: Postgres, opened: Open) -> None:
    places = begin("cut", tmp_path, server.url, "trials=3", "training.epochs=200")
    study = opened("cut")
    worker = start_command("worker", *places, "workers=2", environment=ENVIRONMENT)
    wait_until(lambda: epochs_of(study), 120, "training", [worker])
    for _ in range(10):
        assert "(0 rows)" not in server.order(CUT)
        time.sleep(0.7)
    said = said_by(worker)
    assert_whole(study, 3, epochs=200)
    assert_nobody_was_given_up(study)
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_machine_whose_network_was_down_goes_on_or_leaves_its_trial_to_others(
    tmp_path: Path, server: Postgres, opened: Open
) -> None:
    # It trains on while it hears of nobody, and must not come to the end.
    places = begin("network", tmp_path, server.url, "trials=2", "training.epochs=1200")
    study = opened("network")
    with start_network(cable=True) as network:
        by_cable = [f"storage.url={server.url_at(network.gateway)}", "workers=1"]
        alpha = start_command(
            "worker", places[0], *by_cable, environment=ENVIRONMENT, prefix=network.prefix, machine="alpha"
        )
        wait_until(lambda: epochs_of(study) > 3, 120, "training", [alpha])
        network.cut()
        before = epochs_of(study)
        time.sleep(10)
        assert epochs_of(study) <= before + 1
        network.mend()
        wait_until(lambda: epochs_of(study) > before + 1, 60, "going on", [alpha])
        assert_nobody_was_given_up(study)
        network.cut()
        beta = start_command("worker", *places, "workers=1", environment=ENVIRONMENT, machine="beta")
        wait_until(lambda: study.trials()[0].owner["host"] == "beta", 300, "taking over", [beta])
        assert (study.trials()[0].number, study.trials()[0].status) == (0, RUNNING)
        assert study.trials()[0].folder != "trials/0000"
        network.mend()
        said = said_by(alpha), said_by(beta)
    assert_whole(study, 2, epochs=1200)
    assert study.trials()[0].owner["host"] == "beta"
    assert "waiting for the storage: the storage does not answer: " in said[0]
    assert not any("Traceback" in words for words in said)


HOLD = """
import sys, time
from sqlalchemy import text
from explore.search.storage import open_storage
engine = vars(open_storage(sys.argv[1]))["_storage"]._backend.engine
with engine.connect() as connection:
    connection.execute(text("select * from studies for update"))
    print("held", flush=True)
    time.sleep(3600)
"""


def test_a_machine_that_is_gone_holds_no_lock_for_long(server: Postgres, opened: Open) -> None:
    create_study(open_storage(server.secret), "locked", {"space": {}})
    study = opened("locked")
    with start_network(cable=True) as network:
        line = [*DIE_WITH_US, *network.prefix, sys.executable, "-c", HOLD, server.url_at(network.gateway)]
        everything = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        holder = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=everything)
        assert holder.stdout
        with holder.stdout:
            assert holder.stdout.readline() == "held\n"
            network.cut()
            cut = time.monotonic()
            trial = study.claim(TEMPLATE.proposal, command="", target=1)
            waited = time.monotonic() - cut
            end_processes_below([holder])
    assert trial is not None
    assert 20 < waited < 300, "it was locked, and not for ever"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,uid=postgres,mode=700", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while out.write(bytes(4096)):
            pass


def test_a_database_that_keeps_nothing_is_said_in_words_and_waited_for(
    tmp_path: Path, server: Postgres, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, log = server.folder / "small", tmp_path / "log"
    with small_disk(small):
        server.order(f"create tablespace small location '{small}'")
        server.order("alter database explore set tablespace small")
        # It would make room for the next record out of the one before.
        server.order("alter system set autovacuum = off")
        server.order("select pg_reload_conf()")
        places = begin("full", tmp_path, server.url, "trials=2", "training.epochs=600")
        study = opened("full")
        logged = ["sh", "-c", f'exec "$@" 2> {log}', "sh"]
        worker = start_command("worker", *places, "workers=1", environment=ENVIRONMENT, prefix=logged)
        wait_until(lambda: epochs_of(study) > 3, 120, "training", [worker])
        monkeypatch.setattr(patience, "_PATIENCE_SECONDS", 2)

        fill(small / "filler")
        words = "the study must be kept, but no space is left on the disk of the database"
        wait_until(lambda: f"waiting for the storage: {words}" in log.read_text(), 60, "a full disk", [worker])
        with pytest.raises(Unwritable, match=words):
            study.note("long", "x" * 10_000_000)
        (small / "filler").unlink()
        before = epochs_of(study)
        wait_until(lambda: epochs_of(study) > before, 60, "going on", [worker])

        words = "the study must be kept, but the database is read-only"
        server.order("alter database explore set default_transaction_read_only = on")
        server.order(CUT)
        wait_until(lambda: f"waiting for the storage: {words}" in log.read_text(), 60, "a refusal", [worker])
        with pytest.raises(Unwritable, match=words):
            study.note("short", "x")
        server.order("alter database explore set default_transaction_read_only = off")
        server.order(CUT)
        said_by(worker)
        assert_whole(study, 2, epochs=600)
        assert_nobody_was_given_up(study)
        assert "Traceback" not in log.read_text()
        server.order(CUT)
        server.order("alter database explore set tablespace pg_default")
