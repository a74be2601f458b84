"""All published networks, and all variants in one place, are measured by one command and printed as one table.

python -m pytest tests/test_measure_all.py
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor

from explore import measure
from explore.architecture.catalog import Grid
from explore.architecture.families.row import Published
from explore.architecture.layers import TokenMixing
from explore.architecture.published import PUBLISHED
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.command import _run
from explore.comparison import compare
from explore.config import compose
from explore.schema import register

SMALL = ("data=digits", "model.patch_size=2", "model.width=8", "model.depth=1")
QUICK = ("cost.batch_size=2", "cost.max_seconds=0.01", "cost.warmup=0", "cost.block_seconds=0.001")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def call(*arguments: str) -> tuple[int, str, str]:
        status = _run(measure.main, list(arguments), measure.own)
        return status, *capsys.readouterr()

    return call


class Picky(TokenMixing):
    """Refuses every grid."""

    def __init__(self, grid: Grid, width: int) -> None:
        raise ValueError("grid must be another one, got this; try width 48 or 72")


class Folding(TokenMixing):
    """Adds two weights, of which only the sum is deployed; counts no multiply-adds."""

    def __init__(self, grid: Grid, width: int, *, parts: int = 2) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(parts, width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels."""
        return x * self.weights.sum(0)

    def deployed(self) -> torch.nn.Module:
        """The sum."""
        result = Folding(Grid(1, 1), self.weights.shape[1], parts=1)
        result.weights = torch.nn.Parameter(self.weights.detach().sum(0, keepdim=True))
        return result


@pytest.fixture
def catalog() -> Iterator[None]:
    """A catalog of few token mixings, two of them our own."""
    options = ConfigStore.instance().repo
    register()  # of the others
    known = dict(TOKEN_MIXINGS)
    TOKEN_MIXINGS.clear()
    TOKEN_MIXINGS.update({name: known[name] for name in ("mlp", "attention", "pooling")})
    TOKEN_MIXINGS.update(picky=Picky, folding=Folding)
    yield
    for name in set(TOKEN_MIXINGS) - set(known):
        options["token_mixing"].pop(f"{name}.yaml", None)
    TOKEN_MIXINGS.clear()
    TOKEN_MIXINGS.update(known)


@pytest.mark.usefixtures("catalog")
def test_variants_are_counted_in_one_place(run: Run) -> None:
    status, out, err = run("token_mixing=all", *SMALL, "throughput=off", "format=json")
    result = json.loads(out)
    assert (status, err) == (0, "")
    assert (result["group"], result["network"], result["image_size"]) == ("token_mixing", "1 block of width 8", 8)
    variants = {one["name"]: one for one in result["variants"]}
    assert set(variants) == {"mlp", "attention", "pooling", "folding"}
    macs = [one["deployed_macs"] for one in result["variants"]]
    assert macs == sorted(macs), "without a speed, the cheapest first"
    assert all(one["eager"] is one["graph"] is one["compiled"] is one["training"] is None for one in variants.values())
    assert variants["folding"]["params"] - variants["folding"]["deployed_params"] == 8
    reason = "grid must be another one, got this; try width 48 or 72"
    assert result["refused"] == [{"name": "picky", "reason": reason}]
    alone = json.loads(run("token_mixing=attention", *SMALL, "throughput=off", "format=json")[1])
    same = ("params", "macs", "deployed_params", "deployed_macs")
    assert [variants["attention"][key] for key in same] == [alone[key] for key in same]


@pytest.mark.usefixtures("catalog")
def test_variants_are_timed_and_sorted(run: Run) -> None:
    given = ("token_mixing=all", *SMALL, *QUICK, "cost.dispatch=eager")
    status, out, err = run(*given, "format=json")
    result = json.loads(out)
    assert (status, err) == (0, "")
    speeds = [one["eager"]["images_per_second"] for one in result["variants"]]
    assert speeds == sorted(speeds, reverse=True)
    assert all(one["training"]["low"] > 0 and one["compiled"] is None for one in result["variants"])
    assert (result["protocol"]["batch_size"], result["protocol"]["threads"]) == (2, 1)
    _, out, _ = run(*given)
    assert "every token_mixing, 8 × 8 pixels, 10 classes; 1 block of width 8" in out
    assert "picky is left out: grid must be another one" in out
    assert "eager, images/s" in out
    assert "compiled, images/s" not in out


def parts(network: torch.nn.Module) -> int:
    (mixing,) = (module for module in network.modules() if isinstance(module, Folding))
    return len(mixing.weights)


@pytest.mark.usefixtures("catalog")
def test_both_dispatches_are_timed_with_the_deployed_form_and_training_with_the_other(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def throughput(networks: Any, shape: Any, options: Any, report: Any) -> Any:
        seen[options.dispatch] = parts(networks["folding"])
        failures = {} if options.dispatch == "eager" else {"mlp": "no compiler"}
        return {name: [1.0] for name in networks if name not in failures}, failures

    def training(networks: Any, shape: Any, options: Any, report: Any) -> Any:
        seen["training"] = parts(networks["folding"])
        return {name: [1.0] for name in networks}

    monkeypatch.setattr("explore.comparison.compare_throughput", throughput)
    monkeypatch.setattr("explore.comparison.compare_training_steps", training)
    status, out, _ = run("token_mixing=all", *SMALL, *QUICK, "format=json")
    assert status == 0
    assert seen == {"eager": 1, "compiled": 1, "training": 2}
    (mlp,) = [one for one in json.loads(out)["variants"] if one["name"] == "mlp"]
    assert (mlp["compiled"], mlp["note"]) == (None, "cannot be compiled: no compiler")


@pytest.mark.usefixtures("catalog")
def test_on_a_gpu_graphs_are_timed_too_and_decide_the_order(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: all that is timed is played."""
    seconds = {
        "eager": [1.0, 2.0, 3.0, 4.0],
        "graph": [0.4, 0.3, 0.2, 0.1],
        "compiled": [9.0] * 4,
        "training": [9.0] * 4,
    }
    names = ("mlp", "attention", "pooling", "folding")

    def throughput(networks: Any, shape: Any, options: Any, report: Any) -> Any:
        failures = {"attention": "it waits"} if options.dispatch == "graph" else {}
        return {name: [one] for name, one in zip(names, seconds[options.dispatch], strict=True)}, failures

    def training(networks: Any, shape: Any, options: Any, report: Any) -> Any:
        return {name: [9.0] for name in names}

    monkeypatch.setattr("explore.comparison.compare_throughput", throughput)
    monkeypatch.setattr("explore.comparison.compare_training_steps", training)
    monkeypatch.setattr("explore.cost.device.dispatches", lambda device: ("eager", "graph", "compiled"))
    given = ("token_mixing=all", *SMALL, *QUICK)
    variants = json.loads(run(*given, "format=json")[1])["variants"]
    assert [one["name"] for one in variants] == ["folding", "pooling", "mlp", "attention"]
    assert variants[0]["graph"]["images_per_second"] == pytest.approx(2 / 0.1)
    assert (variants[-1]["graph"], variants[-1]["note"]) == (None, "cannot be captured as a graph: it waits")
    assert variants[-1]["eager"]["images_per_second"] == pytest.approx(2 / 2.0)
    assert "eager, images/s" in (out := run(*given)[1])
    assert "graph, images/s" in out


def test_channel_mixings_are_compared_too(run: Run) -> None:
    status, out, _ = run("channel_mixing=all", "model.width=12", *SMALL[:2], "model.depth=1", "throughput=off")
    assert status == 0
    assert "every channel_mixing" in out
    assert "swiglu" in out


@pytest.mark.usefixtures("catalog")
def test_variants_of_a_published_model_are_measured_at_its_size(run: Run) -> None:
    _, out, _ = run("token_mixing=all", "model=mixer_s32", "model.depth=1", "throughput=off", "format=json")
    result = json.loads(out)
    assert (result["network"], result["image_size"], result["classes"]) == ("mixer_s32", 224, 1000)
    assert result["protocol"]["batch_size"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model=all", "token_mixing=all"), "only one group can be all at a time, got model=all and token_mixing=all"),
        (("channel_mixing=all", "token_mixing=all"), "only one group can be all at a time"),
        (("model=all", "token_mixing=mlp"), "model=all measures published models as they are, got token_mixing=mlp"),
        (("model=mixer_s32", "pretrained=x.npz"), "weights change no cost, got pretrained=x.npz; leave it out"),
        (("model=all", "model.depth=2"), "model=all measures published models as they are, got model.depth=2"),
        (
            ("token_mixing=all", "token_mixing.expansion=1"),
            "every variant with its defaults, got token_mixing.expansio",
        ),
        (("token_mixing=all", "data=digits", "model.patch_size=3"), "patch_size must divide image_size, got 3 and 8"),
        (("token_mixing=all", "cost.device=tpu", "data=digits"), "device must be one of auto, cpu"),
        (
            ("token_mixing=all", "cost.device=cpu", "cost.dispatch=graph", "data=digits"),
            "must have a GPU, got cpu; try eag",
        ),
        (("model=all", "cost.device=cpu", "cost.dispatch=graph"), "must have a GPU, got cpu; try eager or compiled"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def row(params: int, macs: float, top1: float | None = None) -> Published:
    """A tiny Mixer."""
    return Published(
        paper="Tiny, arXiv 2101.00001",
        params=params,
        macs=macs,
        model={"patch_size": 16, "depth": 1, "width": 8},
        token_mixing="mlp",
        channel_mixing="mlp",
        top1=top1,
        image_size=32,
        classes=10,
    )


# Stem 8 · 769; token MLP 2 · 4 · 4 + 8; channel MLP 2 · 8 · 32 + 40; three norms of 16; head 10 · 9.
PARAMS = 6152 + 40 + 552 + 48 + 90
# For 4 tokens: stem 8 · 768 each; token MLP 2 · 4 for each of 8 channels; channel MLP 2 · 8 · 32; head 80.
MACS = 4 * 6144 + 4 * 64 + 4 * 512 + 80


@pytest.fixture
def few() -> Iterator[None]:
    """Three published models: one right, one that is off by a parameter, one without published figures."""
    known = dict(PUBLISHED)
    PUBLISHED.clear()
    PUBLISHED.update(right=row(PARAMS, MACS, 68.7), off=row(PARAMS - 1, 2 * MACS), unknown=row(0, 0.0))
    yield
    PUBLISHED.clear()
    PUBLISHED.update(known)


@pytest.mark.usefixtures("few")
def test_published_models_are_counted_beside_their_figures(run: Run) -> None:
    status, out, err = run("model=all", "format=json")
    assert (status, err) == (0, "")
    right, off, unknown = json.loads(out)["networks"]
    assert right["params"] == right["published"]["params"] == right["deployed_params"] == PARAMS
    assert (right["deviation"]["params"], right["deviation"]["macs"]) == (0, 0)
    assert (right["published"]["top1"], right["throughput"]) == (68.7, None)
    assert off["deviation"]["params"] == pytest.approx(1 / (PARAMS - 1))
    assert off["deviation"]["macs"] == pytest.approx(-0.5)
    assert (unknown["published"]["params"], unknown["deviation"]["params"]) == (None, None)


@pytest.mark.usefixtures("few")
def test_published_models_are_one_table(run: Run) -> None:
    status, out, _ = run("model=all")
    lines = {line.split()[0]: line.rstrip() for line in out.splitlines()[2:]}
    assert status == 0
    assert out.startswith("3 published networks")
    assert lines["right"].split()[1:6] == ["32", "6,882", "0", "0.027", "M"]
    assert (lines["off"].split()[3], lines["unknown"].split()[3]) == ("+1", "-")
    assert "-50.00 %" in lines["off"]
    assert lines["right"].endswith("68.70 %   Tiny, arXiv 2101.00001")


@pytest.mark.usefixtures("few")
def test_published_models_are_timed_where_it_is_asked_for(run: Run) -> None:
    _, out, _ = run("model=all", "throughput=on", *QUICK, "format=json")
    assert all(one["throughput"] > 0 for one in json.loads(out)["networks"])
    _, out, _ = run("model=all", "throughput=on", *QUICK)
    assert "images/s" in out
    assert "one after the other" in out


def test_nothing_to_compare_is_no_mistake() -> None:
    assert compare({}, compose([]).cost, ("eager",), print) == []
