"""Stratified splits of the images of a source into train, validation and test."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from explore.data.sources import Decoded, Images, Labels

SPLITS = ("train", "validation", "test")


def complete(decoded: Decoded, shares: Mapping[str, float], seed: int) -> dict[str, tuple[Images, Labels]]:
    """All of `SPLITS`: those that the source lacks are split off its train images, each with its share of them.

    Raises ValueError if there are less than two classes, or a class has too few images to be in every split.
    """
    images, labels = decoded.splits["train"]
    if len(decoded.classes) < 2:
        raise ValueError(f"images must be of at least 2 classes, got only {', '.join(decoded.classes) or 'none'}")
    lacking = {name: shares[name] for name in SPLITS[1:] if name not in decoded.splits}
    rows = split(labels, lacking, seed, decoded.classes)
    if not lacking:
        return decoded.splits
    return {**decoded.splits, **{name: (images[part], labels[part]) for name, part in rows.items()}}


def split(
    labels: Labels, shares: Mapping[str, float], seed: int, classes: tuple[str, ...]
) -> dict[str, NDArray[np.intp]]:
    """Row numbers of each part of `shares`, and of "train", which gets the rest; sorted, disjoint and complete.

    Of each class a part gets its share, rounded, and at least one image. The same labels, shares and seed give the same
    rows on every machine. Raises ValueError if a class is too small.
    """
    generator = np.random.default_rng(seed)
    rows: dict[str, list[NDArray[np.intp]]] = {name: [] for name in ("train", *shares)}
    for label, name in enumerate(classes):
        members = generator.permutation(np.flatnonzero(labels == label))
        start = 0
        for part, share in shares.items():
            stop = start + max(1, int(share * len(members) + 0.5))
            rows[part].append(members[start:stop])
            start = stop
        if start >= len(members):
            needed = ", ".join(rows)
            raise ValueError(
                f"every class must have images for each of {needed}, got {len(members)} in {name!r}; "
                f"add images to it or remove it"
            )
        rows["train"].append(members[start:])
    return {part: np.sort(np.concatenate(members)) for part, members in rows.items()}
