"""Predicts the seconds of a pass from the work in it, by coefficients fitted to networks that were measured.

A pass takes the sum over its operators of what each call, multiply-add, byte and row costs, for each kind of operator
at its own rate: a roofline whose terms add up. The rates belong to one device and one protocol. They are never
negative, so that a larger network of the same kinds is never predicted to be faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from explore.cost.features import COUNTS, VIEW, Features

Array = NDArray[np.float64]
FEWEST = 20
_RIDGE = 0.3  # pulls the rates of a kind towards those of all kinds
_TURNS = 5  # of weighting down what was measured badly
_FASTEST = 1e-9  # seconds


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Rates in seconds for each of `COUNTS`.

    Args:
        constant: seconds of a pass without any operator.
        common: rates of all kinds but views; all that is known of a kind that no measured network had.
        own: what comes on top for each kind.
    """

    constant: float
    common: Mapping[str, float]
    own: Mapping[str, Mapping[str, float]]

    def predict(self, features: Features) -> float:
        """Seconds of a pass, above 0."""
        seconds = self.constant
        for kind, work in features.work.items():
            for name in COUNTS:
                common = 0.0 if kind == VIEW else self.common[name]
                seconds += getattr(work, name) * (common + self.own.get(kind, {}).get(name, 0.0))
        return max(seconds, _FASTEST)


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How far predictions are from measurements that the model did not see.

    Args:
        median: of the relative error, as a fraction.
        rank_correlation: Spearman's, 1 where the order is right.
        networks: measured ones that these figures are of.
    """

    median: float
    rank_correlation: float
    networks: int


def fit(features: Sequence[Features], seconds: Sequence[float]) -> LatencyModel:
    """The model of networks whose pass took so many seconds, all on one device by one protocol.

    Minimises relative errors by non-negative least squares; networks that do not fit count less (Huber's weights).

    Raises:
        ValueError: there are fewer than `FEWEST` networks, or a measurement is not above 0.
    """
    if len(features) != len(seconds):
        raise ValueError(f"each network must have its seconds, got {len(features)} networks and {len(seconds)} seconds")
    if len(features) < FEWEST:
        raise ValueError(f"a latency model needs at least {FEWEST} measured networks, got {len(features)}")
    measured = np.asarray(seconds, dtype=float)
    if not (np.isfinite(measured) & (measured > 0)).all():
        raise ValueError(f"measured seconds must be above 0, got {min(seconds)} to {max(seconds)}")
    return _fit(features, measured)


def cross_validated(features: Sequence[Features], seconds: Sequence[float], folds: int = 10) -> Errors:
    """The errors on each tenth of the networks of a model fitted to the others.

    Raises:
        ValueError: as `fit`.
    """
    fit(features, seconds)
    measured = np.asarray(seconds, dtype=float)
    fold = np.arange(len(measured)) % folds
    predicted = np.empty_like(measured)
    for one in range(folds):
        model = _fit([each for each, part in zip(features, fold, strict=True) if part != one], measured[fold != one])
        for place in np.flatnonzero(fold == one).tolist():
            predicted[place] = model.predict(features[place])
    return Errors(
        median=float(np.median(np.abs(predicted / measured - 1))),
        rank_correlation=float(np.corrcoef(_ranks(predicted), _ranks(measured))[0, 1]),
        networks=len(measured),
    )


def _ranks(values: Array) -> NDArray[np.intp]:
    return values.argsort().argsort()  # seconds are never equal to the last bit


def _fit(features: Sequence[Features], seconds: Array) -> LatencyModel:
    kinds = sorted({kind for each in features for kind in each.work})
    columns = [*((kind, name) for kind in kinds for name in COUNTS), *((None, name) for name in COUNTS)]
    table = np.array([[_count(each, kind, name) for kind, name in columns] for each in features], dtype=float)
    share = np.column_stack([table, np.ones(len(seconds))]) / seconds[:, None]
    # Each column in units of what it typically is in a network, so that the ridge means the same for all of them.
    unit = np.array([np.median(column[column > 0]) if column.any() else 1.0 for column in share.T])
    own = len(kinds) * len(COUNTS)
    ridge = _RIDGE * np.eye(own, share.shape[1])
    rates = _weighted(share / unit, ridge) / unit
    found = dict(zip(columns, rates.tolist(), strict=False))
    return LatencyModel(
        constant=float(rates[-1]),
        common={name: found[None, name] for name in COUNTS},
        own={kind: {name: found[kind, name] for name in COUNTS if found[kind, name]} for kind in kinds},
    )


def _weighted(share: Array, ridge: Array) -> Array:
    """Non-negative rates that bring each row of shares to 1, rows that stay far from it with less weight."""
    weights = np.ones(len(share))
    for _ in range(1 + _TURNS):
        goal = np.concatenate([weights, np.zeros(len(ridge))])
        rates: Array = nnls(np.vstack([share * weights[:, None], ridge]), goal)[0]
        off = np.abs(np.log(np.maximum(share @ rates, 1e-9)))
        weights = np.sqrt(np.minimum(1, (1.5 * np.median(off) + 1e-3) / np.maximum(off, 1e-12)))
    return rates


def _count(features: Features, kind: str | None, name: str) -> int:
    """One count of a kind; without a kind, of all but views."""
    if kind is None:
        return sum(getattr(work, name) for each, work in features.work.items() if each != VIEW)
    return getattr(features.work[kind], name) if kind in features.work else 0
