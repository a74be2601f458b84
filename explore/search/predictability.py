"""How well the speed of the candidates of a study can be predicted from those that were measured."""

from collections import Counter
from collections.abc import Sequence

from explore.cost.features import Features
from explore.cost.latency_model import FEWEST, Errors, cross_validated
from explore.cost.record import Throughput
from explore.search.trial import Trial


def speed_errors(trials: Sequence[Trial]) -> Errors | None:
    """The cross-validated errors of a latency model of these trials; None where too few architectures were measured.

    Of several protocols or devices, it is that of the most trials.
    """
    measured = [
        (cost.features, cost.throughput)
        for cost in (trial.evaluation.cost for trial in trials)
        if cost and cost.features and cost.throughput
    ]
    protocols = Counter(_protocol(speed) for _, speed in measured)
    usual = max(protocols, key=lambda one: protocols[one], default=())
    seconds: dict[str, tuple[Features, float]] = {}
    for features, speed in measured:
        if _protocol(speed) == usual:
            # One value for each architecture: another of the same would be no test of a prediction.
            seconds[str(features.to_dict())] = features, speed.batch_size / speed.images_per_second
    if len(seconds) < FEWEST:
        return None
    try:
        return cross_validated([features for features, _ in seconds.values()], [one for _, one in seconds.values()])
    except RuntimeError:  # the least squares did not converge
        return None


def _protocol(speed: Throughput) -> tuple[object, ...]:
    return speed.device, speed.driver, speed.precision, speed.threads, speed.dispatch, speed.torch_version
