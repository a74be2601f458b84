"""Whether an artifact is the network that was trained: both look at every test image, and are timed in turn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import binomtest
from torch import nn

from explore.cost.options import Measuring
from explore.cost.side_by_side import compare_throughput
from explore.cost.speed import Speed, median_interval
from explore.cost.timing import ready
from explore.data.dataset import Dataset
from explore.data.loader import Batches

_BATCH = 256
# Of the largest logit, or of 1 where that is smaller: the same sums in another order. The networks of the catalogs are
# a hundred times closer; a wrong operator, weight or mean is a hundred times further off.
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What came of showing the test images to both, in float32.

    `right`, `original_right`: how many of `images` each classified as they are labelled. `difference`: the largest
    between two logits that should be the same; `largest`: the largest logit, whatever its sign.
    """

    images: int
    right: int
    original_right: int
    difference: float
    largest: float

    @property
    def holds(self) -> bool:
        """Whether they differ by no more than rounding; false where anything is not a number."""
        return self.difference <= TOLERANCE * max(1.0, self.largest)


def compare(original: nn.Module, exported: nn.Module, dataset: Dataset, device: torch.device) -> Agreement:
    """Show the test images to both: to the original as its accuracy was measured, to the exported one as pixels."""
    mean, std, classes = dataset.mean, dataset.std, len(dataset.classes)
    batches = Batches(dataset.test, _BATCH, device=device, mean=mean, std=std, classes=classes)
    right = original_right = seen = 0
    difference = largest = torch.zeros((), device=device)
    with ready(original, device), torch.inference_mode():
        for images, labels in batches:
            pixels = dataset.test.images[seen : seen + len(labels)].to(device)
            expected, got = original(images), exported(pixels)
            right += int((got.argmax(1) == labels).sum())
            original_right += int((expected.argmax(1) == labels).sum())
            difference = torch.maximum(difference, (got - expected).abs().max())
            largest = torch.maximum(largest, expected.abs().max())
            seen += len(labels)
    return Agreement(
        images=seen,
        right=right,
        original_right=original_right,
        difference=float(difference),
        largest=float(largest),
    )


def accuracy_interval(right: int, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, as fractions (Wilson, 1927): for images drawn as these were, not for seeds."""
    interval = binomtest(right, images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Both forms timed in turn on the same pixels; `ratio`: times as fast as the original, between its 95 % interval.

    `precision`, `dispatch`, `batch_size`, `threads`: the protocol.
    """

    exported: Speed
    original: Speed
    ratio: tuple[float, float, float]
    batch_size: int
    precision: str
    dispatch: str
    threads: int
    device: str


def time_both(
    original: nn.Module, exported: nn.Module, shape: tuple[int, int, int], options: Measuring, device: str
) -> Speeds:
    """Time the original and the exported form, block by block in turn; both take pixels, and are launched alike.

    `options` has a precision, dispatch and batch size that are settled; `device` is the name of its device. What cannot
    both be captured as a graph is timed eagerly. Raises ValueError where the original cannot be compiled and the
    protocol compiles.
    """
    forms: Mapping[str, nn.Module] = {"original": original, "exported": exported}
    seconds, failures = compare_throughput(forms, shape, options, lambda text: None, pixels=True)
    if failures and options.dispatch == "graph":
        return time_both(original, exported, shape, replace(options, dispatch="eager"), device)
    if failures:
        raise ValueError(f"both forms must be compiled to be timed, got {failures}; add cost.dispatch=eager")
    speeds: dict[str, Any] = {name: Speed.of(each, options.images, options.interval) for name, each in seconds.items()}
    pairs = zip(seconds["original"], seconds["exported"], strict=True)
    return Speeds(
        **speeds,
        ratio=median_interval([theirs / own for theirs, own in pairs]),
        batch_size=options.images,
        precision=options.precision,
        dispatch=options.dispatch,
        threads=options.threads,
        device=device,
    )
