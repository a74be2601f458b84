"""Faults of the machine that are no candidate's: a disk that is full or cannot be written to.

Nothing heavy and no library is imported here: every process must be able to tell them from the rest.
"""

import errno
from collections.abc import Iterator

_ROOM, _WRITABLE, _DISK = "make room", "make it writable", "have the disk looked after"
# What it is, and what a person does about it.
_ERRORS = {
    errno.ENOSPC: ("no space is left on the disk", _ROOM),
    errno.EDQUOT: ("the quota of the disk is used up", _ROOM),
    errno.EFBIG: ("the file would be larger than this process or disk allows", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the disk is read-only", _WRITABLE),
    errno.EIO: ("the disk reports an error", _DISK),
}
_OF_SQLITE = {
    "SQLITE_FULL": _ERRORS[errno.ENOSPC],
    "SQLITE_READONLY": _ERRORS[errno.EROFS],
    "SQLITE_IOERR": _ERRORS[errno.EIO],
    "SQLITE_CANTOPEN": ("the database cannot be opened", "see to it that its folder is there and can be written to"),
}
_OF_POSTGRES = {  # by SQLSTATE
    "53100": ("no space is left on the disk of the database", _ROOM),
    "25006": ("the database is read-only", _WRITABLE),
    "58030": ("the disk of the database reports an error", _DISK),
}


class Unwritable(Exception):  # noqa: N818 - a state of the machine that a person can mend
    """What was found out cannot be kept, here. Trials wait where they are, and the same command goes on."""


def unwritable(error: BaseException) -> Unwritable | None:
    """The fault of the disk that an error is or came from, in words for people; None where it is something else."""
    for cause in _causes(error):
        if isinstance(cause, Unwritable):
            return cause
        if isinstance(cause, OSError) and cause.errno in _ERRORS:
            words, advice = _ERRORS[cause.errno]
            place = f" ({cause.filename})" if cause.filename else ""
            return Unwritable(f"results must be kept, but {words}{place}; {_kept(advice)}")
        name = getattr(cause, "sqlite_errorname", "")
        of_sqlite = (known for kind, known in _OF_SQLITE.items() if name.startswith(kind))
        if known := next(of_sqlite, None) or _OF_POSTGRES.get(str(getattr(cause, "sqlstate", ""))):
            words, advice = known
            return Unwritable(f"the study must be kept, but {words}; {_kept(advice)}")
    return None


def _kept(advice: str) -> str:
    return f"what was found so far is kept: {advice}, and the same command goes on"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        if isinstance(original := getattr(error, "orig", None), BaseException):  # as SQLAlchemy wraps them
            yield original
        error = error.__cause__ or error.__context__
