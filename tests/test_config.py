"""What people write becomes typed values, and what they get wrong becomes one sentence that says what there is.

python -m pytest tests/test_config.py
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from explore.architecture.catalog import Mixing, hyperparameters
from explore.architecture.network import check
from explore.architecture.published import PUBLISHED
from explore.architecture.spec import Model
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.cluster.ray import Ray
from explore.config import CONF, as_yaml, compose, has_option, vary
from explore.data.dataset import load
from explore.data.options import SOURCES
from explore.definition import OPERATION, alone, definition, without_operation
from explore.schema import CATALOGS, Config

NEEDED = {"folder": ["data.path=/images"], "hub": ["data.name=owner/name"]}


def refusal(*overrides: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers match the message
        compose(overrides)
    return str(caught.value)


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, catalog in CATALOGS.items() for name in catalog])
def test_every_mixing_composes_with_its_defaults(group: str, name: str) -> None:
    mixing = getattr(compose([f"{group}={name}"]).candidate, group)
    options = {one.name: one.default for one in hyperparameters(CATALOGS[group][name]).values()}
    assert (mixing.name, mixing.options) == (name, options)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_composes(name: str) -> None:
    assert type(compose([f"data={name}", *NEEDED.get(name, [])]).data) is SOURCES[name]


@pytest.mark.parametrize("name", {row.paper: name for name, row in PUBLISHED.items()}.values())
def test_published_models_compose(name: str) -> None:
    candidate, row = compose([f"model={name}"]).candidate, PUBLISHED[name]
    assert candidate.model == Model.of(row.model)
    for group, catalog in CATALOGS.items():
        mixing, expected = getattr(candidate, group), Mixing.of(getattr(row, group))
        defaults = {one.name: one.default for one in hyperparameters(catalog[expected.name]).values()}
        assert (mixing.name, mixing.options) == (expected.name, defaults | dict(expected.options))


@pytest.mark.parametrize("path", sorted(CONF.glob("sweep/*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_composes_under_its_own_name(path: Path) -> None:
    config = compose([f"+sweep={path.stem}"])
    assert config.study == path.stem
    assert config.space == yaml.safe_load(path.read_text())["space"]


def leaves(kind: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(item.type):
            yield from leaves(item.type, f"{path}{item.name}.")
        elif item.type is not Any and item.name not in ("space", "stages"):
            yield f"{path}{item.name}", item.type


VALUES = {int: (3, "3"), float: (0.125, "0.125"), str: ("text", "text"), bool: (False, "false")}


def test_every_key_takes_a_value_of_its_type() -> None:
    expected = {}
    for key, kind in leaves(Config):
        expected[key] = VALUES[next(one for one in VALUES if one is kind or one in getattr(kind, "__args__", ()))]
    for name in ("stem", "downsample"):
        expected[f"model.{name}.layers"] = (["projection", "norm"], "[projection,norm]")
    names = {"cost.dispatch": "compiled", "cost.device": "cuda:1", "cost.precision": "32-true", "format": "json"}
    expected |= {key: (name, name) for key, name in names.items()}
    expected |= dict.fromkeys(("references", "warm_start.published"), (["mixer_b16"], "[mixer_b16]"))
    composed = OmegaConf.structured(compose([f"{key}={text}" for key, (_, text) in expected.items()]))
    assert {key: OmegaConf.select(composed, key) for key in expected} == {
        key: one for key, (one, _) in expected.items()
    }


def test_published_model_can_be_changed() -> None:
    candidate = compose(
        ["model=mixer_s32", "token_mixing=attention", "token_mixing.heads=4", "model.depth=3"]
    ).candidate
    assert (candidate.token_mixing.name, candidate.token_mixing.options) == ("attention", {"heads": 4})
    assert (candidate.model.width, candidate.model.depth) == (512, 3)


def test_mixing_of_a_published_model_is_replaced_with_its_options() -> None:
    candidate = compose(["model=convmixer_768_32", "token_mixing.kernel=5"]).candidate
    assert (candidate.token_mixing.name, candidate.token_mixing.options) == ("convolution", {"kernel": 5})
    candidate = compose(["model=convmixer_768_32", "token_mixing=mlp"]).candidate
    assert (candidate.token_mixing.name, candidate.model.block) == ("mlp", "convmixer")


def test_stages_make_a_hybrid() -> None:
    stages = "model.stages=[{depth: 1, width: 16, token_mixing: {name: pooling, kernel: 5}},{token_mixing: attention}]"
    candidate = compose(["data=digits", "model.patch_size=2", "model.depth=2", stages]).candidate
    first, second = candidate.architecture(load(candidate.data)).stages
    assert (first.depth, first.width) == (1, 16)
    assert first.token_mixing == (Mixing(name="pooling", options={"kernel": 5}),)
    assert (second.depth, second.width, second.token_mixing) == (2, 64, (Mixing(name="attention"),))
    check(candidate.architecture(load(candidate.data)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["epochs=3"], "unknown key epochs; the configuration has study, outputs, .*; did you mean training.epochs?"),
        (["+foo=1"], "unknown key foo; the configuration has study, outputs, "),
        (["model.dpth=1"], "unknown key model.dpth; model has patch_size, .*; did you mean model.depth?"),
        (["+model.dpth=1"], "unknown key model.dpth; model has patch_size, .*; did you mean model.depth?"),
        (["data.augmentation.shfit=1"], "unknown key data.augmentation.shfit; .* mean data.augmentation.shift?"),
        (
            ["token_mixing.kernel=3"],
            "unknown key token_mixing.kernel; only .*token_mixing=convolution.* have it",
        ),
        (["token_mixing.kernle=3", "token_mixing=pooling"], "token_mixing=pooling has kernel; did you mean token_mix"),
        (["data.path=/x"], "unknown key data.path; only data=folder has it"),
        (
            ["token_mixing=atention"],
            "token_mixing must be one of attention, .*, got 'atention'; did you mean attention?",
        ),
        (
            ["model.stages=[{token_mixing: {pooling: {kernel: 5}}},{token_mixing: [{poling: {}}]}]"],
            r"a token_mixing in model.stages\[1\] must be one of .*, got 'poling'; did you mean pooling?",
        ),
        (
            ["model=poolformer_s12", "model.depth=9"],
            "model.depth must be set in model.stages, where every stage of this model has its own, got model.depth=9;",
        ),
        (
            ["model.stages=[{token_mixing: mlp},{token_mixing: [mlp, pooling]}]", "token_mixing.expansion=1"],
            "token_mixing must be set in model.stages, where every stage of this model has its own, got token_mixing",
        ),
        (
            ["model=repmlp_t224", "token_mixing.share_sets=4"],
            "token_mixing.share_sets must be set in model.stages, where each stage of this model has its own, got it",
        ),
        (["token_mixing=null"], "token_mixing must be the name of an option, got null"),
        (["data="], "data must be the name of an option, got nothing"),
        (["+sweep=parto"], "sweep must be one of .*, got 'parto'; did you mean pareto?"),
        (["sweep=pareto"], r"write \+sweep=NAME"),
        (["+training.lr=1"], r"training.lr has a value already, .* write training.lr=VALUE$"),
        (["+sweep=pareto", "+sweep=smoke"], "sweep must be given once"),
        (
            ["cluster=slurm", "cluster.nodes=3"],
            "key cluster.nodes; cluster=slurm has grace, .*, setup, follow$",
        ),
        (["data.epochs=3"], "unknown key data.epochs; data=mnist has image_size, .*, snapshot$"),
        (["cluster=slurm", "cluster.cpu=3"], "cluster=slurm has grace, .*; did you mean cluster.cpus?"),
        (["cluster=slurm", "cluster.gpus=1.5"], "gpus must be a whole number, got 1.5; fractions are for cluster=ray$"),
        (["cluster=ray", "cluster.gpus=some"], "cluster.gpus must be a number, got some$"),
        (["model.depth=abc"], "model.depth must be a whole number, got abc$"),
        (["model.depth=1.5"], "model.depth must be a whole number, got 1.5$"),
        (["model.depth=null"], "model.depth must have a value, got null"),
        (
            ["references=mixer_b16"],
            r"references must be a list, got one value; write references=\[VALUE\] or references=\[VALUE,VALUE\]",
        ),
        (["throughput=maybe"], r"throughput must be true or false \(on or off\), got maybe$"),
        (["model.depth=1,2"], r"model.depth takes one value, got 1,2; .* write 'space.model.depth=choice\(...\)'"),
        (["model.depth=choice(1,2)"], r"model.depth takes one value, got choice\(1,2\); to search"),
        (["model.depth"], "'model.depth' must be written KEY=VALUE"),
        (["=3"], "'=3' must be written KEY=VALUE"),
        (["outputs=[1"], r"'outputs=\[1' cannot be read; .* outputs='\"VALUE\"'"),
        (["study=ä"], "study must be a name of letters, digits, dots, .*, got 'ä'; letters are those from a to z$"),
        (["~training"], "a key cannot be removed, got '~training'"),
        (["data=folder"], "data.path must be given, got nothing; add data.path=VALUE"),
        (["format=xml"], "format must be one of text, json, got 'xml'"),
        (["cost.batch_size=0"], "cost.batch_size must be at least 1, got 0"),
        (["cost.max_seconds=0"], "cost.max_seconds must be above 0 seconds, got 0"),
        (["imports=[no_such_module]"], "imports must name modules that Python finds, got no_such_module"),
        (["space.model.depth="], "space.model.depth must be a dimension, got nothing"),
        (["~space.model.depth"], "~space.model.depth must name a dimension of the space, which has none"),
    ],
)
def test_mistakes_are_explained_in_one_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        compose(overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert not any(word in text for word in ("multirun", "full_key", "hydra", "object_type", "struct"))


def test_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("# @package _global_\nmodel:\n  dpth: 3\n")
    message = refusal(f"hydra.searchpath=[file://{tmp_path}]", "+sweep=mine")
    assert message.startswith("unknown key model.dpth; model has patch_size")
    assert message.endswith("did you mean model.depth? (in sweep/mine.yaml)")


def test_own_sweep_is_found_on_the_search_path(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "# @package _global_\nstudy: mine\nspace:\n  model.depth: range(1, 3)\n"
    )
    config = compose([f"hydra.searchpath=[file://{tmp_path}]", "+sweep=mine"])
    assert (config.study, config.space) == ("mine", {"model.depth": "range(1, 3)"})


def test_dimensions_are_added_replaced_and_removed() -> None:
    usual = compose(["+sweep=smoke"]).space
    changes = ["space.model.width=choice(8, 24)", "+space.training.seed='range(0, 3)'", "~space.model.depth"]
    changed = compose(["+sweep=smoke", *changes]).space
    expected = {**usual, "model.width": "choice(8, 24)", "training.seed": "range(0, 3)"}
    del expected["model.depth"]
    assert changed == expected
    assert compose(["+sweep=smoke"]).space == usual


def test_home_folder_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of somebody (x)")
    config = compose(["data=folder", "data.path=~/shoes", "outputs=~/runs"])
    assert config.data.path == "/home/of somebody (x)/shoes"
    assert config.outputs == "/home/of somebody (x)/runs"


MIXING_FROM_OUTSIDE = """
from torch import Tensor, nn
from explore.architecture.layers import TokenMixing
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

class Rolled(TokenMixing):
    def __init__(self, grid, width: int, *, places: int = 1) -> None:
        super().__init__()
        self.places = places

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(self.places, 1)

TOKEN_MIXINGS["rolled"] = Rolled
"""


def test_mixing_from_outside_is_one_like_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_mixings.py").write_text(MIXING_FROM_OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        given = ["data=digits", "imports=[my_mixings]", "token_mixing=rolled", "token_mixing.places=2"]
        config = compose(given)
        assert config.candidate.token_mixing.options == {"places": 2}
        config.candidate.check(load(config.data))
        assert has_option("token_mixing.places", {}, config)
        assert definition(compose(given))["token_mixing"] == {"name": "rolled", "places": 2}
        assert without_operation(given) == given
        message = refusal("token_mixing=roled")
        assert "repmlp, rolled, s2" in message
        assert message.endswith("got 'roled'; did you mean rolled?")
        assert "only token_mixing=rolled has it" in refusal("token_mixing.places=2")
    finally:
        TOKEN_MIXINGS.pop("rolled", None)
        sys.modules.pop("my_mixings", None)


def test_definition_ignores_what_only_operates_a_search() -> None:
    base = ["+sweep=smoke", "model.depth=2"]
    operating = {
        "study": "x",
        "outputs": "/x",
        "trials": "9",
        "workers": "3",
        "sampler": "random",
        "search.seed": "5",
        "stopping.rule": "off",
        "warm_start.study": "x",
        "front.seeds": "3",
        "ablation.margin": "0.1",  # of concern to sampler=paired only
        "format": "json",
        "storage.url": "sqlite:///x",
        "cluster.grace": "1",
        "tracking.mode": "disabled",
        "throughput": "off",
        "references": "[]",
        "training.threads": "3",
        "data.cache": "/x",
        "model.compile": "off",
    }
    assert {key.partition(".")[0] for key in operating} >= set(OPERATION)
    assert definition(compose([*base, *(f"{key}={value}" for key, value in operating.items())])) == definition(
        compose(base)
    )
    for different in ("model.depth=3", "training.seed=1", "limits.params=5", "space.model.depth=choice(1, 2)"):
        assert definition(compose([*base, different])) != definition(compose(base))


def test_a_candidate_alone_has_one_folder_however_the_path_of_its_images_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shoes").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shoes")
    monkeypatch.chdir(tmp_path)
    spellings = ("shoes", "shoes/", "link", "./shoes", tmp_path / "shoes")
    assert len({alone(compose(["data=folder", f"data.path={path}"])) for path in spellings}) == 1
    assert alone(compose(["data=folder", "data.path=boots"])) != alone(compose(["data=folder", "data.path=shoes"]))


def test_definition_is_plain_and_makes_the_same_candidate_again() -> None:
    record = definition(compose(["data=digits", "model=vit_s32", "training.lr=0.01"]))
    assert yaml.safe_load(yaml.safe_dump(record)) == record
    assert record["model"]["pooling"] == "class_token"
    assert record["training"]["lr"] == 0.01


def test_candidate_overrides_are_kept_and_operation_is_left_out() -> None:
    kept = ["+sweep=pareto", "model.depth=3", "data=digits", "data.cache=/x"]
    dropped = ["trials=3", "study=x", "storage.url=x", "+tracking.mode=disabled", "space.model.depth=range(1, 3)"]
    assert without_operation([*kept, *dropped]) == kept


def test_options_exist_for_the_variants_that_have_them() -> None:
    base = compose([])
    assert has_option("token_mixing.expansion", {}, base)
    assert not has_option("token_mixing.heads", {}, base)
    assert has_option("token_mixing.heads", {"token_mixing": "attention"}, base)
    assert not has_option("token_mixing.expansion", {"token_mixing": "attention"}, base)
    assert has_option("token_mixing", {}, base)
    assert has_option("model.depth", {"token_mixing": "attention"}, base)
    assert has_option("token_mixing.heads", {}, compose(["token_mixing=attention"]))


@pytest.mark.parametrize(
    "base",
    [
        ["+sweep=smoke"],
        ["token_mixing.expansion=3", "channel_mixing.expansion=4"],
        ["model=gmixer_24"],
    ],
)
def test_a_variant_has_the_options_that_are_set_for_all(base: list[str]) -> None:
    for one in ("token_mixing=mlp", "token_mixing=swiglu", "channel_mixing=swiglu"):
        assert vary(base, [one]) == compose([*base, one])


def test_yaml_shows_every_key_with_its_value() -> None:
    shown = yaml.safe_load(as_yaml(["+sweep=smoke", "training.lr=0.5"]))
    assert set(shown) == {item.name for item in dataclasses.fields(Config)}
    assert shown["training"]["lr"] == 0.5
    assert shown["space"] == compose(["+sweep=smoke"]).space


def test_further_resources_of_ray_are_added() -> None:
    assert compose(["cluster=ray", "+cluster.resources.place=1"]).cluster == Ray(resources={"place": 1.0})
    words = "cluster.resources.place has no value to replace; write +cluster.resources.place=VALUE"
    assert refusal("cluster=ray", "cluster.resources.place=1") == words
    words = "cluster.resources.place must have a value of its type, got here"
    assert refusal("cluster=ray", "+cluster.resources.place=here") == words
