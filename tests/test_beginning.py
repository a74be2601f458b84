"""A search begins with the candidates and lessons that were asked for: an earlier study teaches what is true here and
nothing else, networks find their place in the space, and what cannot be is refused with its place and reason.

python -m pytest tests/test_beginning.py -m slow    # a search that begins with the front of another one
"""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from filled_studies import cost
from small_sweeps import study_of, trials_of
from test_stopping import curve

from explore.beginning import Beginning, beginning
from explore.cluster.isolation import start_server
from explore.command import _run
from explore.config import compose, has_option
from explore.data.dataset import Dataset, load
from explore.definition import definition
from explore.evaluation import COMPLETE, Evaluation
from explore.search.listed import read_entries
from explore.search.rivals import results
from explore.search.space import Values, parse_space
from explore.search.storage import open_storage
from explore.search.study import create_study
from explore.search.trial import Proposal, candidates, front
from explore.speeds import this_machine
from explore.sweep import main


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
        ("a.json", '[["model.patch_size=2", "token_mixing=pooling"],\n["model.depth=2", "training.lr=5e-3"]]'),
        (
            "a.csv",
            "trial,model.patch_size,token_mixing,model.depth,training.lr,reason\n"
            '3,2,pooling,,,"two\nlines"\n4,,,2,5e-3,\n',
        ),
    ],
)
def test_a_file_of_candidates_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    first, second = read_entries(str(tmp_path / name), lambda key: "." in key or key == "token_mixing")
    assert first.overrides == ["model.patch_size=2", "token_mixing=pooling"]
    assert second.overrides == ["model.depth=2", "training.lr=5e-3"]
    assert second.place == {"a.yaml": "line 2", "a.yml": "line 3", "a.json": "line 2", "a.csv": "line 4"}[name]


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
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_entries(str(tmp_path / name), lambda key: "." in key)


def test_candidates_are_in_the_space_exactly_and_near_the_default_in_what_they_leave_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("token_mixing,model.patch_size,model.norm,reason\npooling,2,layer,none\n")
    found = began(f"warm_start.list={tmp_path / 'a.csv'}")
    assert values(found) == [{**WHOLE, "model.patch_size": 2, "token_mixing": "pooling", "model.depth": 2}]
    assert found.words == ("candidates that come first, 1: a.csv, line 2",)


def test_candidates_that_cannot_be_are_refused_all_at_once_with_their_place(tmp_path: Path) -> None:
    bad = ["model.dept=2", "model.depth=7", "token_mixing=s2", "model.norm=rms", "trials=3", "model.width=two"]
    (tmp_path / "a.yaml").write_text("".join(f"- [{one}]\n" for one in ("model.depth=1", *bad)))
    with pytest.raises(ValueError, match="must hold candidates of this search, got") as refusal:
        began(f"warm_start.list={tmp_path / 'a.yaml'}")
    lines = str(refusal.value).splitlines()[1:]
    for line, message in zip(
        lines,
        (
            r"line 2 \(candidate 2\): unknown key model.dept; .*did you mean model.depth?",
            r"line 3 \(candidate 3\): model.depth must be in the space, range\(1, 3\), got 7; the nearest is 2",
            r"line 4 .*token_mixing must be one of mlp, pooling, got s2",
            "line 5 .*model.norm must be a dimension of the space, which has .*got model.norm=rms; leave it out",
            "line 6 .*trials must be a dimension of the space",
            "and 1 more",
        ),
        strict=True,
    ):
        assert re.search(message, line)


@pytest.mark.slow
def test_what_is_impossible_on_these_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- [model.patch_size=3]")
    with pytest.raises(ValueError, match=r"line 1 \(candidate 1\): patch_size must divide image_size, got 3 and 8"):
        began(f"warm_start.list={tmp_path / 'a.yaml'}", "space.model.patch_size=choice(2, 3)")


def test_published_networks_are_brought_into_the_space() -> None:
    found = began("warm_start.published=[mixer_s16, mixer_b32]")
    assert values(found) == [{**WHOLE, "model.depth": 2}]
    assert found.first[0].origin == "published, mixer_s16"
    assert "of 2 candidates 1 is the same in this space as one before it" in found.words
    everyone = began("warm_start.published=[all]")
    assert everyone.first[0].origin == "published, mixer_s32"
    assert any("left out: vit_ti16, " in words and "got attention" in words for words in everyone.words)
    wider = began("warm_start.published=[s2mlp_deep, vit_s16]", "space.token_mixing=choice(s2, attention)")
    assert [one["token_mixing"] for one in values(wider)] == ["s2", "attention"]


def test_published_networks_that_are_not_in_the_space_are_refused() -> None:
    with pytest.raises(ValueError, match=r"warm_start.published must be one of all, asmlp_b, .*, got 'resnet50'"):
        began("warm_start.published=[resnet50]")
    with pytest.raises(ValueError, match="must be networks of the space; leave out or widen the space for") as refusal:
        began("warm_start.published=[vit_s16, mixer_s16, poolformer_s12]")
    assert str(refusal.value).splitlines()[1:] == [
        "  vit_s16: token_mixing must be one of mlp, pooling, got attention",
        "  poolformer_s12: model.stages is [{'depth': 2, 'width': 64}, {'depth': 2,..., and [] in the whole space",
    ]


def earlier(
    folder: Path, *overrides: str, images: str | None = None, side: int = 8, reference_ms: float | None = None
) -> None:
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
        proposal = Proposal(values=chosen, distributions=ours.distributions(chosen), overrides=[])
        trial = study.claim(proposal, command="", target=9)
        assert trial
        measured = cost(1e4 / (1 + number), device)
        speed = replace(measured.throughput, driver=driver, torch_version=torch_version, reference_ms=reference_ms)  # type: ignore[type-var]
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


def test_speeds_that_are_taken_over_are_on_the_scale_of_the_new_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explore.beginning.reference_ms", lambda options, study: {tmp_path / "new": 2.0}[study])
    earlier(tmp_path, reference_ms=3.0)
    found = began(f"outputs={tmp_path}", "study=new", "warm_start.study=old")
    assert [trial.throughput for trial in found.earlier] == pytest.approx([1.5e4 / (1 + number) for number in range(4)])


@pytest.mark.slow
def test_what_teaches_was_trained_as_it_would_be_here(tmp_path: Path) -> None:
    earlier(tmp_path)
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


@pytest.mark.slow
def test_with_a_constant_rate_shorter_trainings_teach_too(tmp_path: Path) -> None:
    earlier(tmp_path, "training.schedule=constant")
    found = began(f"outputs={tmp_path}", "warm_start.study=old", "training.schedule=constant", "training.epochs=1")
    assert [trial.evaluation.epochs for trial in found.earlier] == [1, 1, 1, 1]


def test_a_study_that_cannot_help_is_refused(tmp_path: Path) -> None:
    earlier(tmp_path)
    with pytest.raises(ValueError, match=f"must be a study in {tmp_path}, got 'odl'; there are: old"):
        began(f"outputs={tmp_path}", "warm_start.study=odl")
    with pytest.raises(ValueError, match="must be another study, got new, which goes on by itself"):
        began("warm_start.study=new")
    with pytest.raises(ValueError, match="warm_start has options of its own, published, study, url, list; write"):
        began("warm_start=old")


@pytest.mark.slow
def test_a_study_elsewhere_is_found_or_refused(tmp_path: Path) -> None:
    earlier(tmp_path)
    storage = f"sqlite:///{tmp_path}/old/study.db"
    for overrides, message in (
        (["warm_start.study=x", f"storage.url={storage}"], f"must be a study in {storage}, got 'x'; there are: old"),
        (["warm_start.study=x", "warm_start.url=sqlite:///no.db"], "in sqlite:///no.db, got 'x'; there are: none"),
        (["warm_start.study=x", "warm_start.url=nowhere"], "warm_start.url must be an SQLAlchemy URL"),
        (
            ["warm_start.study=old", "space.token_mixing=choice(s2)"],
            "must have complete trials that lie in this space, got none in old; .*\n  token_mixing must be one of s2",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            began(f"outputs={tmp_path}", *overrides)
    assert not Path("no.db").exists()
    assert learned(tmp_path, f"warm_start.url={storage}") == (4, 4, 0)


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
    assert "the last of them finds no room among trials=5" in found.words


@pytest.mark.slow
def test_a_search_begins_with_the_front_of_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study, a second one in a wider space that is interrupted and goes on, and a third on other images."""
    start_server()
    shared = ["+sweep=smoke", "references=[]", f"outputs={tmp_path}", "training.epochs=3", "search.startup=2"]
    assert _run(main, [*shared, "study=old", "workers=2", "trials=6"]) == 0
    old = front(results(study_of(tmp_path, "old")))  # by the speeds of its end
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
