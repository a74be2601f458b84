"""Batches of the digits that ship with scikit-learn."""

from typing import Any

from explore.data.dataset import load
from explore.data.loader import Batches
from explore.data.options import Digits


def digit_batches(batch_size: int, *, split: str = "train", device: str = "cpu", **options: Any) -> Batches:
    digits = load(Digits())
    classes = len(digits.classes)
    return Batches(
        getattr(digits, split),
        batch_size,
        device=device,
        mean=digits.mean,
        std=digits.std,
        classes=classes,
        **options,
    )
