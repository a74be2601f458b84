"""A veto over promotions: at a rung nobody goes on who is unlikely to come to the front, for as long as that is so.

The rank at a rung is that of a moment. The Gaussian process of accuracy over configurations and epochs, see
`predicted`, learns from all curves how far accuracy rises from there, and says how likely a candidate ends above all
that are complete and at least as fast. It knows nothing beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from explore.search.columns import Known, losses_of
from explore.search.encoding import Encoding
from explore.search.front import best_layers
from explore.search.predicted import MOST_OBSERVATIONS, Accuracy, Fits, configurations
from explore.search.prior import unbiased
from explore.search.space import Space
from explore.search.trial import Trial

Array = NDArray[np.float64]
_AT_ONCE = 100  # candidates that are looked at together: mostly the first of them go on


@dataclass
class Veto:
    """Says who of those that may go on is likely enough to come to the front.

    Args:
        space: of the configurations.
        last: the epoch at which a candidate is complete.
        classes: of the images; chance is one in so many.
        smallest: the error that counts as none: half an image of the validation split.
        below: the probability below which a candidate does not go on.
    """

    space: Space
    last: int
    classes: int
    smallest: float
    below: float
    _known: Known = field(default_factory=Known, init=False)
    _fits: Fits = field(default_factory=Fits, init=False)

    def first(self, promotable: Sequence[Trial], trials: Sequence[Trial]) -> tuple[Trial, float | None] | None:
        """The first of the `promotable` that goes on, and the accuracy expected at its end; None if nobody does.

        They are some of all the `trials`, were measured and trained. With nothing complete the first goes on, and
        nothing is expected of it.
        """
        if not promotable:
            return None
        known = self._known.columns(trials)
        complete = np.flatnonzero(known["complete"] & np.isfinite(known["speed"]))
        if not len(complete):
            return promotable[0], None
        taught = list(compress(trials, known["teaches"])), known[known["teaches"]]
        worst = 1 / self.classes, self.smallest
        model = Accuracy(Encoding(self.space), taught, self.last, worst, self._fits, unbiased)
        if len(complete) > MOST_OBSERVATIONS:
            complete = complete[best_layers(losses_of(known[complete]), MOST_OBSERVATIONS)]
        # As the model has them: the best of many that were measured was lucky as well.
        speeds = known["speed"][complete]
        ends = model.mean_at_end(configurations([trials[place] for place in complete.tolist()]), speeds)
        for start in range(0, len(promotable), _AT_ONCE):
            some = promotable[start : start + _AT_ONCE]
            speed = np.log([trial.throughput or np.nan for trial in some])
            mean, deviation = model.at_end(configurations(some), speed)
            likely = ndtr((mean - to_beat(speed, speeds, ends)) / deviation)
            for place in np.flatnonzero(likely >= self.below)[:1].tolist():
                return some[place], float(expit(mean[place]))
        return None


def to_beat(speed: Array, speeds: Array, ends: Array) -> Array:
    """The highest of the `ends` of those whose `speeds` are at least each `speed`; minus infinity where none is."""
    order = np.argsort(speeds)
    best_from = np.maximum.accumulate(ends[order][::-1])[::-1]
    found: Array = np.append(best_from, -np.inf)[np.searchsorted(speeds[order], speed)]
    return found
