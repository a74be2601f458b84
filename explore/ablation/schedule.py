"""What an ablation does next: every arm with one seed after the other, until what is asked is told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from explore.ablation.arms import LARGEST, Arm
from explore.ablation.design import SEED, Design
from explore.ablation.records import Scores
from explore.search.schedule import Step
from explore.search.space import to_overrides
from explore.search.trial import Proposal, Trial


@dataclass
class Paired:
    """A scheduler that adds seeds to all arms at once.

    `factors` are the distributions of the dimensions that arms differ in, `epochs` those of each training. `enough`
    says of the scores at a look whether they settle everything; it is not asked at the last one.
    """

    design: Design
    factors: Mapping[str, BaseDistribution]
    epochs: int
    enough: Callable[[Scores], bool]
    ended: str = field(default="", init=False)
    _passed: int = field(default=0, init=False)  # looks that were not enough

    refusal = ""

    def next(self, trials: Sequence[Trial], *, room: bool) -> Step | None:
        """As `Scheduler`."""
        for arm, seed, run in self.design.runs(trials, self._wanted(trials)) if room else ():
            if run is None:
                return Step(self._proposal(arm, seed), self.epochs)
        return None

    def resume(self, trial: Trial) -> Step:
        """As `Scheduler`."""
        return Step(trial.proposal, self.epochs, trial)

    def _wanted(self, trials: Sequence[Trial]) -> int:
        """How many seeds are asked for, by what those so far have said."""
        looks = self.design.looks
        while self._passed < len(looks) - 1:
            count = looks[self._passed]
            if self.ended or not self.design.done(trials, count):
                return count
            scores = self.design.scores(trials, count)
            if len(scores.arms) < 2:
                self.ended = "fewer than two arms are left to be compared"
            elif self.enough(scores):
                self.ended = f"every difference is told or negligible after {count} of at most {looks[-1]} seeds"
            else:
                self._passed += 1
        return looks[-1]

    def _proposal(self, arm: Arm, seed: int) -> Proposal:
        values = self.design.values(arm, seed)
        distributions: dict[str, BaseDistribution] = {key: self.factors[key] for key in arm.levels}
        if arm.free is not None:
            whole = isinstance(arm.free, int)
            distributions[self.design.options.by] = (
                IntDistribution(1, LARGEST) if whole else FloatDistribution(0, LARGEST)
            )
        distributions[SEED] = IntDistribution(0, 2**32 - 1)
        return Proposal(values=values, distributions=distributions, overrides=to_overrides(values), sampler_state={})
