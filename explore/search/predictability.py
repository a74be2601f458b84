"""How well the speed of networks is predicted from the measured candidates of a study, and such a prediction."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from explore.cost.features import Features
from explore.cost.latency_model import FEWEST, Errors, cross_validated, fit
from explore.cost.record import Throughput
from explore.search.trial import Trial

_FAR = 1.5  # times as slow or fast as any that was measured; errors within are those of interpolation


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The speed of a network that was not measured, by the protocol of `like`, with the errors for those that were.

    `beyond` has the reasons why they may be larger for this one: where it is unlike all that were measured.
    """

    images_per_second: float
    like: Throughput
    errors: Errors
    beyond: tuple[str, ...]


def predicted_speed(trials: Sequence[Trial], features_of: Callable[[Throughput], Features]) -> Prediction:
    """Predict the speed of a network from trials; `features_of` tells the work of a pass of it by a protocol.

    Raises ValueError where too few architectures were measured.
    """
    measured, errors = _usual(trials), speed_errors(trials)
    if not errors:
        raise ValueError(f"a study must have at least {FEWEST} architectures that were measured, got {len(measured)}")
    like = measured[0][1]
    known, seconds = [features for features, _ in measured], [_seconds(speed) for _, speed in measured]
    features = features_of(like)
    predicted = fit(known, seconds).predict(features)
    return Prediction(
        images_per_second=like.batch_size / predicted,
        like=like,
        errors=errors,
        beyond=(*_out_of_range(predicted, seconds), *_never_measured(features, known)),
    )


def _out_of_range(predicted: float, seconds: Sequence[float]) -> list[str]:
    slower, faster = predicted / max(seconds), min(seconds) / predicted
    words = {"slow": slower, "fast": faster}
    return [f"{times:.1f} times as {how} as the {how}est of them" for how, times in words.items() if times > _FAR]


def _never_measured(features: Features, known: Sequence[Features]) -> list[str]:
    kinds = features.work.keys() - {kind for one in known for kind in one.work}
    return [f"the only one with operators of the kind {kind}" for kind in sorted(kinds)]


def speed_errors(trials: Sequence[Trial]) -> Errors | None:
    """The cross-validated errors of a latency model of these trials; None where too few architectures were measured.

    Of several protocols or devices, it is that of the most trials.
    """
    measured = _usual(trials)
    if len(measured) < FEWEST:
        return None
    try:
        return cross_validated([features for features, _ in measured], [_seconds(speed) for _, speed in measured])
    except RuntimeError:  # the least squares did not converge
        return None


def _usual(trials: Sequence[Trial]) -> list[tuple[Features, Throughput]]:
    """What was measured by the protocol of the most trials, each architecture once."""
    measured = [
        (cost.features, cost.throughput)
        for cost in (trial.evaluation.cost for trial in trials)
        if cost and cost.features and cost.throughput
    ]
    protocols = Counter(_protocol(speed) for _, speed in measured)
    usual = max(protocols, key=lambda one: protocols[one], default=())
    # One value for each architecture: another of the same would be no test of a prediction.
    each = {str(features.to_dict()): (features, speed) for features, speed in measured if _protocol(speed) == usual}
    return list(each.values())


def _seconds(speed: Throughput) -> float:
    return speed.batch_size / speed.images_per_second


def _protocol(speed: Throughput) -> tuple[object, ...]:
    return speed.device, speed.driver, speed.precision, speed.threads, speed.dispatch, speed.torch_version
