"""Proposals of every sampler lie in the space, are possible and new until nothing is left, and depend on nothing but
the seed and the trials: not on what the same process proposed before, nor on the order in which trials ended."""

import json
import random
from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import optuna
import pytest
from filled_studies import cost

from explore.evaluation import COMPLETE, FAILED, REFUSED, RUNNING, Epoch, Evaluation
from explore.search import proposals
from explore.search.history import History
from explore.search.proposals import Proposer
from explore.search.samplers import SAMPLERS, make_sampler
from explore.search.space import Space, parse_space
from explore.search.trial import Proposal, Trial

SWEEPS = {"mixing": "choice(mlp, attention)", "mixing.heads": "choice(1, 2, 4)", "depth": "range(1, 4)"}
CONFIGURATIONS = 3 + 3 * 3
QUICK = sorted(set(SAMPLERS) - {"gp"})
GENERATION = "NSGAIISampler:generation"


def applies(key: str, values: Mapping[str, Any]) -> bool:
    return key != "mixing.heads" or values["mixing"] == "attention"


def space(**more: str) -> Space:
    return parse_space(SWEEPS | more, applies)


def trial(number: int, proposal: Proposal, status: str = COMPLETE) -> Trial:
    depth = proposal.values.get("depth", 1)
    epoch = Epoch(epoch=0, train_loss=1, val_loss=1, val_accuracy=depth / 20 + number % 7 / 100, lr=0.1, seconds=1)
    evaluation = Evaluation(
        status=status,
        cost=cost(1000 / depth),
        curve=(epoch,) if status == COMPLETE else (),
        constraints={"params": 0.5 if status == REFUSED else -0.5},
    )
    return Trial(
        number=number,
        row=number,
        trial_id=number,
        proposal=proposal,
        command="",
        folder="",
        evaluation=evaluation,
        started=None,
        ended=None,
        continues=None,
        owner={},
        heartbeat=0,
    )


def search(proposer: Proposer, count: int, trials: Sequence[Trial] = ()) -> list[Trial]:
    found = list(trials)
    while len(found) < count and (proposal := proposer.propose(found)) is not None:
        found.append(trial(len(found), proposal, REFUSED if len(found) % 4 == 3 else COMPLETE))
    return found


def keys(trials: Sequence[Trial]) -> list[str]:
    return [trial.proposal.key for trial in trials]


@pytest.mark.parametrize("name", QUICK)
def test_a_finite_space_is_proposed_whole_once_and_then_nothing(name: str) -> None:
    found = search(Proposer(space=space(), sampler=name, startup=4), CONFIGURATIONS + 5)
    assert len(set(keys(found))) == len(found) == CONFIGURATIONS
    assert set(keys(found)) == {json.dumps(dict(sorted(values.items()))) for values in space().grid()}
    assert all(list(t.proposal.distributions) == list(t.proposal.values) for t in found)


@pytest.mark.parametrize("name", QUICK)
def test_the_impossible_is_never_proposed_and_the_last_possible_is_found(name: str) -> None:
    def check(overrides: Sequence[str]) -> None:
        if "mixing=attention" in overrides and "depth=2" not in overrides:
            raise ValueError(f"attention needs depth=2, got {overrides}")

    proposer = Proposer(space=space(), sampler=name, startup=4, check=check)
    found = search(proposer, CONFIGURATIONS)
    assert len(found) == 3 + 3
    assert all("mixing=mlp" in t.proposal.overrides or "depth=2" in t.proposal.overrides for t in found)
    assert proposer.refusal.startswith("attention needs depth=2")


def test_a_rule_is_asked_once_for_each_configuration() -> None:
    asked: list[tuple[str, ...]] = []

    def check(overrides: Sequence[str]) -> None:
        asked.append(tuple(sorted(overrides)))
        raise ValueError("nothing is possible")

    proposer = Proposer(space=space(), check=check)
    assert proposer.propose([]) is None
    assert proposer.propose([]) is None
    assert len(asked) == len(set(asked)) == CONFIGURATIONS


def test_an_error_that_is_no_rule_goes_on() -> None:
    def check(overrides: Sequence[str]) -> None:
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        Proposer(space=space(), check=check).propose([])


@pytest.mark.parametrize("name", QUICK)
def test_the_same_trials_give_the_same_proposal(name: str) -> None:
    sweeps = space() if name == "grid" else space(lr="tag(log, interval(1e-4, 1e-1))")

    def make() -> Proposer:
        return Proposer(space=sweeps, sampler=name, seed=3, startup=4)

    lasting, trials = make(), []
    for number in range(11):
        proposal, anew = lasting.propose(trials), make().propose(trials)
        assert proposal == anew
        assert proposal is not None
        json.dumps(dict(proposal.sampler_state))
        trials.append(trial(number, proposal))


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_the_order_in_which_trials_ended_does_not_matter(name: str) -> None:
    def make() -> Proposer:
        return Proposer(space=space(lr="interval(0, 1)"), sampler=name, startup=4)

    trials = search(make(), 10)
    lasting = make()
    for late in (2, 5, 0):
        still = trial(late, trials[late].proposal, RUNNING)
        lasting.propose([*trials[:late], still, *trials[late + 1 :]])
    assert lasting.propose(trials) == make().propose(trials)


@pytest.mark.parametrize("name", ["random", "nsga2", "tpe"])
def test_another_seed_searches_elsewhere(name: str) -> None:
    one, two = (search(Proposer(space=space(lr="interval(0, 1)"), sampler=name, seed=s), 4) for s in (1, 2))
    assert not set(keys(one)) & set(keys(two))


def test_generations_survive_a_restart() -> None:
    sweeps = space(lr="interval(0, 1)")
    whole = search(Proposer(space=sweeps, sampler="nsga2", startup=4), 12)
    first = search(Proposer(space=sweeps, sampler="nsga2", startup=4), 6)
    resumed = search(Proposer(space=sweeps, sampler="nsga2", startup=4), 12, first)
    assert keys(resumed) == keys(whole)
    generations = [t.proposal.sampler_state[GENERATION] for t in whole]
    assert generations == sorted(generations)
    assert generations[-1] >= 2


def test_the_gaussian_process_stops_asking_when_it_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    ask = optuna.Study.ask

    def counted(study: optuna.Study) -> optuna.Trial:
        nonlocal asked
        asked += 1
        return ask(study)

    monkeypatch.setattr(optuna.Study, "ask", counted)
    sweeps = parse_space({"depth": "range(1, 4)"})
    found = search(Proposer(space=sweeps, sampler="gp", startup=2), 5)
    assert sorted(t.proposal.values["depth"] for t in found) == [1, 2, 3]
    assert asked <= 4 * (3 + proposals._REPEATS)


def test_trials_reach_the_sampler_with_their_constraints() -> None:
    drawn = [t.proposal for t in search(Proposer(space=space(), sampler="random"), 4)]
    statuses = (COMPLETE, REFUSED, FAILED, RUNNING)
    seen = [trial(n, p, s) for n, (p, s) in enumerate(zip(drawn, statuses, strict=True))]
    mirror = History("tpe", seed=0, startup=4).mirror(seen)
    complete, refused = mirror.trials
    assert complete.values == pytest.approx([drawn[0].values["depth"] / 20, log(1000 / drawn[0].values["depth"])])
    assert refused.values[0] == 0
    assert (complete.constraints, refused.constraints) == ({"params": -0.5}, {"params": 0.5})
    assert refused.params == drawn[1].values


def test_a_refused_region_is_left_by_the_search() -> None:
    """Depth beyond 8 is refused; a sampler that hears of it proposes less of it than chance does."""
    sweeps = parse_space({"depth": "range(1, 33)", "lr": "interval(0, 1)"})

    def refused(name: str) -> int:
        proposer, trials = Proposer(space=sweeps, sampler=name, seed=1, startup=8), []
        for number in range(48):
            proposal = proposer.propose(trials)
            assert proposal is not None
            trials.append(trial(number, proposal, REFUSED if proposal.values["depth"] > 8 else COMPLETE))
        return sum(t.status == REFUSED for t in trials[16:])

    assert refused("nsga2") < 0.75 * refused("random")


def test_a_large_space_with_few_possible_configurations() -> None:
    def check(overrides: Sequence[str]) -> None:
        if not overrides[0].endswith("00"):
            raise ValueError("only whole hundreds")

    sweeps = parse_space({"width": "range(1, 100001)"})
    found = search(Proposer(space=sweeps, sampler="nsga2", startup=4, check=check), 5)
    assert len(set(keys(found))) == 5


def test_the_key_does_not_depend_on_the_order_of_values() -> None:
    values = {"b": 1, "a": "x", "c": 0.5}
    items = list(values.items())
    random.Random(0).shuffle(items)
    one, two = (Proposal(values=chosen, distributions={}, overrides=[]) for chosen in (values, dict(items)))
    assert one.key == two.key


def test_an_unknown_sampler_is_refused_with_those_there_are() -> None:
    message = "sampler must be one of gp, grid, nsga2, nsga3, random, tpe, got 'annealing'"
    with pytest.raises(ValueError, match=message):
        Proposer(space=space(), sampler="annealing")
    with pytest.raises(ValueError, match=message):
        make_sampler("annealing", seed=0, startup=1)
