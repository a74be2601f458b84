"""A trial as the search sees it, and as it is read from an Optuna storage."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from explore.cost.record import Throughput
from explore.evaluation import (
    COMPLETE,
    DIVERGED,
    FAILED,
    INTERRUPTED,
    REFUSED,
    RUNNING,
    STOPPED,
    Evaluation,
    Retraining,
)
from explore.search.front import Losses, losses, non_dominated

FINISHED = frozenset({COMPLETE, STOPPED, REFUSED, DIVERGED, FAILED})
STATES = {COMPLETE: TrialState.COMPLETE, REFUSED: TrialState.PRUNED, STOPPED: TrialState.PRUNED}


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A configuration to evaluate, as sampled values and as overrides.

    `sampler_state` is what the sampler wants to find again beside the trial (the generation of NSGA-II); `origin` says
    where a configuration comes from that the search did not find itself.
    """

    values: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    overrides: Sequence[str]
    sampler_state: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""

    @cached_property
    def key(self) -> str:
        """The same for equal configurations, however they were proposed."""
        return key_of(self.values)


def key_of(values: Mapping[str, Any]) -> str:
    """The same for equal values, in whatever order."""
    return json.dumps(dict(sorted(values.items())))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial as it is recorded. `folder` is relative to the study's output folder; times are local.

    Each time that it is taken up again it takes another `row` of the storage, and keeps its `number`, which is its
    first row; `continues` is the row before. `alike` are the numbers of trials from which a comparison of speeds could
    not tell it apart.
    """

    number: int
    row: int
    trial_id: int
    proposal: Proposal
    command: str
    folder: str
    evaluation: Evaluation
    started: datetime | None
    ended: datetime | None
    continues: int | None
    owner: Mapping[str, Any]
    heartbeat: float
    given_up: bool = False  # its checkpoint was removed: it cannot go on
    expected: float | None = None  # accuracy after the last epoch, as a model foresaw it when it was last taken up
    alike: tuple[int, ...] = ()
    retrained: tuple[Retraining, ...] = ()

    @cached_property
    def status(self) -> str:
        """One of the words of `explore.evaluation`."""
        return self.evaluation.status

    @cached_property
    def epochs(self) -> int:
        """How many epochs it was trained."""
        return self.evaluation.epochs

    @cached_property
    def accuracy(self) -> float | None:
        """Validation accuracy as a fraction, None before the first epoch."""
        return self.evaluation.accuracy

    @cached_property
    def throughput(self) -> float | None:
        """Images per second, None before it was measured."""
        cost = self.evaluation.cost
        return cost.throughput.images_per_second if cost and cost.throughput else None

    @cached_property
    def settled(self) -> bool | None:
        """Whether its speed is as well known as was asked for; None before it was measured, and where nobody looked."""
        cost = self.evaluation.cost
        return cost.throughput.settled if cost and cost.throughput else None


def candidates(trials: Sequence[Trial]) -> list[Trial]:
    """Those that count in the size of a study: not who was only measured, nor who waits for being taken up again."""
    return [one for one in trials if one.status != INTERRUPTED and (one.status != STOPPED or one.evaluation.epochs)]


def finished(trials: Sequence[Trial]) -> list[Trial]:
    """Those that have ended by themselves, well or not; of these the stopped ones may yet go on."""
    return [trial for trial in candidates(trials) if trial.status in FINISHED]


def as_fast_as(trial: Trial, images_per_second: float) -> Trial:
    """A measured trial with another speed."""
    cost = trial.evaluation.cost
    assert cost
    assert cost.throughput
    return timed_as(trial, replace(cost.throughput, images_per_second=images_per_second))


def times_as_fast(trial: Trial, factor: float) -> Trial:
    """A trial with its speed, where it was measured, on another scale."""
    cost = trial.evaluation.cost
    if cost is None or cost.throughput is None:
        return trial
    timed = cost.throughput
    speed, low, high = (factor * one for one in (timed.images_per_second, timed.low, timed.high))
    return timed_as(trial, replace(timed, images_per_second=speed, low=low, high=high))


def timed_as(trial: Trial, throughput: Throughput) -> Trial:
    """A measured trial with another measurement of its speed."""
    cost = trial.evaluation.cost
    assert cost
    return replace(trial, evaluation=replace(trial.evaluation, cost=replace(cost, throughput=throughput)))


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials that no other beats in accuracy and throughput at once, fastest first."""
    complete = [trial for trial in trials if trial.status == COMPLETE]
    members = [trial for trial, best in zip(complete, non_dominated(objectives(complete)), strict=True) if best]
    return sorted(members, key=lambda trial: -(trial.throughput or 0.0))


def objectives(complete: Sequence[Trial], *, speedup: float = 1.0) -> Losses:
    """What a search makes small, of complete trials: see `losses`. `speedup` times as fast as they were measured."""
    accuracies = [trial.accuracy or 0.0 for trial in complete]
    return losses(accuracies, [speedup * (trial.throughput or 0.0) for trial in complete])


def read(frozen: FrozenTrial) -> Trial:
    """What a storage has of it."""
    # Heartbeats, and all of it in older studies, stand beside the claim.
    attributes = {**frozen.user_attrs.get("claim", {}), **frozen.user_attrs}
    proposal = Proposal(
        values=frozen.params,
        distributions=frozen.distributions,
        overrides=attributes.get("overrides", []),
        sampler_state=attributes.get("sampler_state", {}),
        origin=attributes.get("origin", ""),
    )
    number = attributes.get("number")
    return Trial(
        number=frozen.number if number is None else number,
        row=frozen.number,
        trial_id=frozen._trial_id,
        proposal=proposal,
        command=attributes.get("command", ""),
        folder=_folder(attributes.get("folder"), frozen.number),
        evaluation=_evaluation(frozen),
        started=frozen.datetime_start,
        ended=frozen.datetime_complete,
        continues=attributes.get("continues"),
        owner=attributes.get("owner", {}),
        heartbeat=attributes.get("heartbeat", 0.0),
        expected=attributes.get("expected"),
    )


def _folder(recorded: str | None, number: int) -> str:
    """Where a trial was said to lie, if that is a place for trials: whoever writes to a storage may say anything."""
    return recorded if recorded and re.fullmatch(r"trials/[0-9]+", recorded) else f"trials/{number:04d}"


def _evaluation(frozen: FrozenTrial) -> Evaluation:
    attributes = frozen.user_attrs
    if frozen.state.is_finished() and "evaluation" in attributes:
        evaluation = Evaluation.from_dict(attributes["evaluation"])
        # Two writes end a trial; they disagree when two processes ended it at once, and then it is done again.
        agree = STATES.get(evaluation.status, TrialState.FAIL) == frozen.state
        return evaluation if agree else replace(evaluation, status=INTERRUPTED)
    status, known = FAILED if frozen.state.is_finished() else RUNNING, attributes.get("so_far")
    return replace(Evaluation.from_dict(known), status=status) if known else Evaluation(status=status)
