"""What comes first is begun first, once, in its order, however often the search is stopped; an earlier study teaches
what is true here and nothing else; what cannot be is refused with its place, before any work.

python -m pytest tests/test_warm_start.py -m slow    # a search that begins with the front of another one
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filled_studies import cost
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from test_speed_aware import RUNGS, Trainings, hypervolume, scheduler, space
from test_stopping import curve
from test_sweep import trials_of

from explore.beginning import Beginning, beginning
from explore.candidate import this_machine
from explore.cluster.isolation import start_server
from explore.command import _run
from explore.config import compose, has_option
from explore.data.dataset import Dataset, load
from explore.definition import definition
from explore.evaluation import COMPLETE, STOPPED, Evaluation
from explore.search.proposals import Proposer
from explore.search.schedule import Rungs, Scheduler
from explore.search.space import Values, parse_space
from explore.search.storage import open_storage
from explore.search.study import Proposal, Study, Trial, candidates, create_study, front
from explore.search.warm_start import First, proposed, teaching
from explore.search.worker import Stopped, Worker
from explore.sweep import main

NUMBERS = {
    "width": "choice(8, 16, 32, 64, 128)",
    "factor": "choice(0.5, 1.0, 2.0)",
    "shift": "choice(-1, 0, 2)",
    "depth": "range(1, 10, 2)",
    "steps": "int(tag(log, interval(1, 64)))",
    "lr": "tag(log, interval(1e-3, 1e-1))",
}


@given(st.fixed_dictionaries(dict.fromkeys(NUMBERS, st.floats(-1e3, 1e3) | st.integers(-1000, 1000))))
def test_numbers_move_to_the_nearest_value_of_the_space(wanted: dict[str, float]) -> None:
    ours = parse_space(NUMBERS)
    found = ours.nearest(wanted)
    grid = {"width": (8, 16, 32, 64, 128), "factor": (0.5, 1.0, 2.0), "shift": (-1, 0, 2), "depth": range(1, 10, 2)}
    grid["steps"] = range(1, 65)
    for key, allowed in grid.items():
        ratio = min(allowed) > 0 and wanted[key] > 0 and key in ("width", "factor")

        def away(value: float, key: str = key, ratio: bool = ratio) -> float:
            return abs(math.log(value / wanted[key])) if ratio else abs(value - wanted[key])

        assert found[key] in allowed
        assert away(found[key]) == pytest.approx(min(map(away, allowed)))
    assert found["lr"] == min(max(wanted["lr"], 1e-3), 1e-1)
    assert ours.nearest(found) == found


@given(st.integers(0, 2**32 - 1))
def test_what_is_in_the_space_stays_as_it_is(seed: int) -> None:
    drawn = space().draw(np.random.default_rng(seed))
    assert space().nearest(drawn) == drawn
    assert [type(value) for value in space().nearest(drawn).values()] == [type(value) for value in drawn.values()]


def test_names_stay_and_what_has_no_place_is_refused() -> None:
    ours = parse_space({"mixing": "choice(mlp, s2)", "flag": "choice(true, false)", "depth": "range(1, 4)"})
    wanted = {"mixing": "s2", "flag": False, "depth": 9}
    assert ours.nearest(wanted) == {"mixing": "s2", "flag": False, "depth": 3}
    for other, message in (
        ({"mixing": "wave"}, "mixing must be one of mlp, s2, got wave"),
        ({"flag": 1}, "flag must be one of True, False, got 1"),
        ({"depth": None}, "depth must be a number, got None"),
        ({"depth": True}, "depth must be a number, got True"),
    ):
        with pytest.raises(ValueError, match=message):
            ours.nearest({**wanted, **other})
    with pytest.raises(ValueError, match="depth must be given, got nothing"):
        ours.nearest({"mixing": "s2", "flag": True})


def queue(count: int = 3, seed: int = 99) -> list[Proposal]:
    generator = np.random.default_rng(seed)
    return [proposed(space(), space().draw(generator), f"mine, line {line}") for line in range(1, count + 1)]


def of_rungs() -> Scheduler:
    return Rungs(Proposer(space=space(), sampler="tpe", startup=4), RUNGS, 3)


def worker(study: Study, then: Scheduler, first: Sequence[Proposal], target: int, **more: Any) -> Worker:
    ours = First(first, then, RUNGS[0])
    return Worker(study, ours, Trainings(), target=target, output=Path("out"), wait=lambda: None, **more)


def begun(study: Study) -> list[str]:
    """In the order of their beginnings, without who was only measured."""
    return [trial.proposal.key for trial in study.trials() if trial.evaluation.epochs]


@pytest.mark.parametrize("then", [of_rungs, scheduler])
def test_they_are_begun_first_in_their_order_and_once(then: Any) -> None:
    study, first = create_study(InMemoryStorage(), "warm", {}), queue()
    worker(study, then(), first, 8).run()
    assert begun(study)[:3] == [one.key for one in first]
    assert [trial.proposal.origin for trial in study.trials()][:3] == ["mine, line 1", "mine, line 2", "mine, line 3"]
    assert {trial.proposal.origin for trial in study.trials()[3:]} == {""}
    assert len(candidates(study.trials())) == 8
    assert len({trial.proposal.key for trial in study.trials()}) == len(study.trials())


@pytest.mark.parametrize("then", [of_rungs, scheduler])
def test_a_search_that_is_stopped_anywhere_goes_on_as_if_it_had_not_been(then: Any) -> None:
    one, other, first = *(create_study(InMemoryStorage(), "warm", {}) for _ in range(2)), queue()
    worker(one, then(), first, 6).run()

    class Once:
        """Leaves after one trial was taken."""

        count = 0

        def __call__(self) -> bool:
            self.count += 1
            return self.count > 1

    for _ in range(100):
        try:
            worker(other, then(), first, 6, stop=Once()).run()
            break
        except Stopped:
            continue
    assert begun(other) == begun(one)


def test_no_more_are_begun_than_there_is_room_for() -> None:
    study, first = create_study(InMemoryStorage(), "warm", {}), queue(6)
    worker(study, of_rungs(), first, 4).run()
    assert begun(study) == [one.key for one in first[:4]]


def test_others_that_are_asked_for_later_come_next() -> None:
    study = create_study(InMemoryStorage(), "warm", {})
    worker(study, scheduler(), [], 4).run()
    measured = next(trial for trial in study.trials() if trial.status == STOPPED and not trial.evaluation.epochs)
    before, again = begun(study), proposed(space(), measured.proposal.values, "")
    first = [*queue(1), again]
    ours = First(first, scheduler(), RUNGS[0])
    step = ours.next(study.trials(), room=True)
    assert step
    assert (step.proposal, step.until) == (first[0], RUNGS[0])
    worker(study, scheduler(), first, 6).run()
    assert set(begun(study)) - set(before) == {one.key for one in first}
    assert len({trial.proposal.key for trial in study.trials()}) == len(study.trials())


@cache
def lessons() -> tuple[Trial, ...]:
    study = create_study(InMemoryStorage(), "earlier", {})
    Worker(study, scheduler(seed=5), Trainings(), target=10, output=Path("out"), wait=lambda: None).run()
    trials = [trial for trial in study.trials() if trial.throughput]
    return tuple(teaching(trial, trial.proposal, RUNGS[-1]) for trial in trials)


def after(target: int, **more: Any) -> Study:
    study = create_study(InMemoryStorage(), "warm", {})
    Worker(study, scheduler(**more), Trainings(), target=target, output=Path("out"), wait=lambda: None).run()
    return study


def test_what_an_earlier_study_found_is_known_from_the_first_proposal_on() -> None:
    taught, cold = after(4, earlier=lessons()), after(4)
    assert hypervolume(taught.trials()) > hypervolume(cold.trials())
    assert len(taught.trials()) < len(cold.trials()), "without lessons eight are measured before any is trained"
    assert all(trial.number < 0 for trial in lessons())
    assert all(trial.number >= 0 for trial in taught.trials()), "the trials that taught it are not its own"


def test_of_speeds_that_were_measured_elsewhere_only_the_accuracies_count() -> None:
    def at(trial: Trial, speed: float) -> Trial:
        return replace(trial, evaluation=replace(trial.evaluation, cost=cost(speed * (trial.throughput or 0))))

    def accuracies(factor: float) -> list[str]:
        return begun(after(6, elsewhere=[at(trial, factor) for trial in lessons()]))

    assert accuracies(1.0) == accuracies(1000.0)
    assert accuracies(1.0) != begun(after(6))


# What follows begins real searches, up to their first step.


@cache
def digits() -> Dataset:
    return load(compose(["+sweep=smoke"]).data)


def began(*overrides: str) -> Beginning:
    given = ["+sweep=smoke", "study=new", *overrides]
    config = compose(given)
    ours = parse_space(config.space, lambda key, values: has_option(key, values, config))
    return beginning(config, [one for one in given if not one.startswith("study=")], ours, digits())


def values(found: Beginning) -> list[Values]:
    return [dict(one.values) for one in found.first]


WHOLE = {"token_mixing": "mlp", "model.patch_size": 4, "model.depth": 1, "model.width": 16, "training.lr": 2e-3}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "- [model.patch_size=2, token_mixing=pooling]\n- [model.depth=2, training.lr=5e-3]\n"),
        ("a.yml", "- model.patch_size: 2\n  token_mixing: pooling\n- {model.depth: 2, training.lr: 5e-3}\n"),
        (
            "a.json",
            json.dumps([["model.patch_size=2", "token_mixing=pooling"], ["model.depth=2", "training.lr=0.005"]]),
        ),
        (
            "a.csv",
            "trial,model.patch_size,token_mixing,model.depth,training.lr,reason\n"
            '3,2,pooling,,,"two\nlines"\n4,,,2,5e-03,\n',
        ),
    ],
)
def test_a_file_of_candidates_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = began(f"warm_start.list={tmp_path / name}", "model.depth=1", "model.width=16", "training.lr=2e-3")
    assert values(found) == [
        {**WHOLE, "model.patch_size": 2, "token_mixing": "pooling"},
        {**WHOLE, "model.depth": 2, "training.lr": 5e-3},
    ]
    assert [one.origin.partition(", line")[0] for one in found.first] == [name, name]
    assert found.words[0].startswith(f"candidates that come first, 2: {name}, line ")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no.yaml", None, "warm_start.list must be a file that can be read, got .*no.yaml: No such file"),
        ("a.yaml", "- [model.depth", "warm_start.list must be YAML, JSON or CSV, got .*a.yaml: while parsing"),
        ("a.yaml", "model.depth: 2\n", "must be a list of candidates such as - .model.depth=2, .*, got dict in"),
        ("a.yaml", "", "must be a list of candidates .*, got NoneType in"),
        ("a.yaml", "[]", "must hold a candidate, got none in"),
        ("a.yaml", "- []\n- [[depth]]\n", "must be a list of candidates .*, got .*depth.* in .*, line 2"),
        ("a.csv", "trial,status\n1,complete\n", "must have columns that are named like options, .* with trial, status"),
        ("a.yaml", "- [model.dept=2]", "line 1 .candidate 1.: unknown key model.dept; .*did you mean model.depth?"),
        ("a.yaml", "- [model.depth=two]", r"line 1 .candidate 1.: model.depth: "),
        (
            "a.yaml",
            "- [model.depth=1]\n- [model.depth=7]",
            r"line 2 .candidate 2.: model.depth must be in the space, range\(1, 3\), got 7; the nearest is 2, or widen",
        ),
        ("a.yaml", "- [token_mixing=s2]", "line 1 .candidate 1.: token_mixing must be one of mlp, pooling, got s2"),
        ("a.yaml", "- [model.norm=rms]", "model.norm must be a dimension of the space, which has .*got model.norm=rms"),
        ("a.yaml", "- [trials=3]", "trials must be a dimension of the space"),
        ("a.csv", "model.width\n8\n12\n", r"a.csv:\n  line 3 .candidate 2.: model.width must be in the space"),
        ("a.csv", "model.width\n" + 9 * "12\n", "line 6 .*\n  and 4 more"),
    ],
)
def test_a_candidate_that_cannot_be_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        began(f"warm_start.list={tmp_path / name}")


def test_what_is_impossible_on_these_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- [model.patch_size=3]")
    with pytest.raises(ValueError, match=r"line 1 \(candidate 1\): patch_size must divide image_size, got 3 and 8"):
        began(f"warm_start.list={tmp_path / 'a.yaml'}", "space.model.patch_size=choice(2, 3)")


def test_a_setting_that_all_share_may_be_said_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- [model.norm=layer, model.depth=2]")
    assert values(began(f"warm_start.list={tmp_path / 'a.yaml'}"))[0]["model.depth"] == 2


def test_published_networks_are_brought_into_the_space() -> None:
    found = began("warm_start.published=[mixer_s16, mixer_b32]")
    assert values(found) == [{**WHOLE, "model.depth": 2}]
    assert found.first[0].origin == "published, mixer_s16"
    assert "of 2 candidates 1 are the same in this space as one before them" in found.words
    everyone = began("warm_start.published=[all]")
    assert everyone.first[0].origin == "published, mixer_s32"
    assert any("left out: vit_ti16, " in words and "got attention" in words for words in everyone.words)
    wider = began(
        "warm_start.published=[s2mlp_deep]", "space.token_mixing=choice(s2)", "model.stem.layers=[projection,norm]"
    )
    assert values(wider)[0]["token_mixing"] == "s2"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["warm_start.published=[resnet50]"], "warm_start.published must be one of all, asmlp_b, .*, got 'resnet50'"),
        (
            ["warm_start.published=[vit_s16, mixer_s16, wavemlp_t]"],
            "must be networks of the space; leave out or widen the space for\n  vit_s16: token_mixing must be one of "
            "mlp, pooling, got attention\n  wavemlp_t: token_mixing must be one of mlp, pooling, got wave",
        ),
        (
            ["warm_start.published=[vit_s16]", "space.token_mixing=choice(mlp, attention)"],
            "vit_s16: model.pooling is class_token, and mean in the whole space",
        ),
        (["warm_start.published=[poolformer_s12]"], "poolformer_s12: .*"),
    ],
)
def test_published_networks_that_are_not_in_the_space_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        began(*overrides)


def earlier(folder: Path, *overrides: str, images: str | None = None, side: int = 8) -> None:
    """A study `old` of four candidates, all on its front, the first ones fast."""
    given = ["+sweep=smoke", *overrides]
    config = compose(given)
    ours = parse_space(config.space, lambda key, values: has_option(key, values, config))
    known = {**definition(config), "images": images or digits().fingerprint}
    (folder / "old").mkdir(parents=True)
    study = create_study(open_storage(f"sqlite:///{folder}/old/study.db"), "old", json.loads(json.dumps(known)))
    study.note("data", {"image_size": side})
    device, driver, torch_version = this_machine(config.candidate)
    for number in range(4):
        chosen = {**WHOLE, "model.depth": 1 + number // 2, "model.width": (8, 16)[number % 2], "training.lr": 4e-3}
        chosen = {key: value for key, value in chosen.items() if key in ours.dimensions}
        proposal = Proposal(values=chosen, distributions=ours.distributions(chosen), overrides=[], sampler_state={})
        trial = study.claim(proposal, command="", target=9)
        assert trial
        measured = cost(1e4 / (1 + number), device)
        speed = replace(measured.throughput, driver=driver, torch_version=torch_version)  # type: ignore[type-var]
        known_cost = replace(measured, throughput=speed)
        ended = Evaluation(status=COMPLETE, cost=known_cost, curve=curve(*(0.5 + 0.1 * number, 0.6 + 0.1 * number)))
        assert study.finish(trial, ended)


def learned(folder: Path, *overrides: str) -> tuple[int, int, int]:
    found = began(f"outputs={folder}", "warm_start.study=old", *overrides)
    return len(found.first), len(found.earlier), len(found.elsewhere)


def test_an_earlier_study_comes_first_and_teaches_what_is_true_here(tmp_path: Path) -> None:
    earlier(tmp_path)
    found = began(f"outputs={tmp_path}", "warm_start.study=old")
    assert [one.values["model.depth"] for one in found.first] == [1, 1, 2, 2]
    assert found.first[0].origin == "old, trial 0"
    assert [trial.number for trial in found.earlier] == [-1, -2, -3, -4]
    assert [trial.accuracy for trial in found.earlier] == [pytest.approx(0.6 + 0.1 * number) for number in range(4)]
    assert "4 trials of old teach" in found.words
    wider = ("space.model.width=choice(8, 16, 32)", "space.model.depth=range(1, 9)", "limits.params=100000")
    assert learned(tmp_path, *wider) == (4, 4, 0)
    assert learned(tmp_path, "space.model.depth=range(1, 2)") == (2, 2, 0)
    assert learned(tmp_path, "~space.model.depth", "model.depth=2") == (2, 2, 0)
    assert learned(tmp_path, "space.model.norm=choice(layer, rms)") == (4, 4, 0)
    assert learned(tmp_path, "sampler=tpe") == (4, 0, 0)
    assert learned(tmp_path, "cost.batch_size=7") == (4, 0, 4)
    for different in ("model.norm=rms", "training.epochs=3", "data.augmentation.shift=0", "training.batch_size=32"):
        assert learned(tmp_path, different) == (4, 0, 0)


def test_other_images_teach_nothing_and_larger_ones_have_larger_patches(tmp_path: Path) -> None:
    earlier(tmp_path, images="other", side=16)
    found = began(f"outputs={tmp_path}", "warm_start.study=old")
    assert not found.earlier
    assert {one.values["model.patch_size"] for one in found.first} == {2}
    assert "it teaches nothing: old has other images, or was trained in another way" in found.words


def test_with_a_constant_rate_shorter_trainings_teach_too(tmp_path: Path) -> None:
    earlier(tmp_path, "training.schedule=constant")
    found = began(f"outputs={tmp_path}", "warm_start.study=old", "training.schedule=constant", "training.epochs=1")
    assert [trial.evaluation.epochs for trial in found.earlier] == [1, 1, 1, 1]


def test_a_study_that_cannot_help_is_refused(tmp_path: Path) -> None:
    earlier(tmp_path)
    storage = f"sqlite:///{tmp_path}/old/study.db"
    for overrides, message in (
        (["warm_start.study=odl"], f"must be a study in {tmp_path}, got 'odl'; there are: old"),
        (["warm_start.study=x", f"storage.url={storage}"], f"must be a study in {storage}, got 'x'; there are: old"),
        (["warm_start.study=x", "warm_start.url=sqlite:///no.db"], "in sqlite:///no.db, got 'x'; there are: none"),
        (["warm_start.study=x", "warm_start.url=nowhere"], "warm_start.url must be an SQLAlchemy URL"),
        (["warm_start.study=new"], "must be another study, got new, which goes on by itself"),
        (
            ["warm_start.study=old", "space.token_mixing=choice(s2)"],
            "must have complete trials that lie in this space, got none in old; .*\n  token_mixing must be one of s2",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            began(f"outputs={tmp_path}", *overrides)
    assert not Path("no.db").exists()
    assert learned(tmp_path, f"warm_start.url={storage}") == (4, 4, 0)
    with pytest.raises(ValueError, match="warm_start has options of its own, published, study, url, list; write"):
        began("warm_start=old")


def test_a_users_list_comes_before_the_study_and_that_before_the_published(tmp_path: Path) -> None:
    earlier(tmp_path)
    (tmp_path / "mine.csv").write_text("model.depth,model.width,training.lr\n2,16,0.004\n2,16,0.003\n")
    mine = f"warm_start.list={tmp_path / 'mine.csv'}"
    found = began(f"outputs={tmp_path}", "warm_start.study=old", mine, "warm_start.published=[mixer_s16]", "trials=5")
    origins = [one.origin for one in found.first]
    assert origins == [
        "mine.csv, line 2",
        "mine.csv, line 3",
        *(f"old, trial {n}" for n in range(3)),
        "published, mixer_s16",
    ]
    assert "the last 1 of them find no room among trials=5" in found.words


@pytest.mark.slow
def test_a_search_begins_with_the_front_of_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study, a second one in a wider space that is interrupted and goes on, and a third on other images."""
    start_server()
    shared = ["+sweep=smoke", "references=[]", f"outputs={tmp_path}", "training.epochs=3", "search.startup=2"]
    assert _run(main, [*shared, "study=old", "workers=2", "trials=6"]) == 0
    old = front(trials_of(tmp_path, "old"))
    asked = ["warm_start.study=old", "warm_start.published=[mixer_s16]", "space.model.width=choice(8, 16, 32)"]
    for workers, trials in ((1, 1), (2, len(old) + 3)):
        assert _run(main, [*shared, "study=new", *asked, f"workers={workers}", f"trials={trials}"]) == 0
        assert "trials of old teach" in capsys.readouterr().err
    new = trials_of(tmp_path, "new")
    assert len(candidates(new)) == len(old) + 3
    assert len({trial.proposal.key for trial in new}) == len(new)
    assert [trial.proposal.key for trial in new][: len(old)] == [trial.proposal.key for trial in old]
    assert [trial.proposal.origin for trial in new][: len(old)] == [f"old, trial {trial.number}" for trial in old]
    assert {one.number for one in front(new)} <= {one.number for one in new}
    again, before = new[0].evaluation.curve[0], old[0].evaluation.curve[0]
    assert again.val_accuracy == before.val_accuracy, "what taught was no other training"
    rows = pd.read_csv(tmp_path / "new" / "trials.csv")
    assert rows.origin[len(old)] == "published, mixer_s16"
    assert "published, mixer_s16" in (tmp_path / "new" / "report.html").read_text()
    listed = [*shared, "study=listed", "data=mnist", "space.model.patch_size=choice(7, 14)", "training.epochs=1"]
    file = tmp_path / "old" / "front.csv"
    assert _run(main, [*listed, f"warm_start.list={file}", "trials=1"]) == 2
    assert "line 2 (candidate 1): model.patch_size must be in the space" in capsys.readouterr().err
    assert not (tmp_path / "listed").exists()
    assert _run(main, [*listed, "warm_start.study=old", "trials=1", "workers=1"]) == 0
    assert "it teaches nothing: old has other images" in capsys.readouterr().err
    (other,) = trials_of(tmp_path, "listed")
    assert other.proposal.values["model.patch_size"] == 3.5 * old[0].proposal.values["model.patch_size"]
