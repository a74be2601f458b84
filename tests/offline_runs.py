"""What W&B keeps of runs offline, read back from its files."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record


def records(folder: Path) -> list[Any]:
    """The records of the only run below a folder."""
    (found,) = every_run(folder)
    return found


def every_run(folder: Path) -> list[list[Any]]:
    """The records of each run below a folder."""
    return [_read(path) for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb"))]


def _read(path: Path) -> list[Any]:
    """The records of a run, once W&B's own process has written the last of them."""
    for _ in range(200):
        found = parse(path.read_bytes())
        if {"exit", "summary"} <= {record.WhichOneof("record_type") for record in found}:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{path} is not complete")


def parse(content: bytes) -> list[Any]:
    """The records of a log in LevelDB's format with a header of 7 bytes."""
    position, whole, found = 7, b"", []
    while position + 7 <= len(content):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if kind == 0 and length == 0:
            break
        part = content[position + 7 : position + 7 + length]
        position += 7 + length
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            found.append(Record.FromString(whole))
    return found


def items(found: list[Any], kind: str, field: str) -> Iterator[dict[str, Any]]:
    for record in found:
        if record.WhichOneof("record_type") == kind:
            entries = getattr(getattr(record, kind), field)
            yield {entry.key or ".".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


def run_of(found: list[Any]) -> Any:
    """The last record of the run, with the tags it ended with."""
    return [record.run for record in found if record.WhichOneof("record_type") == "run"][-1]


def configuration(found: list[Any]) -> dict[str, Any]:
    entries = [entry for record in found for entry in (*record.run.config.update, *record.config.update)]
    return {entry.key: json.loads(entry.value_json) for entry in entries if entry.key != "_wandb"}


def summary(found: list[Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for update in items(found, "summary", "update"):
        merged |= update
    return merged


def nested(flat: dict[str, Any], name: str) -> Any:
    """A dictionary that may have been written whole or key by key."""
    if name in flat:
        return flat[name]
    result: dict[str, Any] = {}
    for key, value in flat.items():
        first, *inner, last = key.split(".")
        if first == name:
            place = result
            for part in inner:
                place = place.setdefault(part, {})
            place[last] = value
    return result


def exit_code(found: list[Any]) -> int:
    return next(record.exit.exit_code for record in found if record.WhichOneof("record_type") == "exit")
