"""The members of a front trained again with other seeds, in a study of their own beside that of the search.

So they are taken up, gone on with and recorded as all trials are, by the same workers, and the search knows nothing of
them: its trials, samplers, hypervolume and size stay as they were.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import count, islice

from explore.beginning import Beginning
from explore.candidate import COSTS, test_accuracy
from explore.config import compose, has_option, vary
from explore.evaluation import COMPLETE, DIVERGED, FAILED, REFUSED, Retraining
from explore.joining import mark_folder
from explore.plan import Plan, open_study
from explore.search.seeds import NOTE, retrainings
from explore.search.space import parse_space
from explore.search.study import Study
from explore.search.trial import Proposal, Trial, finished, key_of
from explore.working import Orders, keep_working

FOLDER = "seeds"  # in that of the study
_SEED, _SEEDS = "training.seed", "range(0, 1000000)"


def retrain(plan: Plan, study: Study, members: Sequence[Trial], stop: Callable[[], bool]) -> bool:
    """Train each member with `plan.seeds` seeds that are not its own, and note in the study what came of it.

    All members have the same seeds, so that they can be compared in pairs. What was trained before is not trained
    again. Returns False where it was told to leave by `stop` or through the study; what was done until then is kept.
    """
    if plan.seeds == 1 or not members:
        return True
    own = {trial.proposal.values.get(_SEED, compose(plan.base).training.seed) for trial in members}
    seeds = list(islice((seed for seed in count() if seed not in own), plan.seeds))
    again = _plan(plan, members, seeds)
    beside = open_study(again)
    again.output.mkdir(exist_ok=True)
    mark_folder(beside, again.output)
    wanted = {proposal.key for proposal in again.beginning.first}
    again = replace(again, trials=len(wanted | {trial.proposal.key for trial in beside.trials()}))
    orders, shown = Orders(study), set[int]()

    def watch() -> None:
        done = sum(trial.proposal.key in wanted for trial in finished(beside.trials()))
        if done not in shown:
            shown.add(done)
            what, are = ("members", "are") if len(members) != 1 else ("member", "is")
            words = f"{len(members)} {what} of the front {are} trained with {plan.seeds} other seeds"
            print(f"{words}: {done} of {len(wanted)} trainings done", file=sys.stderr, flush=True)

    def told() -> bool:
        return stop() or orders.any()

    try:
        keep_working(again, beside, watch, told)
        for trial in beside.trials():
            if trial.proposal.key in wanted and trial.status in (FAILED, DIVERGED, REFUSED):
                print(f"explore: {trial.command}: {trial.status}: {trial.evaluation.reason}", file=sys.stderr)
        return not told()
    finally:
        _note(again, study, beside, members)


def _plan(plan: Plan, members: Sequence[Trial], seeds: Sequence[int]) -> Plan:
    """The plan of a search whose candidates are all given."""
    config = compose(plan.base)
    text = {**plan.space, _SEED: _SEEDS}
    space = parse_space(text, lambda key, values: has_option(key, values, config))
    first = [
        space.proposal({**trial.proposal.values, _SEED: seed}, origin=f"trial {trial.number}")
        for seed in seeds
        for trial in members
    ]
    return replace(
        plan,
        study=f"{plan.study} {FOLDER}",  # a name that no search can have
        output=plan.output / FOLDER,
        costs=plan.output / COSTS,
        space=text,
        sampler="random",
        beginning=Beginning(first=tuple(first)),
        rungs=plan.rungs[-1:],
    )


def _note(again: Plan, study: Study, beside: Study, members: Sequence[Trial]) -> None:
    """Keep with the study what its members reached, those that were members before among them."""
    tested = {(number, one.seed): one.test_accuracy for number, each in retrainings(study).items() for one in each}
    complete = [trial for trial in beside.trials() if trial.status == COMPLETE]
    found: dict[str, list[dict[str, object]]] = {}
    for member in members:
        mine = [trial for trial in complete if _without_seed(trial.proposal) == _without_seed(member.proposal)]
        for trial in sorted(mine, key=_seed):
            known = tested.get((member.number, _seed(trial)))
            accuracy = _tested(again, trial) if known is None else known
            found.setdefault(str(member.number), []).append(asdict(_retraining(trial, accuracy)))
    study.note(NOTE, {**study.notes.get(NOTE, {}), **found})


def _retraining(trial: Trial, test_accuracy: float | None) -> Retraining:
    assert trial.accuracy is not None
    return Retraining(
        seed=_seed(trial),
        accuracy=trial.accuracy,
        test_accuracy=test_accuracy,
        epochs=trial.evaluation.epochs,
        seconds=sum(trial.evaluation.seconds.values()),
        command=trial.command,
    )


def _tested(again: Plan, trial: Trial) -> float | None:
    candidate = vary(again.base, trial.proposal.overrides, again.space).candidate
    try:
        return test_accuracy(candidate, again.output / trial.folder)
    except ValueError as error:
        print(f"explore: a training with another seed is not tested: {error}: {trial.command}", file=sys.stderr)
        return None


def _seed(trial: Trial) -> int:
    return int(trial.proposal.values[_SEED])


def _without_seed(proposal: Proposal) -> str:
    return key_of({key: value for key, value in proposal.values.items() if key != _SEED})
