"""Costs that were measured, kept as files, so that an architecture is measured once and not once in every trial."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from explore.cost.device import device_name, driver_version
from explore.cost.record import Cost
from explore.cost.reference import VERSION
from explore.cost.whole import write_whole

Found = TypeVar("Found")
_INSTALLED = {"site-packages", "dist-packages"}  # folders in which libraries lie side by side


def identity(network: nn.Module, described: Mapping[str, Any], device: torch.device) -> str:
    """What tells a measurement from every other: the same for the same network, protocol and device.

    `described` holds architecture and protocol in types that JSON knows. The source of the network's modules counts as
    well, with all that was imported from the packages they are in, and of those from outside from their folders: a
    mixing that was rewritten is another network.
    """
    content = {
        **described,
        "sources": sorted(map(_digest, _sources(network))),
        "reference": VERSION,
        "device": [device_name(device), driver_version(device)],
        "torch": str(torch.__version__),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def find(folder: Path, key: str) -> Cost | None:
    """The cost that `keep` has put there; None where there is none, or where it cannot be read."""
    return find_as(Cost.from_dict, folder, key)


def find_as(read: Callable[[dict[str, Any]], Found], folder: Path, key: str) -> Found | None:
    """What `keep_record` has put there, as `read` reads it; None as for `find`."""
    try:
        return read(json.loads((folder / f"{key}.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(folder: Path, key: str, cost: Cost) -> None:
    """Write a cost, whole or not at all."""
    keep_record(folder, key, cost.to_dict())


def keep_record(folder: Path, key: str, record: Mapping[str, Any]) -> None:
    """Write a record of JSON types, whole or not at all."""
    write_whole(folder / f"{key}.json", record)


def _sources(network: nn.Module) -> set[str]:
    """The files of the modules of a network, and of what stands beside them; torch is known by its version."""
    names = {type(one).__module__ for one in network.modules()}
    names = {name for name in names if name.partition(".")[0] != "torch"}
    ours = tuple(".".join(name.split(".")[:2]) for name in names if name.startswith("explore."))
    loaded = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
    own = {file for name, file in loaded if file and ours and name.startswith(ours)}
    others = {name for name in names if not name.startswith("explore.")}
    return own | set().union(*(_around(name, loaded) for name in others))


def _around(name: str, loaded: Iterable[tuple[str, str | None]]) -> set[str]:
    """The file of a module from outside, and what was loaded from its package, or from the folder that it lies in."""
    file = getattr(sys.modules[name], "__file__", None)
    if file is None:
        return set()
    folder = Path(getattr(sys.modules[name.partition(".")[0]], "__file__", None) or file).parent
    if folder.name in _INSTALLED:
        return {file}
    files = {one for other, one in loaded if one and not other.startswith("explore.") and folder in Path(one).parents}
    return {file} | {one for one in files if _INSTALLED.isdisjoint(Path(one).relative_to(folder).parts)}


def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
