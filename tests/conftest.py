"""The same surroundings for every test: one thread, no network, no account, and caches of its own."""

import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cluster_services import Open, Postgres

MACHINES = "explore-machines-"
_UNTIL = "EXPLORE_TESTS_UNTIL"  # seconds since 1970, after which no more tests are begun
settings.register_profile("explore", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("explore")


def pytest_configure(config: pytest.Config) -> None:
    """Set what libraries read when they are imported; the processes that a test starts inherit it."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", WANDB_MODE="offline", HF_HUB_OFFLINE="1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product of a process
    os.environ.pop("WANDB_API_KEY", None)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # by a shell that has put the tests into the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        # Matplotlib takes seconds to list the fonts of a machine: that list may stay.
        os.environ.setdefault("MPLCONFIGDIR", str(home / "matplotlib"))
        # The workers of xdist inherit the folder too, so that a data set is decoded once for all of them.
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="explore-tests-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of clusters that take minutes begin first, or the others wait for them in the end."""
    if _UNTIL not in os.environ:
        items.sort(key=lambda item: not (item.get_closest_marker("cluster") and item.get_closest_marker("slow")))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the caches."""
    if MACHINES in os.environ.get("TMPDIR", ""):
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """One thread again, whatever the test before has set; tests of a GPU need one.

    Machines share no folder for temporary files, and so no locks: who hangs on one of them does not stop all others.
    """
    if time.time() > float(os.environ.get(_UNTIL, math.inf)):
        pytest.skip("no time is left for it, this time")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if item.get_closest_marker("cluster") and MACHINES not in os.environ.get("TMPDIR", ""):
        os.environ["TMPDIR"] = tempfile.mkdtemp(prefix=MACHINES, dir="/tmp")  # short, because sockets lie there
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for decoded images."""
    return tmp_path / "cache"


@pytest.fixture
def shoes(tmp_path: Path) -> Path:
    """A folder of images."""
    from image_folders import fill

    return fill(tmp_path / "shoes")


@pytest.fixture(scope="module")
def server() -> Iterator["Postgres"]:
    """A PostgreSQL server that asks for a password."""
    from cluster_services import start_postgres

    with start_postgres() as server:
        yield server


@pytest.fixture
def opened(server: "Postgres") -> Iterator["Open"]:
    """Opens the studies of that server by their names."""
    from cluster_services import studies_of

    with studies_of(server.secret) as opened:
        yield opened
