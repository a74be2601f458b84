"""What asking and telling cost in a study that already holds many trials, finished or running."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks.filled_study import evaluation, fill, proposals
from benchmarks.trial_parts import Clock, proposer, speed_aware
from explore.config import compose, has_option
from explore.evaluation import COMPLETE, RUNNING, STOPPED, Evaluation
from explore.search.space import parse_space
from explore.search.stopping import Ladder
from explore.search.storage import open_storage
from explore.search.study import create_study
from explore.search.trial import Trial
from explore.search.veto import Veto

_BASE = ("+sweep=pareto", "training.threads=1")
_REPEATS, _FEW = 9, 4
_SAMPLERS = ("tpe", "gp", "nsga2", "nsga3", "random")
_BELOW, _SMALLEST = 0.05, 1e-3  # of a veto: probability, and error that counts as none
_RUNGS = (1, 3, 9, 10)  # the last is that of the trials that a study is filled with


def parts_with_history(number: int, url: str, database: str, name: str) -> Clock:
    """The parts, timed; the study of this name at the URL is filled up to so many trials, in the database behind it."""
    config = compose(_BASE)
    space = parse_space(config.space, lambda key, values: has_option(key, values, config))
    create_study(open_storage(url), name, {})
    fill(database, name, space, number)
    clock = Clock()
    study = create_study(open_storage(url), name, {})
    with clock.part("read the study, once"):
        trials = study.trials()
    searched = as_searched(trials)
    ours = speed_aware(config, space, _RUNGS)
    with clock.part("first proposal with speed_aware, once"):
        assert ours.next(searched, room=True)
    clock.repeat("propose with speed_aware", partial(ours.next, searched, room=True), _FEW)
    for sampler in _SAMPLERS:
        clock.repeat(f"propose with {sampler}", partial(proposer(sampler, config, space).propose, trials), _FEW)
    ladder, stopped = Ladder(_RUNGS, 3), as_stopped(trials)
    clock.repeat("decide at the rungs, for samplers without a model", partial(ladder.promotable, stopped), _FEW)
    veto = Veto(space, _RUNGS[-1], 10, _SMALLEST, _BELOW)
    decide = partial(_decide, ladder, veto, stopped)
    with clock.part("first decision with a veto, once"):
        decide()
    clock.repeat("decide at the rungs, with a veto", decide, _FEW)
    against_all = partial(_decide, ladder, replace(veto, below=2.0), stopped)  # more than any probability
    clock.repeat("decide at the rungs, with a veto against all", against_all, _FEW)
    known = {trial.proposal.key for trial in trials}
    fresh = (one for one in proposals(space, seed=number) if one.key not in known)
    for proposal, _ in zip(fresh, range(_REPEATS + 1), strict=False):
        with clock.part("ask, the storage's part"):
            study.trials_without_dead()
            trial = study.claim(proposal, command="python -m explore.train", target=10**9)
        assert trial
        ended = evaluation(proposal)
        with clock.part("tell, the storage's part"):
            study.record(trial, Evaluation(status=RUNNING, cost=ended.cost))
            study.record(trial, replace(ended, status=RUNNING))
            study.finish(trial, ended)
    assert len(study.trials()) == len(trials) + _REPEATS + 1
    return clock


def _decide(ladder: Ladder, veto: Veto, trials: Sequence[Trial]) -> None:
    veto.first(ladder.promotable(trials), trials)


def parts_among_running(number: int, url: str, database: str, name: str) -> Clock:
    """What the storage takes, timed while so many others are at work; as `parts_with_history`."""
    config = compose(_BASE)
    space = parse_space(config.space, lambda key, values: has_option(key, values, config))
    create_study(open_storage(url), name, {})
    fill(database, name, space, number, running=True)
    study, clock = create_study(open_storage(url), name, {}), Clock()
    for proposal, _ in zip(proposals(space, seed=number + 1), range(_FEW + 1), strict=False):
        with clock.part("look at all trials"):
            study.trials()
        with clock.part("claim"):
            trial = study.claim(proposal, command="python -m explore.train", target=10**9)
        assert trial
        with clock.part("heartbeat"):
            study.beat(trial)
        study.finish(trial, evaluation(proposal))
    return clock


def as_searched(trials: Sequence[Trial]) -> list[Trial]:
    """The trials as `speed_aware` leaves them: of five, two were only measured, two stopped, and one is complete."""
    return [_cut(trial, (0, 0, 1, 3, _RUNGS[-1])[trial.number % 5]) for trial in trials]


def as_stopped(trials: Sequence[Trial]) -> list[Trial]:
    """The trials as rungs leave them: of nine, six stopped at the first, two at the second, and one is complete."""
    return [_cut(trial, (1, 1, 1, 1, 1, 1, 3, 3, _RUNGS[-1])[trial.number % 9]) for trial in trials]


def _cut(trial: Trial, epochs: int) -> Trial:
    status = COMPLETE if epochs == _RUNGS[-1] else STOPPED
    short = replace(trial.evaluation, status=status, curve=tuple(trial.evaluation.curve)[:epochs])
    return replace(trial, evaluation=short)
