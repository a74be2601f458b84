"""What a worker does next: go on with a candidate that waits, or begin another one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from explore.search.proposals import Proposer
from explore.search.stopping import Ladder, next_rung
from explore.search.trial import Proposal, Trial
from explore.search.veto import Veto


@dataclass(frozen=True)
class Step:
    """Train the proposal until it has so many epochs; `continues` is the trial that had the ones before.

    `expected` is the accuracy that it will have after the last epoch, as far as somebody foresees that. `beside` are
    proposals that are trained at once with a new one. `paced` has it measured after the last epoch whether that would
    pay for others like it.
    """

    proposal: Proposal
    until: int
    continues: Trial | None = None
    expected: float | None = None
    beside: Sequence[Proposal] = ()
    paced: bool = False


class Scheduler(Protocol):
    """Decides from the trials of a study alone, so that any number of workers need nothing else in common."""

    @property
    def refusal(self) -> str:
        """What was said last of a configuration that breaks a rule."""

    @property
    def ended(self) -> str:
        """Why nothing is left to do though more could be; empty where nothing more could be done."""

    def next(self, trials: Sequence[Trial], *, room: bool) -> Step | None:
        """The next step; a new candidate only where there is room for one. None when nothing is left to do."""

    def resume(self, trial: Trial) -> Step:
        """The step that takes up an interrupted trial."""


@dataclass
class Rungs:
    """Goes on with the best that wait at a rung, and otherwise begins what the proposer proposes.

    `rungs` are the epochs at which candidates wait, the last is the end; one in `eta` goes on, and when nothing is left
    to begin, who is unbeaten. A `veto` puts off: while there is room, another one is begun in place of who is unlikely
    to come to the front.
    """

    proposer: Proposer
    rungs: Sequence[int]
    eta: int
    veto: Veto | None = None

    ended = ""

    def __post_init__(self) -> None:
        self._ladder = Ladder(self.rungs, self.eta)

    @property
    def refusal(self) -> str:
        """As `Scheduler`."""
        return self.proposer.refusal

    def next(self, trials: Sequence[Trial], *, room: bool) -> Step | None:
        """As `Scheduler`."""
        promotable = self._ladder.promotable(trials)
        if self.veto and (found := self.veto.first(promotable, trials)):
            trial, expected = found
            return replace(self.resume(trial), expected=expected)
        if promotable and not self.veto:
            return self.resume(promotable[0])
        if room and (proposal := self.proposer.propose(trials)):
            return Step(proposal, self.rungs[0])
        # A veto puts off: with nothing else to do they go on as they rank, and no search ends while somebody may. Where
        # too few came to a rung for ranks, all would wait for ever, and a small search would end without a front.
        last = promotable[0] if promotable else self._ladder.unbeaten(trials)
        return self.resume(last) if last else None

    def resume(self, trial: Trial) -> Step:
        """As `Scheduler`."""
        return Step(trial.proposal, next_rung(self.rungs, trial.evaluation.epochs), trial)
