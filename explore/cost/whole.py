"""Records in files that appear whole or not at all, with the rights that all files of their user have."""

import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def write_whole(path: Path, record: Mapping[str, Any], put: Callable[[Path, Path], None] = os.replace) -> None:
    """Write a record of JSON types beside its place and `put` it there; nothing else is left where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")  # not by tempfile, which hides it from other users
    try:
        with unfinished.open("x") as stream:
            json.dump(record, stream, indent=2)
        put(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
