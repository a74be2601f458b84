"""Every benchmark answers `--help` and refuses what it does not know, before any work; what it knows arrives as given.

python -m pytest tests/test_benchmark_arguments.py
"""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import ablation_calibration, claims, search, throughput_noise
from benchmarks.arguments import parse

INTERNAL = ("table_worker",)
COMMANDS = [
    path.stem
    for path in sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
    if "def main(arguments" in path.read_text() and path.stem not in INTERNAL
]
COSTS = ("propose=0.1", "claim=0.03", "tell=0.05", "beat=0.02", "look=0.001")
Refusal = Callable[..., str]


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Refusal:
    """The line on stderr of a benchmark that ends with status 2; stdout stays empty."""

    def said(command: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            importlib.import_module(f"benchmarks.{command}").main(list(arguments))
        output = capsys.readouterr()
        (line,) = output.err.splitlines()
        assert (left.value.code, output.out) == (2, "")
        return line

    return said


def test_the_commands_are_found() -> None:
    assert {"search", "training", "latency_model"} < set(COMMANDS)


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_the_docstring(command: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{command}")
    with pytest.raises(SystemExit) as left:
        module.main(["unheard=1", word])
    assert left.value.code == 0
    assert capsys.readouterr().out == str(module.__doc__).strip() + "\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_keys_are_refused_and_the_others_are_in_the_help(command: str, refusal: Refusal) -> None:
    line = refusal(command, "unheard=1")
    assert line.startswith("explore: unknown key unheard; ")
    if named := re.search("keys are ([^;]*)", line):
        told = importlib.import_module(f"benchmarks.{command}").__doc__
        assert not [key for key in named[1].split(", ") if f"{key}=" not in told]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("search seedz=3", "unknown key seedz; keys are data, methods, seeds, .*, format; did you mean seeds?"),
        ("search --seeds", "an argument must be KEY=VALUE or record, got --seeds; keys are data, .*, format"),
        ("search record seeds=3", "unknown key seeds; keys are data, configurations, workers, format"),
        ("search format=jsno", "format must be one of json, text, got 'jsno'; did you mean json?"),
        ("search data=digits,mnits", "data must be one of digits, mnist, got 'mnits'; did you mean mnist?"),
        ("search against=our", "against must be one of gp, .*, got 'our'.*"),
        ("search methods=gp;nsga", "methods must be one of gp, .*, got 'nsga'; did you mean nsga2?"),
        ("search_real methods=speed_aware", "methods must be one of .*, got 'speed_aware'.*"),
        ("search_real seconds=soon", "seconds must be a number above 0, got 'soon'"),
        ("networks rounds=x", "rounds must be a whole number above 0, got 'x'"),
        ("networks rounds=0", "rounds must be a whole number above 0, got '0'"),
        ("networks only=mixer_s61", "only must be one of mixer_.*, got 'mixer_s61'; did you mean mixer_s16?"),
        ("networks precision=float61", "precision must be one of bfloat16, float32, got 'float61'.*"),
        ("networks device=auto", "device must be one of cpu, cuda, got 'auto'"),
        ("training only=loop,lop", "only must be one of gpu, loop, .*, got 'lop'; did you mean loop?"),
        ("training network=tim", "network must be one of package, timm, got 'tim'; did you mean timm?"),
        ("training folder=/nonexist", "folder must be a folder .* per class, got '/nonexist', which does not exist"),
        ("together device=tpu", "device must be one of auto, cpu.* on this machine, got 'tpu'"),
        ("claims device=tpu", "device must be one of auto, cpu.* on this machine, got 'tpu'"),
        ("claims published=mixer_b61", "published must be one of .*, got 'mixer_b61'; did you mean mixer_.*"),
        ("claims sides=7,x", "sides must be a whole number of at least 0, got 'x'"),
        ("overhead trials=10,-1", "trials must be a whole number of at least 0, got '-1'"),
        ("page repeats=1.5", "repeats must be a whole number above 0, got '1.5'"),
        ("scale only=rate", "only must be one of history, rates, running, got 'rate'; did you mean rates?"),
        ("scale_simulation propose=1 claim=1", "tell must be given, got none; add tell=NUMBER"),
        (f"scale_simulation {' '.join(COSTS)} longer=nan", "longer must be a number of at least 0, got 'nan'"),
        (f"scale_simulation {' '.join(COSTS)} beat=", "beat must be a number of at least 0, got ''"),
        (f"scale_simulation {' '.join(COSTS)} data=cifar", "data must be one of digits, mnist, got 'cifar'"),
        ("public_implementations step=train", "step must be one of inference, training, got 'train'; .*"),
        ("latency_model networks=0", "networks must be a whole number above 0, got '0'"),
        ("latency_model networks=5", "networks must be at least 20, got 5; a model needs as many"),
        ("latency_model cost.block_seconds=1", "cost.block_seconds must be at most cost.max_seconds, 0.8, got 1.0; .*"),
        ("latency_model model.dpth=1", "unknown key model.dpth; model has .*; did you mean model.depth?"),
        ("latency_model networks", "'networks' must be written KEY=VALUE"),
        ("throughput_noise load=maybe", "load must be one of no, yes, got 'maybe'"),
        ("throughput_noise seconds=0.001", "seconds must be at least 0.01, got 0.001"),
        ("throughput_noise only=oder", "only must be one of figure, order, same, got 'oder'; did you mean order?"),
        ("throughput_noise dispatch=egaer", "dispatch must be one of .*, got 'egaer'; did you mean eager?"),
        ("ablation_calibration record simulations=3", "unknown key simulations; keys are networks, format"),
    ],
)
def test_what_cannot_be_is_refused(line: str, message: str, refusal: Refusal) -> None:
    said = refusal(*line.split(" "))
    assert re.fullmatch("explore: " + message.replace("?", r"\?"), said), said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("networks", "timm, mlp_mixer_pytorch must be installed, got no timm; pip install timm mlp-mixer-pytorch"),
        ("networks precision=bfloat16", "timm must be installed, got no timm; pip install timm"),
        ("training network=timm", "timm must be installed, got no timm; pip install timm"),
    ],
)
def test_what_is_not_installed_is_said(
    line: str, message: str, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.arguments.find_spec", lambda name: None)
    assert refusal(*line.split(" ")) == f"explore: {message}"


def test_a_folder_that_cannot_be_trained_with_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "boots").mkdir()
    (tmp_path / "boots" / "1.jpg").touch()
    asked = ("training", "only=streaming", f"folder={tmp_path}")
    assert re.search("folder must have a subfolder of images for each of at least 2 classes, got only", refusal(*asked))
    (tmp_path / "shoes").mkdir()
    (tmp_path / "shoes" / "2.jpg").touch()
    assert re.search("folder must have at least 100 images to train with, got 2 in", refusal(*asked))


def test_the_order_takes_the_seconds_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def speeds(networks: Any, seconds: float, options: Any) -> dict[str, float]:
        taken.append(seconds)
        return {"slow": 1.0, "fast": 2.0}

    monkeypatch.setattr(throughput_noise, "_speeds", speeds)
    truth = {"fast": 2.0, "slow": 1.0}
    throughput_noise.order(throughput_noise.Options(turns=1, seconds=6.0), dict.fromkeys(truth, Any), truth)
    assert taken == [pytest.approx(4.0)]


def test_a_refusal_is_json_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["format=json", "seeds=x"], "", {"seeds": 3})
    output = capsys.readouterr()
    assert output.err == f"explore: {json.loads(output.out)['error']}\n"


class Began(Exception):  # noqa: N818 - nothing is wrong
    """Work would begin here."""


def begun(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *arguments: str) -> tuple[Any, ...]:
    """What a benchmark calls one of its functions with."""

    def work(*given: Any) -> None:
        raise Began(*given)

    monkeypatch.setattr(module, name, work)
    with pytest.raises(Began) as began:
        module.main(arguments)
    return began.value.args


def test_what_was_asked_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = begun(monkeypatch, search, "record", "record", "data=digits", "configurations=3")
    assert recorded == (("digits",), 3, Path("outputs/search-tables"), 2)
    methods = ["gp", "speed_aware", "tpe, pruner"]
    replayed = begun(monkeypatch, search, "rows", "methods=speed_aware;gp;tpe, pruner", "against=gp", "data=mnist")
    assert replayed == ("mnist", methods, 30, 1)
    assert begun(monkeypatch, ablation_calibration, "record", "record") == (800,)
    assert begun(monkeypatch, ablation_calibration, "measure", "simulations=9") == (9,)
    (noise,) = begun(monkeypatch, throughput_noise, "known", "only=order", "seconds=0.5")
    assert noise == throughput_noise.Options(only=("order",), seconds=0.5)
    (claimed,) = begun(monkeypatch, claims, "measure", "width=32", "sides=7,14", "published=none", "device=cpu")
    assert claimed == claims.Options(width=32, sides=(7, 14), published=(), device="cpu")


WORDS = ("tpe", "tpe, pruner", "a=b", "")
KEYS = st.text("abc.", min_size=1, max_size=5)
NUMBERS = (st.integers(1), st.floats(0, exclude_min=True, allow_infinity=False))
LISTS = (st.integers(0), st.floats(0, allow_infinity=False), st.sampled_from(WORDS))
KINDS = (st.text(), *NUMBERS, *(st.lists(one, min_size=1, max_size=4).map(tuple) for one in LISTS))
# A default, a value, and whether that is given; the last are those that have to be.
SETTINGS = st.one_of(
    *(st.tuples(one, one, st.booleans()) for one in KINDS),
    *(st.tuples(st.just(kind), one, st.just(True)) for kind, one in zip((int, float), LISTS, strict=False)),
)


def written(value: object) -> str:
    if isinstance(value, tuple):
        return (";" if isinstance(value[0], str) else ",").join(map(written, value))
    return str(value)


@given(st.dictionaries(KEYS, SETTINGS, max_size=5))
def test_what_is_written_is_read(settings: dict[str, tuple[object, object, bool]]) -> None:
    line = [f"{key}={written(value)}" for key, (_, value, given) in settings.items() if given]
    expected = {key: value if given else default for key, (default, value, given) in settings.items()}
    choices = {
        key: WORDS for key, (_, value, _) in settings.items() if isinstance(value, tuple) and isinstance(value[0], str)
    }
    read = parse(line, "", {key: default for key, (default, _, _) in settings.items()}, choices)
    assert repr(read) == repr(expected | {"format": "text"})
