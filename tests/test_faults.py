"""A disk that is full or read-only is told from every other error, by its cause however it is wrapped, and is said in
words by every command.

python -m pytest tests/test_faults.py
"""

import errno
import json
import os
import pickle
import sqlite3
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from explore.command import _run
from explore.faults import Unwritable, unwritable
from explore.schema import Config

ADVICE = "what was found so far is kept: make room, and the same command goes on"


def error_of(path: str) -> OSError:
    with pytest.raises(OSError) as caught, open(path, "w") as file:  # noqa: SIM117 - one statement for each
        file.write("x" * 100_000)
    return caught.value


def test_a_full_disk_is_said_in_words() -> None:
    assert str(unwritable(error_of("/dev/full"))) == f"results must be kept, but no space is left on the disk; {ADVICE}"
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS), "/mnt/last.ckpt")
    assert str(unwritable(read_only)).startswith("results must be kept, but the disk is read-only (/mnt/last.ckpt); ")


def test_the_cause_counts_however_it_is_wrapped() -> None:
    with pytest.raises(RuntimeError) as caught:
        try:
            raise error_of("/dev/full")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")  # noqa: B904 - as PyTorch does
    assert unwritable(caught.value)
    with pytest.raises(StorageInternalError) as caught_too:
        try:
            raise OperationalError("INSERT", None, error_of("/dev/full"))
        except OperationalError as error:
            raise StorageInternalError from error
    assert unwritable(caught_too.value)


def test_a_database_without_room_is_one(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t(a BLOB)"))
    with pytest.raises(OperationalError) as caught, engine.begin() as connection:
        connection.execute(text("PRAGMA max_page_count = 4"))
        connection.execute(text("INSERT INTO t VALUES (zeroblob(100000))"))
    assert str(unwritable(caught.value)) == f"the study must be kept, but no space is left on the disk; {ADVICE}"
    reader = create_engine(f"sqlite:///file:{tmp_path / 'study.db'}?mode=ro&uri=true")
    with pytest.raises(OperationalError) as caught, reader.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
    assert "the disk is read-only" in str(unwritable(caught.value))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no space"),
        MemoryError(),
        FileNotFoundError(errno.ENOENT, "No such file"),
        sqlite3.OperationalError("no such table"),
        RuntimeError("CUDA out of memory"),
    ],
    ids=repr,
)
def test_other_errors_are_not(error: Exception) -> None:
    assert unwritable(error) is None


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    assert unwritable(one) is None


def test_it_travels_between_processes() -> None:
    fault = unwritable(error_of("/dev/full"))
    assert str(pickle.loads(pickle.dumps(fault))) == str(fault)
    assert isinstance(unwritable(Unwritable("as it was")), Unwritable)


def test_every_command_says_it_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    def main(config: Config, overrides: list[str]) -> int:
        raise error_of("/dev/full")

    assert _run(main, ["format=json"]) == 2
    out, err = capsys.readouterr()
    assert err == f"explore: results must be kept, but no space is left on the disk; {ADVICE}\n"
    assert json.loads(out) == {"error": err.removeprefix("explore: ").strip()}
