"""Where studies are kept: Optuna storages by URL, with errors for people and without passwords."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, SQLAlchemyError

from explore.search.grpc_proxy import CALLS, DATABASE_SECONDS, Client, start_server
from explore.search.options import GRPC_PORT
from explore.search.patience import patient, reason_of
from explore.search.remembered import Database
from explore.search.secrets import hidden, without_passwords
from explore.search.study import Study, study_names

GRPC = "grpc"
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_ANSWER_SECONDS = 10.0
_LOCK_SECONDS = 60.0
_GONE_SECONDS = 60.0
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2


def open_storage(url: str, *, connections: int = 1, patience_seconds: float | None = None) -> BaseStorage:
    """Open a storage such as `sqlite:///study.db`, `postgresql+psycopg://user@host/optuna` or `grpc://host:13000`.

    One on a server is waited for later, where it does not answer for a while: `patience_seconds`, or ten minutes.
    So many `connections` to it are kept.
    Raises ValueError when the URL is none or nobody answers there; the password is never part of the message.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parsed = _parse(url)

    def reason(error: BaseException) -> str:
        # Of gRPC's errors only the details are in words.
        cause = error.__cause__ or error
        text = reason_of(cause.details()) if hasattr(cause, "details") else str(getattr(cause, "orig", None) or cause)
        return without_passwords(text.splitlines()[0] if text else type(error).__name__, url)

    try:
        if parsed.drivername == GRPC:
            return _proxy(parsed, reason)
        if parsed.get_backend_name() == "sqlite":
            return Database(_connect(url, {"connect_args": {"timeout": _LOCK_SECONDS}}))
        whole = parsed.render_as_string(hide_password=False)
        # A worker that trains for an hour keeps one connection at most: servers have about a hundred for all.
        storage = Database(_connect(whole, {"pool_pre_ping": True, "pool_size": connections, **_noticing(parsed)}))
        # After an error in its own handling of errors Optuna ends with an UnboundLocalError.
        passing = (StorageInternalError, SQLAlchemyError, UnboundLocalError)
        return patient(storage, passing, reason, patience_seconds)
    except ImportError as error:
        extra = {"psycopg": "; pip install 'explore[postgres]'", "grpc": "; pip install 'explore[grpc]'"}
        # Optuna names no module itself.
        advice = next((words for name, words in extra.items() if name in f"{error} {error.__cause__}"), "")
        raise ValueError(
            f"storage.url needs a driver that is not installed, got {hidden(url)}: {error.msg}{advice}"
        ) from None
    except (SQLAlchemyError, OSError, RuntimeError) as error:
        raise ValueError(f"storage.url must name a database that answers, got {hidden(url)}: {reason(error)}") from None


def _noticing(url: URL) -> dict[str, Any]:
    """What has both sides notice within a minute that the other one is gone; by itself TCP takes hours.

    A server that waits for a client that is gone may hold a lock for which all others wait.
    """
    if url.drivername != _DRIVERS["postgresql"]:
        return {}
    minute = {"idle": 30, "interval": 10, "count": 3}
    gone = int(1000 * _GONE_SECONDS)
    theirs = {f"tcp_keepalives_{name}": value for name, value in minute.items()}
    theirs |= {"tcp_user_timeout": gone, "idle_in_transaction_session_timeout": gone}
    settings = {
        "connect_timeout": int(_ANSWER_SECONDS),
        "tcp_user_timeout": gone,
        **{f"keepalives_{name}": value for name, value in minute.items()},
        "options": " ".join(f"-c {name}={value}" for name, value in theirs.items()),
    }
    # What is said in the URL counts: whoever stands between may refuse options.
    return {"connect_args": {name: value for name, value in settings.items() if name not in url.query}}


def _proxy(url: URL, reason: Callable[[BaseException], str]) -> BaseStorage:
    import grpc

    with _experimental():
        storage = Client(host=url.host or "localhost", port=url.port or GRPC_PORT)
    try:
        storage.wait_server_ready(timeout=_ANSWER_SECONDS)
    except ConnectionError:
        raise ConnectionError(f"no proxy answered within {_ANSWER_SECONDS:.0f} s") from None
    return patient(storage, (grpc.RpcError,), reason)


def make_proxy(database: str, host: str, port: int) -> Any:
    """Start a gRPC server that stands before a database; raises ValueError where that cannot be."""
    if _parse(database).drivername == GRPC:
        raise ValueError(f"storage.database must be the URL of a database, got that of a proxy, {hidden(database)}")
    try:
        storage = open_storage(database, connections=CALLS, patience_seconds=DATABASE_SECONDS)
    except ValueError as error:
        raise ValueError(str(error).replace("storage.url", "storage.database", 1)) from None
    try:
        return start_server(cast(Database, storage), host, port)
    except ImportError:
        raise ValueError("storage=grpc needs grpcio, which is not installed; pip install 'explore[grpc]'") from None
    except RuntimeError as error:
        raise ValueError(f"storage.host and port must be free on this machine, got {host}:{port}: {error}") from None


@contextmanager
def _experimental() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _connect(url: str, options: dict[str, Any]) -> RDBStorage:
    """Connect, and make the tables; another process may be making the same tables right now."""
    for _ in range(_ATTEMPTS):
        try:
            with _experimental():
                return RDBStorage(url, engine_kwargs=options)
        except DatabaseError as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
        time.sleep(_PAUSE_SECONDS)
    return RDBStorage(url, engine_kwargs=options)


def open_study(url: str, name: str) -> Study:
    """Open a study that exists; raises ValueError with the names there are."""
    path = _parse(url).database
    if _parse(url).get_backend_name() == "sqlite" and path and not Path(path).exists():
        raise ValueError(
            f"study {name} must exist, got no file {path}; run python -m explore.sweep +sweep=... first, or say where "
            "else it is kept: storage.url=URL, or storage=grpc storage.host=HOST"
        )
    storage = open_storage(url)
    names = study_names(storage)
    if name not in names:
        raise ValueError(f"study must be one of {', '.join(names) or '(none yet)'}, got {name!r}")
    return Study(storage, name)


def find_study(url: str, name: str) -> Study | None:
    """The study where it exists already; makes no SQLite file. Raises ValueError when nobody answers at the URL."""
    storage = _find_storage(url)
    return Study(storage, name) if storage and name in study_names(storage) else None


def studies_at(url: str) -> list[str]:
    """The names of the studies; makes no SQLite file. Raises ValueError when nobody answers at the URL."""
    storage = _find_storage(url)
    return study_names(storage) if storage else []


def _find_storage(url: str) -> BaseStorage | None:
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database and not Path(parsed.database).exists():
        return None
    return open_storage(url)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password in a place where no parser finds it.
        raise ValueError(
            "storage.url must be an SQLAlchemy URL such as sqlite:///study.db or postgresql+psycopg://user@host/name"
        ) from None
    if "@" in (parsed.host or ""):
        raise ValueError("storage.url must have %40 in place of an @ in a password or a user")
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def of_one_machine(url: str) -> bool:
    """Whether a storage is a file whose locks do not hold between machines."""
    return _parse(url).get_backend_name() == "sqlite"
