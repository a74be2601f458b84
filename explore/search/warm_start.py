"""A warm start: candidates that come before all others, and trials of an earlier study that teach."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from explore.evaluation import STOPPED
from explore.search.schedule import Scheduler, Step
from explore.search.trial import Proposal, Trial


@dataclass
class First:
    """A scheduler that begins the candidates of a queue, in their order, and leaves everything else to another one.

    It knows by the trials which of them were begun. `until` is the first rung.
    """

    queue: Sequence[Proposal]
    then: Scheduler
    until: int

    @property
    def refusal(self) -> str:
        """As `Scheduler`."""
        return self.then.refusal

    @property
    def ended(self) -> str:
        """As `Scheduler`."""
        return self.then.ended

    def next(self, trials: Sequence[Trial], *, room: bool) -> Step | None:
        """As `Scheduler`."""
        begun = {trial.proposal.key: trial for trial in trials}
        for proposal in self.queue if room else ():
            trial = begun.get(proposal.key)
            if trial is None:
                return Step(proposal, self.until)
            # Somebody else had it measured, before it was asked for.
            if trial.status == STOPPED and not trial.evaluation.epochs:
                return self.then.resume(trial)
        return self.then.next(trials, room=room)

    def resume(self, trial: Trial) -> Step:
        """As `Scheduler`."""
        return self.then.resume(trial)


def teaching(trial: Trial, proposal: Proposal, epochs: int) -> Trial:
    """A trial of an earlier study as one that teaches another, where it is called `proposal`.

    Its number is below 0, so that no trial of that study has it, and it has no more than so many epochs.
    """
    seen = replace(trial.evaluation, curve=tuple(trial.evaluation.curve[:epochs]))
    return replace(trial, number=-1 - trial.number, row=-1 - trial.row, proposal=proposal, evaluation=seen)
