"""What was found out about an exported file, kept beside it, so that the same command goes on where it stopped."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from explore.cost.device import device_name, resolve_device
from explore.cost.speed import Speed
from explore.cost.whole import write_whole
from explore.exporting.agreement import Agreement, Speeds
from explore.exporting.artifact import facts
from explore.exporting.trained import Trained


def origin_of(trained: Trained, about: Mapping[str, str]) -> str:
    """A digest of what makes a file and what is found out about it: weights, images, texts, how and where it is timed.

    `about`: as `export` is given it.
    """
    cost = trained.candidate.cost
    measured = {**asdict(cost), "device": device_name(resolve_device(cost.device))}
    digest = hashlib.sha256(json.dumps([facts(trained), dict(about), measured], sort_keys=True).encode())
    for name, weights in trained.network.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def keep(file: Path, origin: str, agreement: Agreement, speeds: Speeds) -> None:
    """Write down what was found out about a file that is whole, model card and all."""
    found = {"agreement": asdict(agreement), "speeds": asdict(speeds)}
    write_whole(_place(file), {"origin": origin, "sha256": _digest(file), **found})


def kept(file: Path, origin: str) -> tuple[Agreement, Speeds] | None:
    """What was found out about a file that is as it was written, from the same origin; None where there is no such."""
    try:
        record = json.loads(_place(file).read_text(encoding="utf-8"))
        if (record["origin"], record["sha256"]) != (origin, _digest(file)):
            return None
        speeds = record["speeds"]
        forms = {name: Speed(**speeds[name]) for name in ("exported", "original")}
        return Agreement(**record["agreement"]), Speeds(**{**speeds, **forms, "ratio": tuple(speeds["ratio"])})
    except (OSError, ValueError, LookupError, TypeError):  # there is none, or of another version of this package
        return None


def _place(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
