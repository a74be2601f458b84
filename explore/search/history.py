"""What a sampler is shown of the trials of a study: enough to learn from, and no more than it can use at once.

Optuna's samplers go through all the trials they see for every proposal, and the genetic ones through all generations.
What they are shown here stays small however long the study is, and depends on nothing but the trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np
import optuna
from optuna.samplers import NSGAIIISampler, NSGAIISampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from explore.evaluation import COMPLETE, REFUSED
from explore.search.front import best_layers
from explore.search.samplers import GENETIC, MOST_SHOWN, make_sampler
from explore.search.trial import Trial

_NO_THROUGHPUT = 1e-9


class Seen(FrozenTrial):
    """A trial as samplers see it, shared by all mirrors: Optuna copies what its storage in memory is given.

    Samplers do not change trials that have ended. `dimensions` are the names of what was sampled, `losses` its
    objectives the other way round, `feasible` says whether the trial kept to all limits.
    """

    dimensions: tuple[str, ...]
    losses: tuple[float, float]
    feasible: bool

    def __deepcopy__(self, memo: dict[int, Any]) -> "Seen":
        return self


@dataclass
class History:
    """Makes mirrors of a study for the sampler called `sampler`; `seed` and `startup` are those of the search.

    What was found out about a trial, and about a generation of trials, is kept for the next mirror.
    """

    sampler: str
    seed: int
    startup: int
    _seen: dict[int, tuple[Trial, Seen]] = field(default_factory=dict, init=False)
    # For each generation its trials, and the parents that were selected from them and their own parents.
    _parents: list[tuple[list[Seen], list[Seen]]] = field(default_factory=list, init=False)

    def mirror(self, trials: Sequence[Trial]) -> optuna.Study:
        """Return a study in memory with the trials that tell the sampler something; notes in it are for this once."""
        seen = self._as_seen(trials)
        if self.sampler in GENETIC:
            return self._last_generation(seen)
        return in_memory(shown(seen, MOST_SHOWN.get(self.sampler, len(seen))))

    def _as_seen(self, trials: Sequence[Trial]) -> list[Seen]:
        seen = []
        for trial in trials:
            # Trials that have ended are the same objects whenever a study is read.
            known, as_seen = self._seen.get(trial.number, (None, None))
            if known is not trial or as_seen is None:
                if trial.status not in (COMPLETE, REFUSED):
                    continue
                as_seen = as_seen_by_samplers(trial)
                self._seen[trial.number] = trial, as_seen
            seen.append(as_seen)
        return seen

    def _last_generation(self, seen: Sequence[Seen]) -> optuna.Study:
        """A mirror with the last generation and the parents of the next trial.

        What it shows is what decides: parents are selected from the generation before and its parents. Optuna would
        ask back to the first generation for them, and beyond some 500 generations overflow Python's stack.
        """
        key = self._note("generation")
        populations: dict[int, list[Seen]] = {}
        for trial in seen:
            if (generation := trial.system_attrs.get(key)) is not None:
                populations.setdefault(generation, []).append(trial)
        last = max(populations, default=0)
        population = populations.get(last, [])
        coming = last + (len(population) >= self.startup)
        parents = self._parents_of(coming, populations)
        wanted = {id(trial) for trial in (*population, *parents, *_one_of_each_kind(seen))}
        return in_memory([trial for trial in seen if id(trial) in wanted], {self._note(f"parent:{coming}"): parents})

    def _parents_of(self, generation: int, populations: Mapping[int, list[Seen]]) -> list[Seen]:
        """Select parents generation by generation; again only from the first whose trials are others than before."""
        parents: list[Seen] = []
        for index in range(generation):
            population = populations.get(index, [])
            if index == len(self._parents) or self._parents[index][0] != population:
                del self._parents[index:]
                self._parents.append((population, self._select(index + 1, population, parents)))
            parents = self._parents[index][1]
        return parents

    def _select(self, generation: int, population: Sequence[Seen], parents: Sequence[Seen]) -> list[Seen]:
        """The parents of a generation, as the sampler selects them from the generation before and its parents."""
        study = in_memory([*parents, *population], {self._note(f"parent:{generation - 1}"): parents})
        # A choice of its own for each generation, the same whenever it is asked.
        chosen = {id(trial) for trial in self._genetic(generation).select_parent(study, generation)}
        return [trial for trial in (*parents, *population) if id(trial) in chosen]

    def _genetic(self, generation: int) -> NSGAIISampler | NSGAIIISampler:
        sampler = make_sampler(self.sampler, seed=mixed(self.seed, generation), startup=self.startup)
        assert isinstance(sampler, NSGAIISampler | NSGAIIISampler)
        return sampler

    def _note(self, what: str) -> str:
        """How the sampler names what it notes beside trials and studies."""
        return f"{type(self._genetic(0)).__name__}:{what}"


def shown(seen: Sequence[Seen], most: int) -> list[Seen]:
    """Return at most `most` trials in their order: the best half by non-domination, and the rest spread over time.

    One trial of each set of dimensions is among them, so that a sampler knows them all.
    """
    if most == 0 or len(seen) <= most:
        return list(seen[:most])
    chosen = set(_best(seen, most // 2))
    kinds = {id(trial) for trial in _one_of_each_kind(seen)}
    chosen |= {index for index, trial in enumerate(seen) if id(trial) in kinds}
    rest = [index for index in range(len(seen)) if index not in chosen]
    spread = np.linspace(0, len(rest) - 1, max(0, most - len(chosen))).round().astype(int)
    return [seen[index] for index in sorted(chosen.union(rest[place] for place in spread))]


def mixed(*numbers: int) -> int:
    """A seed made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def as_seen_by_samplers(trial: Trial) -> Seen:
    """Return a trial as samplers see it: speed on a log scale, and a refused one infeasible with the worst accuracy."""
    accuracy = (trial.accuracy if trial.status == COMPLETE else None) or 0.0
    speed = log(trial.throughput or _NO_THROUGHPUT)
    seen = Seen(
        number=trial.number,
        trial_id=trial.number,
        state=TrialState.COMPLETE,
        value=None,
        values=[accuracy, speed],
        datetime_start=None,
        datetime_complete=None,
        params=dict(trial.proposal.values),
        distributions=dict(trial.proposal.distributions),
        user_attrs={},
        system_attrs=dict(trial.proposal.sampler_state),
        intermediate_values={},
    )
    for name, by in trial.evaluation.constraints.items():
        seen.set_constraint(name, by)
    seen.dimensions = tuple(trial.proposal.values)
    seen.losses = -accuracy, -speed
    seen.feasible = all(by <= 0 for by in trial.evaluation.constraints.values())
    return seen


def in_memory(seen: Sequence[Seen], notes: Mapping[str, Sequence[Seen]] | None = None) -> optuna.Study:
    """Return a study in memory with these trials, numbered anew; `notes` are a sampler's own, each a list of trials."""
    storage = InMemoryStorage()
    identity = storage.create_new_study([StudyDirection.MAXIMIZE] * 2, "mirror")
    ids = {id(trial): storage.create_new_trial(identity, template_trial=trial) for trial in seen}
    for name, trials in (notes or {}).items():
        storage.set_study_system_attr(identity, name, [ids[id(trial)] for trial in trials])
    return optuna.load_study(study_name="mirror", storage=storage)


def _best(seen: Sequence[Seen], count: int) -> list[int]:
    """The places of the best feasible trials: the front, the front without it, and so on."""
    feasible = [index for index, trial in enumerate(seen) if trial.feasible]
    return [feasible[place] for place in best_layers([seen[index].losses for index in feasible], count)]


def _one_of_each_kind(seen: Sequence[Seen]) -> list[Seen]:
    """The first trial of each set of dimensions."""
    return list({trial.dimensions: trial for trial in reversed(seen)}.values())
