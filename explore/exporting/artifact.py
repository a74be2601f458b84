"""A trained network as a file of its own: written, read again, held against the original, timed, described."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from explore.cost.device import device_name, resolve_device, resolve_dispatch, resolve_precision
from explore.cost.options import AUTO
from explore.exporting.agreement import TOLERANCE, Agreement, Speeds, accuracy_interval, compare, time_both
from explore.exporting.form import FromPixels
from explore.exporting.formats import Format
from explore.exporting.trained import Trained


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An exported network and what was found out about it; `card` describes it to people.

    `kept`: whether it was written by an earlier command.
    """

    trial: int
    format: str
    file: Path
    card: Path
    kept: bool
    agreement: Agreement
    speeds: Speeds

    def to_dict(self) -> dict[str, Any]:
        """Write as JSON types; accuracies are fractions."""
        seen, speeds = self.agreement, self.speeds
        return {
            "trial": self.trial,
            "format": self.format,
            "file": str(self.file),
            "card": str(self.card),
            "kept": self.kept,
            "bytes": self.file.stat().st_size,
            "images": seen.images,
            "test_accuracy": seen.right / seen.images,
            "test_accuracy_interval": accuracy_interval(seen.right, seen.images),
            "original_test_accuracy": seen.original_right / seen.images,
            "largest_difference": seen.difference,
            **asdict(speeds),
            "ratio": dict(zip(("low", "median", "high"), speeds.ratio, strict=True)),
        }


def export(trained: Trained, kind: Format, file: Path, about: Mapping[str, str]) -> tuple[Agreement, Speeds]:
    """Write a trained network to `file`, which appears when it was found to be the same network, and not otherwise.

    Args:
        trained: the network.
        kind: how it is written.
        file: its name; the folder exists.
        about: what is known of it, a text for each name, to be kept inside beside its classes and images.

    Raises:
        ValueError: the exported form gives other logits than the network, or cannot be timed by the protocol.
    """
    options, dataset = trained.candidate.cost, trained.dataset
    device = resolve_device(options.device if kind.on_any_device else "cpu")
    precision = resolve_precision(options.precision, device) if kind.on_any_device else "32-true"
    # A protocol of a GPU has no graph where the exported form needs a processor.
    for_gpu = options.dispatch == "graph" and not kind.on_any_device
    dispatch = resolve_dispatch(AUTO if for_gpu else options.dispatch, device)
    shape = dataset.image_shape
    classifier = FromPixels(trained.network.deployed(), dataset.mean, dataset.std).eval()
    partial = file.with_name(f".{file.name}.partial")
    try:
        kind.write(classifier, shape, {**facts(trained), **about}, partial)
        exported = kind.read(partial, device, options.threads)
        agreement = compare(trained.network, exported, dataset, device)
        if not agreement.holds:
            raise ValueError(
                f"an exported network must give the logits of the original, within {TOLERANCE:g} of the largest, got "
                f"trial {trained.trial.number} as {kind.name} with a difference of {agreement.difference:.2g} beside "
                f"logits of up to {agreement.largest:.2g}; nothing was kept; try another format"
            )
        protocol = replace(
            options, device=str(device), precision=precision, dispatch=dispatch, batch_size=_batch_size(trained)
        )
        speeds = time_both(classifier, exported, shape, protocol, device_name(device))
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return agreement, speeds


def facts(trained: Trained) -> dict[str, str]:
    """What someone needs who has nothing but the file: classes, and what goes in and comes out."""
    data, size = trained.dataset, trained.dataset.image_size
    return {
        "classes": json.dumps(data.classes),
        "input": f"uint8, batch × {data.channels} × {size} × {size}, pixels from 0 to 255",
        "output": f"float32, batch × {len(data.classes)}, logits",
        "mean": json.dumps(data.mean),
        "std": json.dumps(data.std),
        "images": f"{data.name} {data.fingerprint}",
        "torch": str(torch.__version__),
    }


def _batch_size(trained: Trained) -> int:
    """As the search measured it, whatever a batch size of `auto` would find now."""
    cost = trained.trial.evaluation.cost
    assert cost
    assert cost.throughput
    return cost.throughput.batch_size
