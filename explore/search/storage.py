"""Where studies are kept: Optuna storages by URL, with errors for people and without passwords."""

import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, SQLAlchemyError

from explore.search.study import Study, study_names

_LOCK_SECONDS = 60.0
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2


def open_storage(url: str) -> BaseStorage:
    """Open a storage such as `sqlite:///study.db` or `postgresql+psycopg://user:password@host/optuna`.

    Raises ValueError when the URL is none or nobody answers there; the password is never part of the message.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parsed = _parse(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    options = {"connect_args": {"timeout": _LOCK_SECONDS}} if sqlite else {"pool_pre_ping": True}
    try:
        return get_storage(_connect(url, options))
    except ImportError as error:
        raise ValueError(f"storage.url needs a driver that is not installed, got {hidden(url)}: {error.msg}") from None
    except (SQLAlchemyError, OSError, RuntimeError) as error:
        reason = _without_password(str(getattr(error, "orig", None) or error).splitlines()[0], parsed)
        raise ValueError(f"storage.url must name a database that answers, got {hidden(url)}: {reason}") from None


def _connect(url: str, options: dict[str, Any]) -> RDBStorage:
    """Connect, and make the tables; another process may be making the same tables right now."""
    for _ in range(_ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
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
        raise ValueError(f"study {name} must exist, got no file {path}; run python -m explore.sweep +sweep=... first")
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


def hidden(url: str) -> str:
    """The URL with its password replaced by stars."""
    return _parse(url).render_as_string(hide_password=True)


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password in a place where no parser finds it.
        raise ValueError(
            "storage.url must be an SQLAlchemy URL such as sqlite:///study.db or postgresql+psycopg://user@host/name"
        ) from None


def _without_password(text: str, url: URL) -> str:
    return text.replace(str(url.password), "***") if url.password else text
