"""The model card of an artifact: what people should know before they use it, as Markdown beside the file."""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from explore.ablation.design import NOTE
from explore.counted import counted
from explore.exporting.agreement import TOLERANCE, Agreement, Speeds, accuracy_interval
from explore.exporting.formats import Format
from explore.exporting.trained import Trained

_WIDTH = 120
# By a search, or for an ablation.
_FOUND = (
    "Found by a search for the best accuracy at each speed",
    "Trained for an ablation, to be compared with others",
)


def card(
    trained: Trained,
    kind: Format,
    file: Path,
    agreement: Agreement,
    speeds: Speeds,
    *,
    study: str,
    notes: Mapping[str, Any],
    command: str,
) -> str:
    """The text of the card; `notes` are those of the study, `command` exports the network again."""
    trial, data = trained.trial, trained.dataset
    parts = [
        f"# {study}, trial {trial.number}",
        _wrapped(
            f"A classifier of images of {data.image_size} × {data.image_size} pixels, "
            f"{'grey' if data.channels == 1 else 'in colour'}, into {len(data.classes)} classes: {_values(trained)}. "
            f"{_FOUND[NOTE in notes]}, and written for {kind.runtime}."
        ),
        "## Use",
        f"```python\n{_example(trained, kind, file)}\n```",
        _wrapped("Pixels are prepared inside. Classes in the order of the logits: " + ", ".join(data.classes) + "."),
        "## Accuracy",
        _accuracy(trained, agreement, chosen=NOTE not in notes),
        "## Speed and cost",
        _speed(trained, kind, speeds, file),
        "## Data",
        _data(trained, notes),
        "## Recipe",
        _recipe(trained),
        "## Again",
        f"```sh\n{trial.command}   # trains it\n{command}   # exports it\n```",
        _wrapped(f"Commit of the {'ablation' if NOTE in notes else 'search'}: {notes.get('commit') or 'unknown'}."),
    ]
    return "\n\n".join(parts) + "\n"


def _values(trained: Trained) -> str:
    values = {key: value for key, value in trained.trial.proposal.values.items() if not key.startswith("training.")}
    return ", ".join(f"{key} {_short(value)}" for key, value in values.items()) or "as its command says"


def _example(trained: Trained, kind: Format, file: Path) -> str:
    data = trained.dataset
    given = {"FILE": file.name, "CHANNELS": str(data.channels), "SIZE": str(data.image_size)}
    text = kind.example
    for word, value in given.items():
        text = text.replace(word, value)
    return text


def _accuracy(trained: Trained, agreement: Agreement, *, chosen: bool) -> str:
    low, high = accuracy_interval(agreement.right, agreement.images)
    share, original = (one / agreement.images for one in (agreement.right, agreement.original_right))
    table = _table(
        ("", "exported", "as it was trained"),
        [
            (
                f"accuracy on {agreement.images:,} test images",
                f"{_percent(share)} (95 % interval {100 * low:.1f} to {_percent(high)})",
                _percent(original),
            ),
            ("accuracy on the validation images", "", _percent(trained.curve[-1].val_accuracy)),
        ],
    )
    return f"{table}\n\n" + _wrapped(
        f"The logits of the two differ by at most {agreement.difference:.1e} over all test images, where the largest "
        f"is {agreement.largest:.3g}; more than {TOLERANCE:g} of it would have been refused. The interval (Wilson) is "
        "for other images of the same kind, not for other seeds of training. Both were asked in float32."
        + (" The validation images chose this network among others, which flatters it there." if chosen else "")
    )


def _speed(trained: Trained, kind: Format, speeds: Speeds, file: Path) -> str:
    cost = trained.trial.evaluation.cost
    assert cost
    assert cost.throughput
    low, ratio, high = speeds.ratio
    rows = [
        (
            f"{name}, images/s",
            f"{one.images_per_second:,.0f} (95 % interval {one.low:,.0f} to {one.high:,.0f})",
        )
        for name, one in ((f"exported, by {kind.runtime}", speeds.exported), ("original, by torch", speeds.original))
    ]
    rows += [
        ("exported to original", f"{ratio:.2f} × ({low:.2f} to {high:.2f})"),
        (
            "original when it was trained, without preparing images",
            f"{cost.throughput.images_per_second:,.0f} images/s",
        ),
        ("parameters", f"{cost.params:,}"),
        ("multiply-adds of an image", f"{cost.macs:,}"),
        ("file", f"{file.stat().st_size:,} bytes"),
    ]
    threads = f", {speeds.threads} thread{'s' if speeds.threads > 1 else ''}"
    return f"{_table(('', ''), rows)}\n\n" + _wrapped(
        f"Both were timed in turn in the same run, pixels in, logits out: {speeds.device}, batch size "
        f"{speeds.batch_size}, {speeds.precision}, {speeds.dispatch}{threads}."
    )


def _data(trained: Trained, notes: Mapping[str, Any]) -> str:
    data, known = trained.dataset, notes.get("data", {})
    counts = ", ".join(
        f"{len(getattr(data, split)):,} for {words}"
        for split, words in (("train", "training"), ("validation", "validation"), ("test", "testing"))
    )
    skipped = f" {data.skipped:,} that could not be read were left out." if data.skipped else ""
    return _wrapped(f"{known.get('name', data.name)}: {counts}.{skipped} Fingerprint {data.fingerprint}.")


def _recipe(trained: Trained) -> str:
    candidate = trained.candidate
    changes = {f"data.augmentation.{key}": value for key, value in asdict(candidate.data.augmentation).items()}
    options = {f"training.{key}": value for key, value in asdict(candidate.training).items()} | changes
    begins = f"It began with the weights of {Path(candidate.pretrained).name}. " if candidate.pretrained else ""
    rows = [(f"`{key}`", _short(value)) for key, value in options.items()]
    epochs = counted(len(trained.curve), "epoch")
    return f"{begins}{epochs}.\n\n{_table(('option', 'value'), rows)}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
