"""What an ablation does next: every arm with one seed after the other, until what is asked is told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from explore.ablation.arms import LARGEST, Arm
from explore.ablation.design import FEWEST_TOGETHER, MOST_TOGETHER, SEED, Design
from explore.ablation.records import Scores
from explore.evaluation import BLOCK_LOST
from explore.search.schedule import Step
from explore.search.space import to_overrides
from explore.search.trial import Proposal, Trial


@dataclass
class Paired:
    """A scheduler that adds seeds to all arms at once.

    `factors` are the distributions of the dimensions that arms differ in, `epochs` those of each training. `enough`
    says of the scores at a look whether they settle everything; it is not asked at the last one. Once a run of an arm
    has shown that it pays, further seeds of it are trained together, but no more than leave each of so many `workers`,
    those of this machine, something to do.
    """

    design: Design
    factors: Mapping[str, BaseDistribution]
    epochs: int
    enough: Callable[[Scores], bool]
    workers: int = 1
    ended: str = field(default="", init=False)
    _passed: int = field(default=0, init=False)  # looks that were not enough

    refusal = ""

    def next(self, trials: Sequence[Trial], *, room: bool) -> Step | None:
        """As `Scheduler`."""
        runs = list(self.design.runs(trials, self._wanted(trials))) if room else []
        for arm, seed, run in runs:
            if run is None:
                beside = [self._proposal(arm, other) for other in self._beside(arm, runs)]
                known = any(other.evaluation.pace for one, _, other in runs if one is arm and other)
                paced = bool(self.design.tried_together) and not known
                return Step(self._proposal(arm, seed), self.epochs, beside=beside, paced=paced)
        return None

    def _beside(self, arm: Arm, runs: Sequence[tuple[Arm, int, Trial | None]]) -> list[int]:
        """The seeds that are trained together with the next one of an arm, which is the first that was not begun."""
        mine = [(seed, run) for one, seed, run in runs if one is arm]
        seconds = {part for _, run in mine if run for part in run.evaluation.seconds}
        if not self.design.tried_together or BLOCK_LOST in seconds or not any(_pays(run) for _, run in mine):
            return []
        share = ceil(sum(run is None for _, _, run in runs) / self.workers)
        together = [seed for seed, run in mine if run is None][: min(MOST_TOGETHER, share)]
        return together[1:] if len(together) >= FEWEST_TOGETHER else []

    def resume(self, trial: Trial) -> Step:
        """As `Scheduler`."""
        # It may have been interrupted while that was measured; of those of a block it is known.
        paced = bool(self.design.tried_together) and trial.evaluation.alone
        return Step(trial.proposal, self.epochs, trial, paced=paced)

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
        return Proposal(values=values, distributions=distributions, overrides=to_overrides(values))


def _pays(run: Trial | None) -> bool:
    return bool(run and run.evaluation.pace and run.evaluation.pace.pays)
