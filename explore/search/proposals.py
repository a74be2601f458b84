"""Proposals: what to evaluate next, never twice, never impossible.

The sampler works on a mirror of the study in memory. There a configuration that breaks a rule or was tried before can
be thrown away and asked for again, without a trace in the study, and asking costs no storage access.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from explore.evaluation import COMPLETE, REFUSED
from explore.search.samplers import make_sampler
from explore.search.space import Space, Values, to_overrides
from explore.search.study import Proposal, Trial

Check = Callable[[Sequence[str]], None]
_TRIES = 100
_NO_THROUGHPUT = 1e-9


@dataclass
class Proposer:
    """Asks the sampler called `sampler` for configurations of `space`.

    `check(overrides)` raises ValueError for a configuration that breaks a rule (patch size must divide the image);
    `refusal` is what it said last.
    """

    space: Space
    sampler: str = "random"
    seed: int = 0
    startup: int = 10
    check: Check = lambda overrides: None
    refusal: str = field(default="", init=False)
    _mirror: optuna.Study = field(init=False)
    _mirrored: set[int] = field(default_factory=set, init=False)
    _impossible: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        make_sampler(self.sampler, seed=self.seed, startup=self.startup)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = optuna.storages.InMemoryStorage()
        storage.create_new_study([StudyDirection.MAXIMIZE] * 2, "mirror")
        self._mirror = optuna.load_study(study_name="mirror", storage=storage)

    def propose(self, trials: Sequence[Trial]) -> Proposal | None:
        """Return a configuration that none of `trials` has; None when the space holds no other.

        The same trials give the same proposal.
        """
        self._follow(trials)
        tried = {trial.proposal.key for trial in trials}
        for proposal in self._candidates(len(trials)):
            if proposal.key in tried or proposal.key in self._impossible:
                continue
            try:
                self.check(proposal.overrides)
            except ValueError as error:
                self.refusal = str(error)
                self._impossible.add(proposal.key)
                continue
            return proposal
        return None

    def _candidates(self, number: int) -> Iterator[Proposal]:
        """Ask the sampler, then chance; a sampler that keeps repeating itself must not stop the search."""
        sampler = make_sampler(self.sampler, seed=_mix(self.seed, number), startup=self.startup)
        if sampler is None:
            yield from (self._proposal(values, {}) for values in self.space.grid())
            return
        for source in (sampler, RandomSampler(seed=_mix(self.seed, number))):
            self._mirror.sampler = source
            for _ in range(_TRIES):
                yield self._ask()

    def _ask(self) -> Proposal:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._mirror.ask()
            values = self.space.sample(trial)
        asked = self._mirror.tell(trial, state=TrialState.FAIL)
        return self._proposal(values, asked.system_attrs)

    def _proposal(self, values: Values, sampler_state: Mapping[str, Any]) -> Proposal:
        return Proposal(
            values=values,
            distributions=self.space.distributions(values),
            overrides=to_overrides(values),
            sampler_state=sampler_state,
        )

    def _follow(self, trials: Sequence[Trial]) -> None:
        """Mirror the trials that have ended since; refused ones as infeasible with the worst accuracy."""
        for trial in trials:
            if trial.number in self._mirrored or trial.status not in (COMPLETE, REFUSED):
                continue
            self._mirrored.add(trial.number)
            self._mirror.add_trial(
                create_trial(
                    values=[trial.accuracy or 0.0, log(trial.throughput or _NO_THROUGHPUT)],
                    params=dict(trial.proposal.values),
                    distributions=dict(trial.proposal.distributions),
                    system_attrs=dict(trial.proposal.sampler_state),
                    constraints=dict(trial.evaluation.constraints),
                )
            )


def _mix(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
