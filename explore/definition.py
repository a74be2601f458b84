"""What makes the trials of a study comparable, and what may change between two runs of it."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from explore.ablation.options import PAIRED
from explore.data.options import SOURCES
from explore.schema import Config

# What may change between two runs of the same study, because it leaves the trials comparable.
OPERATION = (
    "study",
    "outputs",
    "trials",
    "workers",
    "cluster",
    "sampler",
    "search",
    "ablation",
    "stopping",
    "front",
    "warm_start",
    "format",
    "storage",
    "references",
    "tracking",
    "throughput",
)


def described(config: Config) -> dict[str, Any]:
    """The candidate of a configuration as JSON types, without what leaves its result the same."""
    kept = {name: value for name, value in asdict(config).items() if name not in (*OPERATION, "space")}
    del kept["training"]["threads"], kept["data"]["cache"], kept["data"]["snapshot"], kept["model"]["compile"]
    if config.pretrained:
        kept["pretrained"] = {"file": Path(config.pretrained).name, "sha256": _digest(config.pretrained)}
    source = next((name for name, source in SOURCES.items() if type(config.data) is source), type(config.data).__name__)
    return {**kept, "data": {"source": source, **kept["data"]}}


def alone(config: Config) -> Path:
    """The folder of a candidate that is trained by itself, outside of a study: another one for each configuration.

    A configuration is the same however the path of its images is spelled.
    """
    identified = described(config)
    if path := identified["data"].get("path"):
        identified["data"]["path"] = str(Path(path).expanduser().resolve())
    identity = hashlib.sha256(json.dumps(identified, sort_keys=True).encode()).hexdigest()[:8]
    return Path(config.outputs) / "train" / identity


def definition(config: Config) -> dict[str, Any]:
    """What makes the trials of a study comparable, as JSON types: what the candidates share, and the space."""
    asked = asdict(config.ablation)
    del asked["together"]
    ablation = {"ablation": asked} if config.sampler == PAIRED else {}
    return {**described(config), "space": dict(config.space), **ablation}


def without_operation(overrides: Sequence[str]) -> list[str]:
    """The overrides that describe candidates, for the command line of a single one."""
    return [one for one in overrides if re.split(r"[.=]", one.lstrip("+~"))[0] not in (*OPERATION, "space")]


def _digest(path: str) -> str:
    """What is in a file decides a result, not its name; raises ValueError for one that cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"pretrained must be a file that can be read, got {path}: {error.strerror}") from error
