"""What samplers are shown depends on the trials alone, not on what was shown before: kept or made anew, it is the same.

Of a long history they see few trials, the best and some of all times; the parents of a generation are those that Optuna
selects from all generations, and hundreds of generations are no trouble.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
import pytest
from filled_studies import fabricated
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from explore.evaluation import REFUSED, RUNNING, Evaluation
from explore.search.front import non_dominated
from explore.search.history import History, as_seen_by_samplers, in_memory, mixed, shown
from explore.search.samplers import make_sampler
from explore.search.trial import Proposal, Trial

SEED, POPULATION = 3, 4
KEYS = {"nsga2": "NSGAIISampler", "nsga3": "NSGAIIISampler"}


def made_up(count: int, seed: int = 0, *, size: int = POPULATION, refused: float = 0.1) -> list[Trial]:
    """Trials of generations of `size`; every third has a dimension more than the others."""
    chance = random.Random(seed)
    trials = fabricated([(chance.random(), chance.uniform(1, 1000)) for _ in range(count)])
    for number, trial in enumerate(trials):
        values = {"x": chance.random()} | ({"y": chance.random()} if number % 3 == 2 else {})
        proposal = Proposal(
            values=values,
            distributions={key: FloatDistribution(0, 1) for key in values},
            overrides=[],
            sampler_state={f"{name}:generation": number // size for name in KEYS.values()},
        )
        ended = trial.evaluation
        if chance.random() < refused:
            ended = replace(ended, status=REFUSED, constraints={"params": chance.random()})
        trials[number] = replace(trial, proposal=proposal, evaluation=ended)
    return trials


def content(study: optuna.Study) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """All that a sampler could find in a mirror."""
    rows = [{"params": t.params, "values": t.values, "notes": t.system_attrs} for t in study.trials]
    return rows, study._storage.get_study_system_attrs(study._study_id)


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3"])
@given(order=st.permutations(range(14)), seed=st.integers(0, 9))
def test_a_history_that_was_kept_shows_what_one_made_anew_shows(sampler: str, order: Sequence[int], seed: int) -> None:
    trials = made_up(14, seed)
    running = [replace(trial, evaluation=Evaluation(status=RUNNING)) for trial in trials]
    kept = History(sampler, SEED, POPULATION)
    for ended in range(2, 15, 4):
        late = set(order[ended:])
        now = [running[n] if n in late else trials[n] for n in range(14)]
        assert content(kept.mirror(now)) == content(History(sampler, SEED, POPULATION).mirror(now))


@pytest.mark.parametrize("sampler", KEYS)
@pytest.mark.parametrize("count", [3, 4, 9, 16, 38])
def test_parents_are_those_of_a_study_with_all_generations(sampler: str, count: int) -> None:
    trials = made_up(count, refused=0)
    everyone = in_memory([as_seen_by_samplers(trial) for trial in trials])
    coming = count // POPULATION
    for generation in range(1, coming + 1):
        genetic = make_sampler(sampler, seed=mixed(SEED, generation), startup=POPULATION)
        expected = genetic.get_parent_population(everyone, generation)  # type: ignore[union-attr]
    mirror = History(sampler, SEED, POPULATION).mirror(trials)
    noted = content(mirror)[1][f"{KEYS[sampler]}:parent:{coming}"]
    found = [trial.params["x"] for trial in mirror.trials if trial._trial_id in noted]
    assert sorted(found) == sorted(trial.params["x"] for trial in expected) if coming else not noted
    assert len(mirror.trials) <= 2 * POPULATION + 2


def test_hundreds_of_generations_are_no_trouble() -> None:
    trials = made_up(1200, size=2)
    mirror = History("nsga2", SEED, 2).mirror(trials)
    mirror.sampler = make_sampler("nsga2", seed=1, startup=2)  # type: ignore[assignment]
    mirror.ask({"x": FloatDistribution(0, 1)})
    assert mirror.trials[-1].system_attrs[f"{KEYS['nsga2']}:generation"] == 600


@given(st.integers(0, 60), st.integers(0, 30), st.integers(0, 99))
def test_the_best_and_some_of_all_times_are_shown(count: int, most: int, seed: int) -> None:
    seen = [as_seen_by_samplers(trial) for trial in made_up(count, seed)]
    few = shown(seen, most)
    kinds = {trial.dimensions for trial in seen}
    assert len(few) <= max(most, 0 if most == 0 else most // 2 + len(kinds))
    assert [id(trial) for trial in seen if trial in few] == [id(trial) for trial in few]
    if count <= most:
        assert few == seen
    elif most:
        assert {trial.dimensions for trial in few} == kinds
        feasible = [trial for trial in seen if trial.feasible]
        front = non_dominated([[-value for value in trial.values] for trial in feasible]) if feasible else []
        best = [trial for trial, on_front in zip(feasible, front, strict=True) if on_front]
        assert sum(trial in few for trial in best) >= min(len(best), most // 2)


def test_a_sampler_that_learns_nothing_is_shown_nothing() -> None:
    assert History("random", SEED, POPULATION).mirror(made_up(5)).trials == []
