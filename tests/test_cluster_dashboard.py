"""The dashboard on a study that a PostgreSQL server keeps: it shows the study, deletes nothing, goes on when the server
was started again, and shows no password to anybody.

make test-cluster ARGS=tests/test_cluster_dashboard.py
"""

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from cluster_machines import PATIENCE, Command, start_command, wait_until
from cluster_services import LEFT_OPEN, PASSWORD, Open, Postgres
from filled_studies import add

from explore.evaluation import COMPLETE
from explore.search.storage import open_storage
from explore.search.study import create_study

pytestmark = [pytest.mark.cluster, LEFT_OPEN]


@contextmanager
def dashboard(environment: Mapping[str, str], *arguments: str) -> Iterator[tuple[Command, str]]:
    """The command, and the address of its pages; nothing that it says and nobody who looks on sees the password."""
    process = start_command(
        "dashboard", "study=shown", *arguments, "port=0", "browser=off", "format=json", environment=environment
    )
    assert process.stdout
    line = process.stdout.readline()
    yield process, json.loads(line or process.communicate()[1])["url"]
    seen = subprocess.check_output(["ps", "-eo", "args"], text=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60 * PATIENCE)
    assert process.returncode in (0, 130), err
    assert "explore.dashboard" in seen
    for text in (seen, line, out, err):
        assert PASSWORD not in text


def asked(url: str, path: str = "", method: str = "GET") -> str:
    begin, _, number = url.partition("/dashboard/studies/")
    address = f"{begin}{path}/{number}" if path else url
    with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=60) as answer:
        found: str = answer.read().decode()
    assert PASSWORD not in found
    return found


def test_it_shows_a_study_that_others_fill_though_the_server_is_started_again(server: Postgres, opened: Open) -> None:
    add(create_study(open_storage(server.secret), "shown", {"space": {}}), 0.9, 1000.0)
    with dashboard({"PGPASSWORD": PASSWORD}, f"storage.url={server.url}") as (_, url):
        assert "<html" in asked(url)
        assert [trial["values"] for trial in json.loads(asked(url, "/api/studies"))["trials"]] == [[0.9, 1000.0]]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            asked(url, "/api/studies", "DELETE")
        add(opened("shown"), 0.8, 2000.0)
        wait_until(lambda: len(json.loads(asked(url, "/api/studies"))["trials"]) == 2, 30, "the next trial")
        server.stop()
        server.start()
        assert len(json.loads(asked(url, "/api/studies"))["trials"]) == 2
    with dashboard({"EXPLORE_STORAGE_URL": server.secret}) as (_, url):
        assert len(json.loads(asked(url, "/api/studies"))["trials"]) == 2
    assert [trial.status for trial in opened("shown").trials()] == [COMPLETE] * 2
