"""The picture of docs/search.md tells of every candidate once, what became of it."""

import importlib.util
import sys
from pathlib import Path

from PIL import Image
from test_stopping import trial

from explore.evaluation import COMPLETE

SCRIPT = Path(__file__).parents[1] / "docs" / "make_search_picture.py"


def test_every_candidate_has_its_fate_and_is_drawn(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec
    assert spec.loader
    maker = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = maker
    spec.loader.exec_module(maker)
    trials = [
        trial(0, 900.0),
        trial(1, 800.0, 0.2),
        trial(2, 700.0, 0.3, 0.4, 0.5),
        trial(3, 600.0, *[0.9] * 9, status=COMPLETE),
        trial(4, 500.0, *[0.8] * 9, status=COMPLETE),
        trial(5, 950.0, 0.1),
    ]
    fates = {fate.name: [one.number for one in fate.trials] for fate in maker.fates(trials)}
    assert fates == {
        "measured, not trained": [0],
        "stopped after 1 epoch": [1, 5],
        "stopped after 3 epochs": [2],
        "complete": [4],
        "on the front": [3],
    }
    maker.draw(trials, tmp_path / "search.png")
    with Image.open(tmp_path / "search.png") as picture:
        assert picture.size == (2000, 960)
