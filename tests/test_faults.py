"""A disk that is full or read-only is told from every other error, by its cause however it is wrapped, and is said in
words by every command.

python -m pytest tests/test_faults.py
"""

import errno
import json
import os
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from explore.command import _run
from explore.faults import Unwritable, unwritable
from explore.schema import Config

ADVICE = "what was found so far is kept: make room, and the same command goes on"


def error_of(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def fill() -> None:
    with open("/dev/full", "w") as file:
        file.write("x" * 100_000)


def test_a_full_disk_is_said_in_words() -> None:
    words = f"results must be kept, but no space is left on the disk; {ADVICE}"
    assert str(unwritable(error_of(fill))) == words
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS), "/mnt/last.ckpt")
    words = "results must be kept, but the disk is read-only (/mnt/last.ckpt); "
    assert str(unwritable(read_only)) == words + ADVICE.replace("make room", "make it writable")


def test_the_cause_counts_however_it_is_wrapped() -> None:
    def as_torch_does() -> None:
        try:
            fill()
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")

    def as_optuna_does() -> None:
        try:
            raise OperationalError("INSERT", None, error_of(fill))
        except OperationalError as error:
            raise StorageInternalError from error

    assert unwritable(error_of(as_torch_does))
    assert unwritable(error_of(as_optuna_does))


def test_a_database_without_room_is_one(tmp_path: Path) -> None:
    def run(engine: Engine, *statements: str) -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    run(engine, "CREATE TABLE t(a BLOB)")
    large = ("PRAGMA max_page_count = 4", "INSERT INTO t VALUES (zeroblob(100000))")
    words = f"the study must be kept, but no space is left on the disk; {ADVICE}"
    assert str(unwritable(error_of(lambda: run(engine, *large)))) == words
    reader = create_engine(f"sqlite:///file:{tmp_path / 'study.db'}?mode=ro&uri=true")
    assert "the disk is read-only" in str(unwritable(error_of(lambda: run(reader, "INSERT INTO t VALUES (1)"))))
    for one in (engine, reader):
        one.dispose()


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
    fault = unwritable(error_of(fill))
    assert str(pickle.loads(pickle.dumps(fault))) == str(fault)
    assert isinstance(unwritable(Unwritable("as it was")), Unwritable)


def test_every_command_says_it_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    def main(config: Config, overrides: list[str]) -> int:
        raise error_of(fill)

    assert _run(main, ["format=json"]) == 2
    out, err = capsys.readouterr()
    assert err == f"explore: results must be kept, but no space is left on the disk; {ADVICE}\n"
    assert json.loads(out) == {"error": err.removeprefix("explore: ").strip()}
