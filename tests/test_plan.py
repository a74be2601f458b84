"""What a search would ignore is refused before any work, and what has an effect is not.

python -m pytest tests/test_plan.py
"""

import re
from itertools import product
from pathlib import Path
from unittest import mock

import pytest
import torch
from optuna.storages import InMemoryStorage

from explore.architecture.network import Network
from explore.checks import checked_space, refuse_what_is_searched, without_options_of_others
from explore.config import compose, has_option, vary
from explore.cost.flops import count_macs
from explore.cost.measure import count_params
from explore.data.dataset import load
from explore.plan import Plan, begin, prepare, scheduler
from explore.search.prior import unbiased
from explore.search.space import parse_space, to_overrides
from explore.search.speed_aware import SpeedAware
from explore.search.storage import open_storage
from explore.search.study import create_study


@pytest.mark.parametrize(
    ("sweep", "overrides", "message"),
    [
        (
            "smoke",
            ["model.patch_size=1"],
            "model.patch_size must not be given where it is searched, got model.patch_size=1 and "
            "space.model.patch_size=choice(2, 4); to keep it fixed add '~space.model.patch_size', "
            "to search other values replace it by 'space.model.patch_size=choice(1)'",
        ),
        ("pareto", ["training.lr=1e-3"], "training.lr must not be given where it is searched, got training.lr=1e-3"),
        ("pareto", ["token_mixing.expansion=1"], "to keep it fixed add '~space.token_mixing.expansion'"),
        ("ablation", ["token_mixing=s2"], "token_mixing must not be given where it is searched, got token_mixing=s2"),
        (
            "ablation",
            ["model.depth=1", "space.model.depth=choice(1, 2)"],
            "model.depth must not be given where it is searched, got model.depth=1 and space.model.depth=choice(1, 2)",
        ),
        (
            "smoke",
            ["warm_start.published=[mixer_s16]", "model.depth=1"],
            "model.depth must not be given where it is searched",
        ),
        (
            "pareto",
            ["space.token_mixing=choice(mlp, s2)", "space.token_mixing.heads=choice(1, 2)"],
            "space.token_mixing.heads: none of token_mixing=mlp, s2 has this option",
        ),
        ("smoke", ["workers=9999"], "for each core of this machine, "),
        (
            "smoke",
            ["sampler=tpe", "search.prior=off"],
            "search.prior=off has an effect with sampler=speed_aware, got sampler=tpe; leave it out, or take",
        ),
        ("smoke", ["sampler=random", "search.fewest=3"], "search.fewest=3 has an effect with sampler=speed_aware, got"),
        ("smoke", ["study="], "study must be a name of letters, digits, dots, dashes and underscores"),
        ("smoke", ["cost.precision=8"], "cost.precision must be one of auto, 32-true, bf16-mixed, got '8'"),
        (
            "smoke",
            ["training.precision=8"],
            "got none; training.precision must be one of auto, 32-true, bf16-mi",
        ),
        ("smoke", ["space.trials=choice(1, 2)"], "space.trials cannot be a dimension: candidates differ in model, "),
        ("smoke", ["space.cost.batch_size=choice(1, 2)"], "cost is the same for all; set cost.batch_size=VALUE"),
        ("smoke", ["space.training.threads=choice(1, 2)"], "space.training.threads cannot be a dimension: it says how"),
        (
            "ablation",
            ["sampler=tpe"],
            "an ablation trains every arm to the end with the same seeds, got sampler=tpe; leave",
        ),
        ("smoke", ["ablation.seeds=5"], "with sampler=paired only, got ablation.seeds=5 and sampler=speed_aware"),
    ],
)
def test_a_value_without_effect_is_refused(sweep: str, overrides: list[str], message: str, tmp_path: Path) -> None:
    given = [f"+sweep={sweep}", "data=digits", f"outputs={tmp_path}", *overrides]
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare(compose(given), given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dimension", "key"),
    [
        ("space.token_mixing.heads=choice(1, two)", "space.token_mixing.heads"),
        ("space.model.width=choice(8, 16, wide)", "space.model.width"),
        ("+space.model.dept=range(1, 3)", "space.model.dept"),
        ("space.training.lr=choice(0.1, fast)", "space.training.lr"),
    ],
)
def test_a_value_that_cannot_be_is_found_among_all_and_its_dimension_named(dimension: str, key: str) -> None:
    """Many are looked at as one configuration."""
    base = ["+sweep=pareto", dimension]
    with pytest.raises(ValueError, match=f"^{re.escape(key)}: "):
        checked_space(compose(base), base)


def test_every_value_of_a_space_is_looked_at_in_few_configurations() -> None:
    looked_at: list[list[str]] = []

    def compose_all(overrides: list[str]) -> None:
        looked_at.append(overrides)

    config = compose(["+sweep=pareto"])
    with mock.patch("explore.checks.compose", compose_all):
        space = checked_space(config, [])
    expected = {override for _, values in space.examples() for override in to_overrides(values)}
    assert len(expected) == 29
    assert {override for overrides in looked_at for override in overrides} == expected
    assert len(looked_at) < 12
    for overrides in looked_at:
        chosen = dict(override.split("=", 1) for override in overrides)
        assert len(chosen) == len(overrides), "a value for each dimension"
        assert all(has_option(key, chosen, config) for key in chosen)


def test_a_search_without_a_name_says_which_study_its_report_is_of(tmp_path: Path) -> None:
    given = ["data=digits", "space.model.depth=choice(1, 2)", f"outputs={tmp_path}"]
    plan = prepare(compose(given), given)
    assert plan.study == plan.output.name == "sweep"
    assert plan.notes["report"] == f"python -m explore.report study=sweep outputs={tmp_path}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="here they are a GPU's")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("training.accelerator=gpu", "training.accelerator=gpu needs a GPU"),
        ("cost.device=cuda", "device must be one of auto, cpu on this machine"),
        ("cost.dispatch=graph", "cost.dispatch=graph must have a GPU"),
    ],
)
def test_a_machine_without_a_gpu_can_begin_a_search_for_those_that_have_one(
    given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_here = ["+sweep=smoke", f"outputs={tmp_path}", given]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        prepare(compose(given_here), given_here)
    monkeypatch.setattr("explore.plan.find_study", lambda url, name: None)  # nobody listens there
    elsewhere = [*given_here, "cluster=manual", "storage=postgres", "storage.url=postgresql://localhost/explore"]
    assert prepare(compose(elsewhere), elsewhere).base


@pytest.mark.parametrize("given", [["space.token_mixing=choice(mlp, s2)"], ["~space.token_mixing", "token_mixing=mlp"]])
def test_what_only_other_mixings_have_is_no_dimension_of_a_narrower_search(given: list[str]) -> None:
    before = compose(["+sweep=pareto", *given])
    space = without_options_of_others(before, given).space
    assert before.space.keys() - space.keys() == {"token_mixing.heads", "token_mixing.kernel"}
    assert space.items() <= before.space.items()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("training.epochs=0", "training.epochs must be at least 1, got 0"),
        ("limits.params=0", "limits.params must be"),
        ("data.augmentation.shift=-1", "data.augmentation.shift must be at least 0 (0 = off), got -1"),
    ],
)
def test_what_no_candidate_changes_is_refused_before_images_are_read(
    given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("explore.plan.load")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        prepare(compose(["+sweep=smoke", given]), [given, f"outputs={tmp_path}"])


@pytest.mark.parametrize(
    ("gpus", "cores", "given", "workers"),
    [
        (0, 2, [], 2),
        (0, 64, [], 4),
        (0, 4, ["training.devices=2"], 2),
        (1, 16, [], 4),  # they share it, as images are small
        (2, 16, [], 8),
        (2, 6, [], 6),  # each with a core
        (4, 2, [], 4),
        (4, 16, ["training.devices=2"], 2),
        (1, 16, ["workers=2"], 2),
    ],
)
def test_a_machine_has_as_many_workers_as_it_has_room_for(
    gpus: int, cores: int, given: list[str], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("explore.plan.cores", lambda: cores)
    given = ["+sweep=smoke", f"outputs={tmp_path}", *given]
    assert prepare(compose(given), given).workers == workers


def test_large_images_leave_no_room_on_a_gpu_for_a_second_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("explore.plan.cores", lambda: 16)
    monkeypatch.setattr("explore.plan._SMALL_IMAGES", 7)  # of digits there are eight
    given = ["+sweep=smoke", f"outputs={tmp_path}"]
    assert prepare(compose(given), given).workers == 1


def test_what_is_switched_off_does_not_decide(tmp_path: Path) -> None:
    def decides(*more: str) -> SpeedAware:
        given = ["+sweep=smoke", f"outputs={tmp_path}", *more]
        config = compose(given)
        plan = prepare(config, given)
        found = scheduler(plan, parse_space(plan.space), load(config.data))
        assert isinstance(found, SpeedAware)
        return found

    by_default = decides()
    assert (by_default.fewest, by_default.tolerance) == (20, 0.002)
    assert by_default.trend is not unbiased
    assert len(by_default.rungs) > 1
    assert decides("search.stop=off").fewest is None
    assert decides("search.prior=off").trend is unbiased
    assert decides("search.tolerance=0").tolerance == 0
    assert len(decides("stopping.rule=off").rungs) == 1


@pytest.mark.parametrize("limit", ["limits.params=2000", "limits.macs=8000"])
@pytest.mark.parametrize("sampler", ["random", "speed_aware"])
def test_what_is_beyond_the_limits_of_size_is_never_proposed(limit: str, sampler: str, tmp_path: Path) -> None:
    given = ["+sweep=smoke", f"sampler={sampler}", limit, f"outputs={tmp_path}"]
    config = compose(given)
    plan, dataset = prepare(config, given), load(config.data)
    decides = scheduler(plan, parse_space(plan.space), dataset)
    study = create_study(InMemoryStorage(), "limits", {})
    sizes = []
    for _ in range(10):
        step = decides.next(study.trials(), room=True)
        assert step
        assert study.claim(step.proposal, command="", target=99, continues=step.continues)
        network = Network(vary(plan.base, step.proposal.overrides).candidate.architecture(dataset)).deployed()
        sizes.append((count_params(network), count_macs(network, dataset.image_shape).total))
    key, _, most = limit.partition("=")
    found = [params if key.endswith("params") else macs for params, macs in sizes]
    assert max(found) <= int(most)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "speed_aware"])
def test_limits_of_size_that_nothing_keeps_to_are_refused_with_the_least_there_is(sampler: str, tmp_path: Path) -> None:
    given = ["+sweep=smoke", f"sampler={sampler}", f"outputs={tmp_path}"]
    config, found = compose(given), list[tuple[int, int]]()
    dataset = load(config.data)
    for patch, mixing in product((2, 4), ("mlp", "pooling")):
        values = [f"model.patch_size={patch}", "model.depth=1", "model.width=8", f"token_mixing={mixing}"]
        network = Network(vary(given, values).candidate.architecture(dataset)).deployed()
        found.append((count_params(network), count_macs(network, network.image_shape).total))
    fewest, (params, macs) = min(found), min(found, key=lambda sizes: sizes[1])
    for limits, got, sizes in (
        (["limits.params=10"], "limits.params must leave some configuration, got 10", f"{fewest[0]:,} parameters"),
        (["limits.macs=20"], "limits.macs must leave some configuration, got 20", f"{macs:,} multiply-adds"),
        (
            ["limits.params=10", "limits.macs=20"],
            "limits.params and limits.macs must leave some configuration, got 10 and 20",
            f"{params:,} parameters and {macs:,} multiply-adds",
        ),
    ):
        with pytest.raises(ValueError, match=rf"^{got}; the smallest looked at has {sizes}; loosen limits"):
            prepare(compose([*given, *limits]), [*given, *limits])


def test_another_sampler_than_before_is_known_for_people_to_be_told(tmp_path: Path) -> None:
    def planned(*given: str) -> Plan:
        asked = ["+sweep=smoke", f"outputs={tmp_path}", *given]
        return prepare(compose(asked), asked)

    assert planned("sampler=tpe").sampler_before is None
    begin(planned())
    assert planned().sampler_before is None
    begin(other := planned("sampler=tpe"))
    assert other.sampler_before == "speed_aware"
    assert planned("sampler=tpe").sampler_before is None
    assert planned().sampler_before == "tpe"


def test_a_value_with_an_effect_is_taken() -> None:
    for given in (
        ["model.patch_size=1", "~space.model.patch_size"],  # kept fixed
        ["model.patch_size=1", "warm_start.list=a.yaml"],  # what candidates of a list leave out
        ["training.lr=2e-3", "warm_start.published=[mixer_s16]"],  # so do published networks
    ):
        refuse_what_is_searched(compose(["+sweep=smoke", *given]), given, None)


def test_a_study_that_began_with_such_a_value_goes_on(tmp_path: Path) -> None:
    study = create_study(open_storage(f"sqlite:///{tmp_path}/s.db"), "smoke", {})
    study.note("overrides", ["model.patch_size=1"])
    config = compose(["+sweep=smoke"])
    refuse_what_is_searched(config, ["model.patch_size=1"], study)
    with pytest.raises(ValueError, match=r"got model\.patch_size=2"):
        refuse_what_is_searched(config, ["model.patch_size=2"], study)
