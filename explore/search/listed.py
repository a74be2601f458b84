"""A file with candidates of a user's: what each says, and where it says it."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from explore.search.space import to_overrides

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_FORM = "a list of candidates such as - [model.depth=2, token_mixing=s2]"


@dataclass(frozen=True)
class Entry:
    """One candidate as overrides; `place` names it within the file."""

    place: str
    overrides: Sequence[str]


def read_entries(file: str, is_key: Callable[[str], bool]) -> list[Entry]:
    """Read YAML or JSON, a list of lists of overrides or of mappings, or else the columns of a CSV that `is_key` knows.

    Raises ValueError, with the place, for what cannot be read.
    """
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"warm_start.list must be a file that can be read, got {file}: {reason}") from error
    entries = list(_of_csv(text, file, is_key) if path.suffix.lower() == ".csv" else _of_yaml(text, file))
    if not entries:
        raise ValueError(f"warm_start.list must hold a candidate, got none in {file}; it is {_FORM}")
    return entries


def _of_csv(text: str, file: str, is_key: Callable[[str], bool]) -> Iterator[Entry]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    keys = [name for name in rows.fieldnames or [] if name and is_key(name)]
    if not keys:
        raise ValueError(
            f"warm_start.list must have columns that are named like options, such as model.depth, got {file} with "
            f"{', '.join(rows.fieldnames or []) or 'nothing'}"
        )
    for row in rows:
        given = {key: row[key].strip() for key in keys if row[key] and row[key].strip()}
        yield Entry(f"line {rows.line_num}", [_override(key, cell) for key, cell in given.items()])


def _of_yaml(text: str, file: str) -> Iterator[Entry]:
    try:
        root, data = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(
            f"warm_start.list must be YAML, JSON or CSV, got {file}: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(root, yaml.SequenceNode):
        raise ValueError(f"warm_start.list must be {_FORM}, got {type(data).__name__} in {file}")
    for entry, node in zip(data, root.value, strict=True):
        place = f"line {node.start_mark.line + 1}"
        if isinstance(entry, Mapping):
            yield Entry(place, [_override(str(key), value) for key, value in entry.items()])
        elif isinstance(entry, list) and all(isinstance(one, str) and "=" in one for one in entry):
            yield Entry(place, [one.strip() for one in entry])
        else:
            raise ValueError(f"warm_start.list must be {_FORM}, got {entry!r} in {file}, {place}")


def _override(key: str, value: Any) -> str:
    """Numbers and true and false may come as text: YAML takes 1e-3 for a word."""
    if isinstance(value, str) and (_NUMBER.fullmatch(value) or value.lower() in ("true", "false")):
        return f"{key}={value.lower()}"
    return f"{key}=null" if value is None else to_overrides({key: value})[0]
