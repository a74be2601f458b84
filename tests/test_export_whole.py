"""From a search to a file that is read without this package: the same answers to real images, in every format.

python -m pytest -m slow tests/test_export_whole.py
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import MLP, build
from small_sweeps import WHOLE, study_of, sweep, trials_of

from explore import export, train
from explore.architecture.catalog import Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.command import _run
from explore.config import compose
from explore.data.dataset import Dataset, load
from explore.exporting.form import FromPixels
from explore.exporting.formats import FORMATS
from explore.search.rivals import results
from explore.search.trial import front
from explore.training.checkpoint import CHECKPOINT

pytestmark = pytest.mark.slow
PAIRS = [(name, "mlp") for name in TOKEN_MIXINGS] + [("mlp", name) for name in CHANNEL_MIXINGS]
BOTH = [f"format={name}" for name in FORMATS]
# What a user runs who has the file alone: explore must not be there, and numpy reads the images.
ALONE = {
    ".pt2": """
import json, sys
sys.modules["explore"] = None
import numpy, torch
extra = {"facts.json": ""}
network = torch.export.load(sys.argv[1], extra_files=extra).module()
classes = json.loads(json.loads(extra["facts.json"])["classes"])
images = torch.from_numpy(numpy.load(sys.argv[2]))
with torch.no_grad():
    logits = torch.cat([network(part) for part in images.split(100)])
""",
    ".onnx": """
import json, sys
sys.modules["explore"] = sys.modules["torch"] = None
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
images = numpy.load(sys.argv[2])
logits = numpy.concatenate([session.run(None, {"images": images[i:i + 100]})[0] for i in range(0, len(images), 100)])
""",
}
END = 'json.dump({"classes": classes, "answers": logits.argmax(1).tolist()}, sys.stdout)'


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("token", "channel"), PAIRS, ids="-".join)
def test_every_mixing_can_be_exported(token: str, channel: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = Model.of({"patch_size": 4, "depth": 1, "width": 16})
    shape = architecture(options, Mixing(name=token), Mixing(name=channel), image_size=16, channels=3, classes=10)
    _holds(Network(shape), kind, tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "class_token"},
        {"norm": "batch", "block": "post_norm"},
        {"norm": "group", "positions": "fixed"},
        {"norm": "affine", "layer_scale": 0.1},
    ],
    ids=str,
)
def test_other_options_can_be_exported(options: dict[str, Any], kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    token = Mixing(name="attention") if "pooling" in options else MLP
    _holds(Network(build(token, **options)), kind, tmp_path)


def _holds(network: Network, name: str, folder: Path) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                module.running_mean.normal_()
        network.head.weight.mul_(50)
    classifier = FromPixels(network.eval().deployed(), (0.5, 0.4, 0.3), (0.3, 0.2, 0.1)).eval()
    FORMATS[name].write(classifier, (3, 16, 16), {"classes": "[]"}, folder / "network")
    exported = FORMATS[name].read(folder / "network", torch.device("cpu"), 1)
    pixels = torch.randint(256, (7, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = classifier(pixels)
        assert expected.std() > 0.01
        for batch in (1, 2, 7):
            torch.testing.assert_close(exported(pixels[:batch]), expected[:batch], rtol=1e-4, atol=1e-5)


def exported(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = _run(export.main, [*words, *BOTH, "format=json"], export.own)
    return status, json.loads(capsys.readouterr().out)


def answers(artifact: dict[str, Any], dataset: Dataset, folder: Path) -> dict[str, Any]:
    """What someone gets who has the file, the test images, and not this package."""
    file = Path(artifact["file"])
    np.save(folder / "images.npy", dataset.test.images.numpy())
    program = ALONE[file.suffix] + END
    command = [sys.executable, "-c", program, str(file.resolve()), str(folder / "images.npy")]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_front_of_a_search_works_without_this_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = tmp_path / "results"
    assert sweep(outputs, *WHOLE, "tracking.mode=disabled") == 0
    members = front(results(study_of(outputs)))  # by the speeds that were compared in the end
    status, result = exported(capsys, "study=smoke", "trial=front", f"outputs={outputs}")
    assert (status, result["failures"]) == (0, [])
    assert [(one["trial"], one["format"]) for one in result["artifacts"]] == [
        (trial.number, name) for trial in members for name in FORMATS
    ]
    dataset = load(compose(["data=digits"]).data)
    tests = json.loads(json.dumps(dataset.test.labels.tolist()))
    for one in result["artifacts"]:
        alone = answers(one, dataset, tmp_path)
        assert alone["classes"] == list(dataset.classes)
        right = sum(answer == label for answer, label in zip(alone["answers"], tests, strict=True)) / len(tests)
        assert right == pytest.approx(one["test_accuracy"])
        assert right == pytest.approx(one["original_test_accuracy"])
        assert one["largest_difference"] < 1e-4
        assert one["exported"]["images_per_second"] > 0
        card = Path(one["card"]).read_text()
        assert f"accuracy on {len(tests):,} test images" in card
        assert f"{100 * right:.1f} % (95 % interval" in card
        assert f"python -m explore.export study=smoke trial={one['trial']} format={one['format']}" in card
    assert not list((outputs / "smoke" / "export").glob(".*")), "nothing unfinished is left"
    # As after an interruption before the last one.
    Path(result["artifacts"][-1]["file"]).unlink()
    status, again = exported(capsys, "study=smoke", "trial=front", f"outputs={outputs}")
    assert status == 0
    assert [one["kept"] for one in again["artifacts"]] == [True] * (len(result["artifacts"]) - 1) + [False]
    assert again["artifacts"][:-1] == [{**one, "kept": True} for one in result["artifacts"][:-1]]
    assert Path(again["artifacts"][-1]["file"]).exists()


def test_a_network_whose_weights_are_gone_is_trained_again_by_the_command_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = tmp_path / "results"
    assert sweep(outputs, *WHOLE, "tracking.mode=disabled", "trials=2") == 0
    (*_, trial) = front(trials_of(outputs))
    words = ("study=smoke", f"trial={trial.number}", f"outputs={outputs}")
    _, before = exported(capsys, *words)
    (outputs / "smoke" / trial.folder / CHECKPOINT).unlink()
    status, result = exported(capsys, *words)
    (failure,) = result["failures"]
    assert status == 1
    assert "with its checkpoint kept" in failure
    command = shlex.split(failure.splitlines()[-1])
    assert command[:3] == ["python", "-m", "explore.train"]
    assert _run(train.main, [*command[3:], "tracking.mode=disabled"]) == 0
    status, after = exported(capsys, *words)
    assert status == 0
    assert after["artifacts"][0]["test_accuracy"] == pytest.approx(before["artifacts"][0]["test_accuracy"], abs=0.05)


def test_classes_of_a_folder_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for index, name in enumerate(("boots", "sandals", "slippers")):
        (tmp_path / "shoes" / name).mkdir(parents=True)
        for number in range(30):
            pixels = generator.integers(0, 100, (8, 8, 3), dtype=np.uint8)
            pixels[..., index] += 120
            Image.fromarray(pixels).save(tmp_path / "shoes" / name / f"{number}.png")
    data = ["data=folder", f"data.path={tmp_path / 'shoes'}"]
    outputs = tmp_path / "results"
    more = ["tracking.mode=disabled", "trials=2", "training.batch_size=16", "training.epochs=5"]
    assert sweep(outputs, *WHOLE, *data, *more) == 0
    status, result = exported(capsys, "study=smoke", "trial=front", f"outputs={outputs}")
    assert status == 0
    dataset = load(compose(data).data)
    for one in result["artifacts"]:
        assert answers(one, dataset, tmp_path)["classes"] == ["boots", "sandals", "slippers"]
        assert "boots, sandals, slippers" in Path(one["card"]).read_text()
    moved = (tmp_path / "shoes").rename(tmp_path / "moved")
    words = ("study=smoke", "trial=front", f"outputs={outputs}")
    status, again = exported(capsys, *words, f"data.path={moved}")
    assert (status, len(again["artifacts"])) == (0, len(result["artifacts"]))
    for gone in ((), (f"data.path={tmp_path / 'nowhere'}",)):
        status, result = exported(capsys, *words, *gone)
        assert status == 2
        assert "which does not exist" in result["error"]
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(moved / "boots" / "another.png")
    status, result = exported(capsys, *words, f"data.path={moved}")
    assert status == 1
    assert "the images must be those of the study" in result["failures"][0]
