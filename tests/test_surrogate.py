"""The gradient of the Gaussian process is that of its loss, what it learned it predicts, and where it knows nothing it
says so."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from explore.search.surrogate import Surrogate, _distances, clipped_logit

GENERATOR = np.random.default_rng(0)
FEATURES, TIMES = GENERATOR.random((60, 3)), GENERATOR.random(60)
TREND = 0.3 * FEATURES[:, 1]


def truth(features: np.ndarray, times: np.ndarray) -> np.ndarray:
    return 10 + np.sin(3 * features[:, 0]) + times * features[:, 1]


def model(noise: float = 0.05) -> Surrogate:
    targets = truth(FEATURES, TIMES) + noise * np.random.default_rng(1).normal(size=60)
    return Surrogate(FEATURES, TIMES, targets, TREND)


def test_the_gradient_is_that_of_the_loss() -> None:
    fitted = model()
    logs = fitted.logs + 0.3 * np.random.default_rng(2).normal(size=len(fitted.logs))
    distances = _distances(FEATURES)
    numeric = approx_fprime(logs, lambda one: fitted._loss(one, distances)[0], 1e-6)
    np.testing.assert_allclose(fitted._loss(logs, distances)[1], numeric, rtol=1e-3, atol=1e-3)


def test_what_was_learned_is_predicted() -> None:
    features, times = GENERATOR.random((200, 3)), GENERATOR.random(200)
    mean, deviation = model().predict(features, times, 0.3 * features[:, 1])
    off = (mean - truth(features, times)) / deviation
    assert np.sqrt(np.mean((mean - truth(features, times)) ** 2)) < 0.1
    assert np.mean(np.abs(off) < 2) > 0.8
    assert model().noise == pytest.approx(0.05, rel=0.6)


def test_far_away_it_is_unsure() -> None:
    _, near = model().predict(FEATURES[:1], TIMES[:1], TREND[:1])
    _, far = model().predict(np.full((1, 3), 9.0), TIMES[:1], TREND[:1])
    assert far[0] > 3 * near[0]


def test_the_mean_alone_and_one_time_for_all_are_the_same() -> None:
    fitted, times = model(), np.full(60, 0.7)
    mean, deviation = fitted.predict(FEATURES, times, TREND)
    assert np.array_equal(fitted.mean(FEATURES, times[:1], TREND), mean)
    assert np.array_equal(fitted.predict(FEATURES, times[:1], TREND)[1], deviation)


def test_an_earlier_fit_leads_to_the_same() -> None:
    first = model()
    again = Surrogate(FEATURES, TIMES, truth(FEATURES, TIMES), TREND, start=first.logs)
    np.testing.assert_allclose(again.predict(FEATURES, TIMES, TREND)[0], truth(FEATURES, TIMES), atol=0.05)


def test_how_far_a_trend_exaggerates_is_learned() -> None:
    """Far from all that was seen, where it is all there is."""
    trend = 4 * (FEATURES[:, 0] - 0.5)
    far, beyond = np.full((2, 3), 9.0), np.array([-2.0, 2.0])
    for factor in (0.5, 1.0, 1.5):
        mean, _ = Surrogate(FEATURES, TIMES, factor * trend, trend).predict(far, TIMES[:2], beyond)
        assert (mean[1] - mean[0]) / 4 == pytest.approx(factor, abs=0.15)


def test_equal_targets_are_no_fault() -> None:
    nothing = np.zeros(60)
    mean, _ = Surrogate(FEATURES, TIMES, np.full(60, 0.3), nothing).predict(FEATURES, TIMES, nothing)
    np.testing.assert_allclose(mean, 0.3, atol=1e-6)


def test_curves_without_noise_do_not_lead_the_optimizer_astray() -> None:
    """Of 400 such sets this one led it to where the covariance is singular."""
    generator = np.random.default_rng(399)
    features = generator.random((14, 4)).round(1)
    places, epochs = np.array([(n, 2**k) for n in range(14) for k in range(1 if n < 9 else 5)]).T
    places, epochs = np.append(places, range(9, 14)), np.append(epochs, [27] * 5)
    order = np.lexsort((epochs, places))
    places, epochs = places[order], epochs[order]
    best = 1 - 0.5 / (1 + 9 * features[:, 0] * features[:, 1]) ** 0.4 * generator.uniform(1, 1.5, 14)
    accuracy = best[places] * (1 - 0.5 / epochs) / (1 - 0.5 / 27)
    targets, times = clipped_logit(accuracy, 1e-6), np.log1p(epochs) / np.log1p(27)
    fitted = Surrogate(features[places], times, targets, np.zeros(len(times)))
    mean, _ = fitted.predict(features[places], times, np.zeros(len(times)))
    np.testing.assert_allclose(mean, targets, atol=0.05)


def test_a_step_too_far_is_worse_than_any_fit_and_leads_back() -> None:
    fitted = model()
    for away in (11.0, 1000.0):
        far = fitted._means + away * fitted._deviations
        loss, gradient = fitted._loss(far, _distances(FEATURES))
        assert fitted._loss(fitted._means, _distances(FEATURES))[0] < loss < np.inf
        assert (gradient > 0).all()
        targets = truth(FEATURES, TIMES)
        again = Surrogate(FEATURES, TIMES, targets, TREND, start=far)
        assert np.abs(again.predict(FEATURES, TIMES, TREND)[0] - targets).mean() < 0.2


def test_the_logit_stays_finite() -> None:
    np.testing.assert_allclose(clipped_logit([0.0, 0.5, 1.0], 0.01), [-np.log(99), 0, np.log(99)])
