"""An exported network is the trained one, and whoever asks for what cannot be is told what can.

The whole way, from a search to a file that is read without this package, is in test_export_whole.py, and so is every
mixing of the catalogs.

python -m pytest tests/test_export.py
"""

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import four_arms
import pytest
import torch
from filled_studies import add, new_study, searched
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint
from torch import nn

from explore import export as command
from explore.ablation.design import NOTE
from explore.candidate import build
from explore.command import _run
from explore.config import compose
from explore.cost.options import Measuring
from explore.cost.speed import Speed
from explore.data.dataset import load
from explore.evaluation import Epoch
from explore.exporting.agreement import TOLERANCE, Agreement, Speeds, accuracy_interval, compare, time_both
from explore.exporting.artifact import export, facts
from explore.exporting.card import card
from explore.exporting.form import FromPixels
from explore.exporting.formats import FACTS, FORMATS, Onnx, TorchExport
from explore.exporting.kept import keep, kept, origin_of
from explore.exporting.trained import Trained, asked_for, check_changes
from explore.exporting.trained import trained as find_trained
from explore.search.space import to_overrides
from explore.search.trial import front

TINY = ["data=digits", "model.patch_size=4", "model.width=8", "model.depth=1", "cost.batch_size=4"]
TINY += ["cost.max_seconds=0.01", "cost.block_seconds=0.001", "cost.warmup=0"]
EPOCH = Epoch(epoch=1, train_loss=1.0, val_loss=1.0, val_accuracy=0.5, lr=1e-3, seconds=1.0)


@pytest.fixture(scope="module")
def trained() -> Trained:
    candidate = compose(TINY).candidate
    dataset = load(candidate.data)
    network = build(candidate, dataset).eval()
    with torch.no_grad():
        network.head.weight.mul_(100)  # logits as large as those of a network that has learned
    study = new_study()
    add(study)
    (trial,) = study.trials()
    return Trained(trial=trial, candidate=candidate, dataset=dataset, network=network, curve=(EPOCH,))


def classifier(trained: Trained) -> FromPixels:
    return FromPixels(trained.network.deployed(), trained.dataset.mean, trained.dataset.std).eval()


@pytest.mark.parametrize("name", ["torch_export", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_file_has_everything_and_takes_any_batch_of_pixels(name: str, trained: Trained, tmp_path: Path) -> None:
    kind, path, original = FORMATS[name], tmp_path / "network", classifier(trained)
    kind.check()
    kind.write(original, (1, 8, 8), facts(trained), path)
    network, pixels = kind.read(path, torch.device("cpu"), 1), trained.dataset.test.images
    with torch.inference_mode():
        for batch in (1, 2, 7):
            expected = original(pixels[:batch])
            torch.testing.assert_close(network(pixels[:batch]), expected, rtol=1e-4, atol=1e-5)
    agreement = compare(trained.network, network, trained.dataset, torch.device("cpu"))
    assert agreement.holds
    assert agreement.images == len(trained.dataset.test)
    assert agreement.right == agreement.original_right
    assert str(Path(__file__).parents[1]) not in path.read_bytes().decode("latin-1"), "folders of this machine"


def test_the_facts_lie_inside(trained: Trained, tmp_path: Path) -> None:
    TorchExport().write(classifier(trained), (1, 8, 8), facts(trained), tmp_path / "network.pt2")
    found = {FACTS: ""}
    torch.export.load(tmp_path / "network.pt2", extra_files=found)
    known = json.loads(found[FACTS])
    assert json.loads(known["classes"]) == [str(digit) for digit in range(10)]
    assert known["input"] == "uint8, batch × 1 × 8 × 8, pixels from 0 to 255"
    assert json.loads(known["mean"]) == list(trained.dataset.mean)


class OneOff(TorchExport):
    """Writes another network than it is given: one weight is off."""

    name = "one_off"

    def write(self, module: nn.Module, shape: tuple[int, int, int], facts: Mapping[str, str], path: Path) -> None:
        other = copy.deepcopy(module)
        other.get_parameter("network.head.bias").data[0] += 0.01
        super().write(other, shape, facts, path)


def test_what_is_not_the_same_network_is_refused_and_not_kept(trained: Trained, tmp_path: Path) -> None:
    file = tmp_path / "network.pt2"
    file.write_text("an earlier one")
    with pytest.raises(ValueError, match=r"must give the logits of the original, within 0.0001 .* difference of 0.01 "):
        export(trained, OneOff(), file, {})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier one"]


ABOUT = {"study": "digits", "trial": "0"}
AGREEMENT = Agreement(images=9, right=8, original_right=8, difference=1e-6, largest=3.0)
SPEED = Speed(images_per_second=2.0, low=1.0, high=3.0, settled=True)
SPEEDS = Speeds(
    exported=SPEED,
    original=SPEED,
    ratio=(0.9, 1.0, 1.1),
    batch_size=4,
    precision="32-true",
    dispatch="eager",
    threads=1,
    device="AMD EPYC",
)


def test_a_file_is_kept_that_is_whole_and_would_be_the_same_again(trained: Trained, tmp_path: Path) -> None:
    file, origin = tmp_path / "network.pt2", origin_of(trained, ABOUT)
    file.write_bytes(b"weights")
    assert kept(file, origin) is None
    keep(file, origin, AGREEMENT, SPEEDS)
    assert kept(file, origin_of(trained, ABOUT)) == (AGREEMENT, SPEEDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["network.pt2", "network.pt2.json"]
    other = replace(trained, network=copy.deepcopy(trained.network))
    with torch.no_grad():
        other.network.head.bias[0] += 1e-6
    measured = replace(trained.candidate, cost=replace(trained.candidate.cost, threads=7))
    for changed in (
        origin_of(other, ABOUT),
        origin_of(trained, {**ABOUT, "trial": "1"}),
        origin_of(replace(trained, candidate=measured), ABOUT),
    ):
        assert kept(file, changed) is None


@pytest.mark.parametrize("torn", ["network.pt2", "network.pt2.json"])
def test_what_is_torn_is_not_kept(torn: str, trained: Trained, tmp_path: Path) -> None:
    file, origin = tmp_path / "network.pt2", origin_of(trained, ABOUT)
    file.write_bytes(b"weights")
    keep(file, origin, AGREEMENT, SPEEDS)
    (tmp_path / torn).write_bytes((tmp_path / torn).read_bytes()[:-1])
    assert kept(file, origin) is None
    (tmp_path / torn).unlink()
    assert kept(file, origin) is None


@pytest.mark.slow
def test_both_forms_are_timed(trained: Trained, tmp_path: Path) -> None:
    agreement, speeds = export(trained, FORMATS["torch_export"], tmp_path / "network.pt2", {"study": "digits"})
    assert agreement.holds
    assert [path.name for path in tmp_path.iterdir()] == ["network.pt2"]
    assert (speeds.batch_size, speeds.threads) == (256, 1), "as the trial was measured"
    assert speeds.exported.low <= speeds.exported.images_per_second <= speeds.exported.high
    assert speeds.ratio[0] <= speeds.ratio[1] <= speeds.ratio[2]


def test_forms_that_cannot_both_be_captured_are_both_timed_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def throughput(forms: object, shape: object, options: Measuring, *rest: object, pixels: bool) -> object:
        asked.append(options.dispatch)
        return {"original": [1.0], "exported": [2.0]}, {"exported": "it waits"} if options.dispatch == "graph" else {}

    monkeypatch.setattr("explore.exporting.agreement.compare_throughput", throughput)
    one = torch.nn.Identity()
    speeds = time_both(one, one, (1, 8, 8), Measuring(precision="32-true", dispatch="graph"), "a GPU")
    assert (asked, speeds.dispatch) == (["graph", "eager"], "eager")


@given(largest=st.floats(0, 1e6), factor=st.floats(0, 10))
def test_rounding_is_told_from_a_difference(largest: float, factor: float) -> None:
    difference = factor * TOLERANCE * max(1.0, largest)
    agreement = Agreement(images=1, right=1, original_right=1, difference=difference, largest=largest)
    assert agreement.holds == (difference <= TOLERANCE * max(1.0, largest))
    if abs(factor - 1) > 1e-6:
        assert agreement.holds == (factor < 1)


def test_what_is_no_number_does_not_hold() -> None:
    for difference, largest in ((math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)):
        one = Agreement(images=1, right=1, original_right=1, difference=difference, largest=largest)
        assert not one.holds


@given(st.integers(1, 5000).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images))))
def test_the_interval_of_an_accuracy_is_that_of_others(counts: tuple[int, int]) -> None:
    assert accuracy_interval(*counts) == pytest.approx(proportion_confint(*counts, method="wilson"), abs=1e-9)


def test_a_run_of_an_ablation_may_set_its_seed_and_what_its_arm_was_matched_by(tmp_path: Path) -> None:
    study = four_arms.new_study()
    images = load(compose(TINY).data).fingerprint
    for key, value in {
        "overrides": [*TINY, "space.token_mixing=choice(mlp, s2)"],
        "data": {"fingerprint": images},
    }.items():
        study.note(key, value)
    add(study)
    (trial,) = study.trials()
    settings = four_arms.DESIGN.values(four_arms.ARMS[1], 3)
    run = replace(trial, proposal=replace(trial.proposal, values=settings, overrides=to_overrides(settings)))
    with pytest.raises(ValueError, match="must have been trained to its end, with its checkpoint kept"):
        find_trained(study, run, tmp_path / "ablation", [])
    more = replace(run.proposal, overrides=[*run.proposal.overrides, "outputs=elsewhere"])
    with pytest.raises(ValueError, match=r"a trial must be of the space .* got outputs=elsewhere"):
        find_trained(study, replace(run, proposal=more), tmp_path / "ablation", [])


def test_a_card_says_what_a_network_was_trained_for(trained: Trained, tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    file.write_bytes(b"weights")

    def text(notes: Mapping[str, object]) -> str:
        return card(trained, Onnx(), file, AGREEMENT, SPEEDS, study="digits", notes=notes, command="export")

    chosen = "The validation images chose this network"
    searched, compared = text({}), text({NOTE: four_arms.DESIGN.to_dict()})
    assert "Found by a search" in searched
    assert chosen in " ".join(searched.split())
    assert "Trained for an ablation" in compared
    assert chosen not in " ".join(compared.split())


def test_trials_are_found_by_number_and_by_front() -> None:
    study = searched(8)
    trials = study.trials()
    assert asked_for("front", trials) == front(trials)
    assert [one.number for one in asked_for("3", trials)] == [3]
    with pytest.raises(ValueError, match=r"trial must be front or the number of a trial .*from 0 to 7\), got '8'"):
        asked_for("8", trials)
    failed = add(study, status="failed")
    with pytest.raises(ValueError, match=f"must be one that was measured, got {failed.number}, which is failed"):
        asked_for(str(failed.number), study.trials())
    with pytest.raises(ValueError, match="trial=front needs a complete trial"):
        asked_for("front", [])


REFUSED = {
    "": "trial must be given once, as a number or front, got nothing",
    "trial=1": "format must be given, one of torch_export, onnx or both, got none",
    "trial=1 trial=2 format=onnx": "trial must be given once, as a number or front, got 1 and 2",
    "trial=1 format=onxx": "format must be one of torch_export, onnx (to write) or text, json (to print), got 'onxx'",
    "trial=1 format=onnx model.width=8": "what a trial is was settled by its study, got model.width=8; only data, cost",
    "trial=1 format=torch_export": "study must be given, got nothing; add study=NAME",
    "trial=1 format=torch_export study=none": "study none must exist, got no file",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_is_refused_in_words(
    given: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(command.main, given.split(), command.own) == 2
    assert REFUSED[given] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_changes_are_of_the_settings_of_the_study(tmp_path: Path) -> None:
    """Its images are in a folder, though those of a command without settings are not."""
    study = new_study()
    study.note("overrides", ["data=folder", "data.path=/nowhere"])
    with pytest.raises(ValueError, match=r"data\.path must be a folder .*, got '/elsewhere', which does not exist"):
        check_changes(study, ["data.path=/elsewhere"])
    with pytest.raises(ValueError, match=r"unknown key data\.pth; data=folder has .*did you mean data\.path\?"):
        check_changes(study, ["data.pth=/elsewhere"])
    assert command.own("data.path=/elsewhere")
    assert not command.own("outputs=/elsewhere")


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Onnx, "libraries", ("onnx", "onnx_of_tomorrow"))
    with pytest.raises(ValueError, match=r"needs onnx_of_tomorrow, which is not installed; pip install 'explore\[exp"):
        FORMATS["onnx"].check()
