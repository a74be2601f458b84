"""Proposals: what to evaluate next, never twice, never impossible.

The sampler works on a mirror of the study in memory, see `history`. There a configuration that breaks a rule or was
tried before can be thrown away and asked for again, without a trace in the study, and asking costs no storage access.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from explore.search.history import History, mixed
from explore.search.options import Search
from explore.search.samplers import make_sampler
from explore.search.space import Space
from explore.search.trial import Proposal, Trial

Check = Callable[[Sequence[str]], None]
_ASKS = 20
_DRAWS = 1000
_REPEATS = 3
_SMALL = 10_000


@dataclass
class Proposer:
    """Asks the sampler called `sampler` for configurations of `space`, on the trials of one study.

    `check(overrides)` raises ValueError for a configuration that breaks a rule (patch size must divide the image);
    `refusal` is what it said last.
    """

    space: Space
    sampler: str = "random"
    seed: int = Search.seed
    startup: int = Search.startup
    check: Check = lambda overrides: None
    refusal: str = field(default="", init=False)
    _impossible: set[str] = field(default_factory=set, init=False)
    _history: History = field(init=False)

    def __post_init__(self) -> None:
        self._history = History(self.sampler, self.seed, self.startup)
        make_sampler(self.sampler, seed=self.seed, startup=self.startup)
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def propose(self, trials: Sequence[Trial]) -> Proposal | None:
        """Return a configuration that none of `trials` has; None when the space holds no other.

        The same trials give the same proposal. A space too large to be listed counts as exhausted when neither the
        sampler nor a thousand random draws find anything new.
        """
        tried = {trial.proposal.key for trial in trials}
        for proposal in self._candidates(trials):
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

    def _candidates(self, trials: Sequence[Trial]) -> Iterator[Proposal]:
        """Ask the sampler, then chance; a sampler that keeps repeating itself must not stop the search."""
        seed = mixed(self.seed, len(trials))
        sampler = make_sampler(self.sampler, seed=seed, startup=self.startup)
        if sampler is None:
            yield from map(self.space.proposal, self.space.grid())
            return
        # Made anew: samplers leave notes in their study, and with those the same trials would not give the same answer.
        mirror = self._history.mirror(trials)
        yield from self._ask(mirror, sampler, _ASKS, patience=_REPEATS)
        if self.space.size > _SMALL:
            chance = RandomSampler(seed=mixed(self.seed, len(trials), 1))
            yield from self._ask(mirror, chance, _DRAWS, patience=_DRAWS)
            return
        rest = list(self.space.grid())
        np.random.default_rng(seed).shuffle(rest)
        yield from map(self.space.proposal, rest)

    def _ask(self, mirror: optuna.Study, sampler: BaseSampler, count: int, *, patience: int) -> Iterator[Proposal]:
        """Ask up to `count` times, and no longer once `patience` answers were repeats: some take seconds for one."""
        mirror.sampler = sampler
        seen: set[str] = set()
        for asked in range(count):
            if asked - len(seen) >= patience:
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                trial = mirror.ask()
                values = self.space.sample(trial)
            told = mirror.tell(trial, state=TrialState.FAIL)
            proposal = self.space.proposal(values, sampler_state=told.system_attrs)
            seen.add(proposal.key)
            yield proposal
