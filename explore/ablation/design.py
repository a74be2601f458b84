"""What an ablation trains: its arms, the seeds that they share, and when it is looked at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

from explore.ablation.arms import Arm
from explore.ablation.options import Ablation
from explore.ablation.records import Scores
from explore.evaluation import COMPLETE, INTERRUPTED, RUNNING
from explore.search.space import Values
from explore.search.study import Study
from explore.search.trial import Trial, key_of

SEED = "training.seed"
NOTE = "ablation"  # where a study keeps its design
# Seeds of an arm that are trained at once. It is measured with the fewest: the more there are, the more is shared.
FEWEST_TOGETHER, MOST_TOGETHER = 3, 8


@dataclass(frozen=True, kw_only=True)
class Design:
    """The whole of it, as a study keeps it.

    Args:
        factors: the dimensions that arms differ in, in the order written.
        arms: every combination of levels; the first is the reference.
        options: what was asked for; its `by` was set for each arm to match it with the first.
        first_seed: the seeds are this one and those that follow.
        looks: numbers of seeds after which it is looked whether they were enough; the last is the end.
    """

    factors: Sequence[str]
    arms: Sequence[Arm]
    options: Ablation
    first_seed: int
    looks: Sequence[int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote."""
        return cls(
            factors=tuple(record["factors"]),
            arms=tuple(Arm.from_dict(arm) for arm in record["arms"]),
            options=Ablation(**record["options"]),
            first_seed=record["first_seed"],
            looks=tuple(record["looks"]),
        )

    @property
    def keys(self) -> set[str]:
        """What its runs set: the factors, the dimension by which arms are matched, the seed."""
        return {*self.factors, self.options.by, SEED}

    @property
    def tried_together(self) -> int:
        """With how many seeds of an arm it is measured whether they are trained at once; 0 where so many never are."""
        new = [self.looks[0] - 1, *(after - before for before, after in pairwise(self.looks))]
        return FEWEST_TOGETHER if self.options.together == "auto" and max(new) >= FEWEST_TOGETHER else 0

    def seeds(self, count: int) -> range:
        """The first so many seeds."""
        return range(self.first_seed, self.first_seed + count)

    def values(self, arm: Arm, seed: int) -> Values:
        """The configuration of a run."""
        return {**arm.values(self.options.by), SEED: seed}

    def runs(self, trials: Sequence[Trial], count: int) -> Iterator[tuple[Arm, int, Trial | None]]:
        """Arm, seed and trial of every run with the first so many seeds, seed by seed; None for one not begun."""
        known = {trial.proposal.key: trial for trial in trials}
        for seed in self.seeds(count):
            for arm in self.arms:
                yield arm, seed, known.get(key_of(self.values(arm, seed)))

    def done(self, trials: Sequence[Trial], count: int) -> bool:
        """Whether every run with the first so many seeds has ended."""
        return all(
            run is not None and run.status not in (RUNNING, INTERRUPTED) for _, _, run in self.runs(trials, count)
        )

    def scores(self, trials: Sequence[Trial], count: int) -> Scores:
        """The validation accuracies of those of the first so many seeds that all arms have.

        An arm with a run that ended otherwise than complete is left out: nobody knows what it would have reached.
        """
        import pandas as pd  # which no search needs, to begin

        runs = list(self.runs(trials, count))
        failed = {arm.name for arm, _, run in runs if run and run.status not in (COMPLETE, RUNNING, INTERRUPTED)}
        sound = [arm for arm in self.arms if arm.name not in failed]
        found = {(seed, arm.name): run.accuracy for arm, seed, run in runs if run and run.status == COMPLETE}
        whole = [seed for seed in self.seeds(count) if all((seed, arm.name) in found for arm in sound)]
        table = {arm.name: [found[seed, arm.name] for seed in whole] for arm in sound}
        return Scores(
            factors={key: _levels(sound, key) for key in self.factors},
            arms={arm.name: arm.levels for arm in sound},
            accuracies=pd.DataFrame(table, index=whole, dtype=float),
        )


def design_of(study: Study) -> Design | None:
    """The design of an ablation; None for a search."""
    record = study.notes.get(NOTE)
    return Design.from_dict(record) if record else None


def _levels(arms: Sequence[Arm], key: str) -> list[Any]:
    """The levels of a factor, in the order of the arms."""
    return list(dict.fromkeys(arm.levels[key] for arm in arms if key in arm.levels))
