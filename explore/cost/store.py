"""Costs that were measured, kept as files, so that an architecture is measured once and not once in every trial."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from explore.cost.device import device_name, driver_version
from explore.cost.record import Cost


def identity(network: nn.Module, described: Mapping[str, Any], device: torch.device) -> str:
    """What tells a measurement from every other: the same for the same network, protocol and device.

    `described` holds architecture and protocol in types that JSON knows. The source of the network's modules counts as
    well, because a mixing that was rewritten is another network.
    """
    content = {
        **described,
        "sources": sorted(_source(module) for module in {type(one).__module__ for one in network.modules()}),
        "device": [device_name(device), driver_version(device)],
        "torch": str(torch.__version__),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def find(folder: Path, key: str) -> Cost | None:
    """The cost that `keep` has put there; None where there is none, or where it cannot be read."""
    try:
        return Cost.from_dict(json.loads((folder / f"{key}.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(folder: Path, key: str, cost: Cost) -> None:
    """Write a cost, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    file, unfinished = tempfile.mkstemp(dir=folder)
    with os.fdopen(file, "w") as stream:
        json.dump(cost.to_dict(), stream)
    os.replace(unfinished, folder / f"{key}.json")


def _source(module: str) -> str:
    file = getattr(sys.modules[module], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and not module.startswith("torch.") else module
