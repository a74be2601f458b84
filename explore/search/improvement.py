"""How much a candidate of known speed is expected to improve a front, on two scales of accuracy at once.

Speed is known, so that of the two objectives only one is uncertain, and the expected gain of hypervolume is a sum of
expected improvements: one for each step of the front that the candidate is fast enough for.

Accuracy counts as it is, where the near end of a front weighs most, and as the logarithm of the error, where its far
end does; the gains are shares of the hypervolume of the front on each scale, and their mean is taken.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from explore.search.front import non_dominated

Array = NDArray[np.float64]
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
_SHARES = _WEIGHTS / _WEIGHTS.sum()


def scales(smallest: float) -> list[Callable[[Array], Array]]:
    """Accuracy as it is, and the negative logarithm of the error, which is at least `smallest`."""
    return [lambda accuracy: accuracy, lambda accuracy: -np.log(np.maximum(1 - accuracy, smallest))]


def expected_gain(
    mean: Array,
    deviation: Array,
    speed: Array,
    front: tuple[Array, Array],
    *,
    worst: tuple[float, float],
    smallest: float,
) -> Array:
    """The expected gain of each candidate, as a share of what the front has; 1 is as much again.

    Args:
        mean: of the logit of its accuracy.
        deviation: of the same.
        speed: logarithm of its images/s.
        front: accuracies and logarithms of speeds of what is there already, dominated or not.
        worst: the accuracy and the logarithm of the speed from which on a front is worth something.
        smallest: the error that counts as none.
    """
    accuracy = expit(mean[:, None] + deviation[:, None] * _NODES)
    best = non_dominated(-np.column_stack(front))
    total = np.zeros(len(mean))
    for scale in scales(smallest):
        edges, levels = _steps(scale(front[0][best]), front[1][best], float(scale(np.array(worst[0]))), worst[1])
        value = scale(accuracy)
        widths = np.clip(np.minimum(speed[:, None], edges[1:]) - edges[:-1], 0, None)
        better, gain = np.empty_like(value), np.zeros(len(mean))
        for level, width in zip(levels, widths.T, strict=True):  # all at once would not stay in the cache
            np.subtract(value, level, out=better)
            gain += width * (np.maximum(better, 0, out=better) @ _SHARES)
        steps = np.diff(np.where(np.isfinite(edges), edges, edges[-2]))
        area = float((steps * (levels - scale(np.array(worst[0])))).sum())
        total += gain / area if area > 0 else gain / max(float(gain.max(initial=0.0)), 1e-12)
    return total / 2


def _steps(value: Array, speed: Array, worst: float, slowest: float) -> tuple[Array, Array]:
    """The staircase of a front: edges in speed, and between two edges the best value of what is at least as fast."""
    inside = speed > slowest
    order = np.argsort(speed[inside], kind="stable")
    ordered = np.maximum(value[inside][order], worst)
    best = np.maximum.accumulate(ordered[::-1])[::-1]
    edges = np.concatenate([[slowest], speed[inside][order], [np.inf]])
    return edges, np.append(best, worst)
