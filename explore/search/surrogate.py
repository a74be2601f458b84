"""A Gaussian process of accuracy over configurations and epochs.

A configuration has its own level, its own way of learning, and all share one curve: the kernel is

    a₁·k(x, x′) + a₂·k(x, x′)·c(t, t′) + a₃·c(t, t′) + b·m(x, t)·m(x′, t′)·c(t, t′) + noise

with Matérn 5/2 kernels k over the features of a configuration (a length scale each) and c over the logarithm of the
epoch. The trend m, what was thought beforehand, is the mean, and by how much it exaggerates at which epoch is learned.
Hyperparameters maximise the posterior (Rasmussen & Williams, 2006, section 5.4.1), by L-BFGS with the gradient written
out: with a few hundred observations that takes some tenths of a second.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
_JITTER = 1e-8
STEPS = 30  # of the optimizer, from the beginning
# Means and deviations of the logarithms of the hyperparameters before anything is seen; targets are standardised.
_LEVEL, _LEARNING, _SHARED, _TIME, _NOISE = (0.0, 1.0), (0.0, 1.0), (0.0, 1.5), (-0.5, 0.7), (-4.0, 1.5)
_LENGTH_DEVIATION = 0.8
_FARTHEST = 10.0  # deviations, beyond which hyperparameters are not looked for
_NOWHERE = 10.0  # nats for each target, more than any fit loses
_EXAGGERATION = 0.5  # deviation of the factor by which a trend is off


class Surrogate:
    """`logs` are its hyperparameters, logarithms of amplitudes, of scales and of the variance of the noise.

    A posterior given observations: `features` (observations × features in [0, 1]), `times` (in [0, 1]), `targets`, and
    `trend`, what was thought of each beforehand.

    `start` are the hyperparameters, `logs`, of an earlier fit to nearly the same: fewer `steps` lead on from there, and
    none keeps them.
    """

    def __init__(
        self,
        features: Array,
        times: Array,
        targets: Array,
        trend: Array,
        *,
        start: Array | None = None,
        steps: int = STEPS,
    ) -> None:
        self._features, self._times = features, times
        left = targets - trend
        self._shift, self._scale = float(left.mean()), float(max(left.std(), 1e-3))
        self._targets = (left - self._shift) / self._scale
        self._middle = float(trend.mean())
        self._slants = self._slant(trend)
        self._slant_products = np.outer(self._slants, self._slants)
        self._means, self._deviations = _prior(features.shape[1])
        self._gaps = np.abs(times[:, None] - times[None, :])
        self._nowhere = _NOWHERE * len(targets)
        begin = self._means if start is None else start
        self.logs = self._fitted(begin, steps) if steps else begin
        covariance = self._parts(self.logs, _squares(features, features, np.exp(self.logs[5:])))[0]
        self._factor = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._factor, True), self._targets)

    def _fitted(self, begin: Array, steps: int) -> Array:
        distances, options = _distances(self._features), {"maxiter": steps}
        found = minimize(self._loss, begin, args=(distances,), jac=True, method="L-BFGS-B", options=options)
        return np.asarray(found.x if found.fun < self._nowhere else self._means, float)

    def mean(self, features: Array, times: Array, trend: Array) -> Array:
        """The mean at each row; `times` has one for each, or one for all."""
        return self._mean(self._cross(features, times, trend), trend)

    def predict(self, features: Array, times: Array, trend: Array) -> tuple[Array, Array]:
        """Mean and standard deviation, without noise, at each row; `times` has one for each, or one for all."""
        cross = self._cross(features, times, trend)
        level, learning, shared = np.exp(self.logs[:3])
        inner = solve_triangular(self._factor, cross.T, lower=True)
        variance = np.maximum(level + learning + shared + self._slant(trend) ** 2 - (inner**2).sum(0), 1e-9)
        return self._mean(cross, trend), self._scale * np.sqrt(variance)

    def _cross(self, features: Array, times: Array, trend: Array) -> Array:
        """The covariance of each row with each observation."""
        level, learning, shared = np.exp(self.logs[:3])
        near = _matern(_squares(features, self._features, np.exp(self.logs[5:])))
        curve = _matern(((times[:, None] - self._times[None, :]) / np.exp(self.logs[3])) ** 2)
        covariance: Array = near * (level + learning * curve)
        covariance += (shared + np.outer(self._slant(trend), self._slants)) * curve
        return covariance

    def _mean(self, cross: Array, trend: Array) -> Array:
        mean: Array = trend + self._shift + self._scale * (cross @ self._weights)
        return mean

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of a target."""
        return self._scale * float(np.exp(0.5 * self.logs[4]))

    def _slant(self, trend: Array) -> Array:
        """What one deviation of its exaggeration makes of a trend, in standardised targets."""
        return _EXAGGERATION * (trend - self._middle) / self._scale

    def _parts(self, logs: Array, squares: Array) -> tuple[Array, Array, Array, Array]:
        """The covariance of the targets, given `squares`, and what its gradient needs."""
        level, learning, shared = np.exp(logs[:3])
        near, curve_squares = _matern(squares), (self._gaps / np.exp(logs[3])) ** 2
        curve = _matern(curve_squares)
        covariance = near * (level + learning * curve) + (shared + self._slant_products) * curve
        covariance[np.diag_indices_from(covariance)] += np.exp(logs[4]) + _JITTER
        return covariance, near, curve, curve_squares

    def _loss(self, logs: Array, distances: Array) -> tuple[float, Array]:
        """The negative logarithm of the posterior of the hyperparameters, and its gradient."""
        off = (logs - self._means) / self._deviations
        # The optimizer tries a step too far now and then, where exponentials overflow or the covariance is singular in
        # numbers of 64 bits. It turns back from what is worse, and would end the search with an exception.
        nowhere = self._nowhere + 0.5 * float(off @ off), off / self._deviations
        if np.abs(off).max() > _FARTHEST:
            return nowhere
        squares = np.tensordot(np.exp(-2 * logs[5:]), distances, 1)
        covariance, near, curve, curve_squares = self._parts(logs, squares)
        try:
            factor = cholesky(covariance, lower=True)
        except LinAlgError:
            return nowhere
        weights = cho_solve((factor, True), self._targets)
        loss = 0.5 * self._targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
        inverse = cho_solve((factor, True), np.eye(len(covariance)))
        outer = 0.5 * (inverse - np.outer(weights, weights))
        level, learning, shared = np.exp(logs[:3])
        slope = outer * (level + learning * curve) * _matern_slope(squares)
        gradient = np.empty_like(logs)
        gradient[0] = level * (outer * near).sum()
        gradient[1] = learning * (outer * near * curve).sum()
        gradient[2] = shared * (outer * curve).sum()
        of_time = learning * near + shared + self._slant_products
        gradient[3] = (outer * of_time * _matern_slope(curve_squares) * curve_squares).sum()
        gradient[4] = np.exp(logs[4]) * np.trace(outer)
        gradient[5:] = np.exp(-2 * logs[5:]) * np.tensordot(distances, slope, 2)
        return float(loss), gradient + off / self._deviations


def _prior(features: int) -> tuple[Array, Array]:
    """Means and deviations; length scales grow with the number of features, as distances do (Hvarfner et al., 2024)."""
    length = 0.5 * np.log(features)
    rows = [_LEVEL, _LEARNING, _SHARED, _TIME, _NOISE, *[(length, _LENGTH_DEVIATION)] * features]
    means, deviations = np.array(rows).T
    return means, deviations


def _distances(features: Array) -> Array:
    """Squared, features × observations × observations."""
    columns = np.ascontiguousarray(features.T)
    distances: Array = (columns[:, :, None] - columns[:, None, :]) ** 2
    return distances


def _squares(one: Array, other: Array, lengths: Array) -> Array:
    """Squared distances of the rows of two, in length scales."""
    scaled, seen = one / lengths, other / lengths
    squares: Array = (scaled**2).sum(1)[:, None] + (seen**2).sum(1)[None]
    squares -= 2 * scaled @ seen.T
    return np.maximum(squares, 0, out=squares)


def _matern(squares: Array) -> Array:
    """Matérn 5/2 of squared distances in length scales."""
    # In place: to hand out fresh memory for each part takes as long as to compute them.
    root = 5 * squares
    np.sqrt(root, out=root)
    values: Array = 1 + root
    values += 5 / 3 * squares
    np.negative(root, out=root)
    values *= np.exp(root, out=root)
    return values


def _matern_slope(squares: Array) -> Array:
    """What a squared distance changes of it, times -2: the derivative by the logarithm of a length scale is this × the
    squared distance."""
    root = np.sqrt(5 * squares)
    values: Array = 5 / 3 * (1 + root) * np.exp(-root)
    return values


def clipped_logit(accuracy: Sequence[float] | Array, smallest: float) -> Array:
    """The logit, for accuracies at least `smallest` away from 0 and 1."""
    inside = np.clip(np.asarray(accuracy, float), smallest, 1 - smallest)
    values: Array = np.log(inside / (1 - inside))
    return values
