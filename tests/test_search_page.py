"""The picture of docs/search.md tells of every candidate once, what became of it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from filled_studies import add
from PIL import Image
from test_stopping import trial

from explore.evaluation import COMPLETE
from explore.search.storage import open_storage
from explore.search.study import create_study

SCRIPT = Path(__file__).parents[1] / "docs" / "make_search_picture.py"


def maker_of_pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec
    assert spec.loader
    maker = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = maker
    spec.loader.exec_module(maker)
    return maker


def test_every_candidate_has_its_fate_and_is_drawn(tmp_path: Path) -> None:
    maker = maker_of_pictures()
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


def test_it_is_drawn_beside_the_study_or_where_it_is_asked_for(tmp_path: Path) -> None:
    """The picture of the documentation is that of one study, and not of the last that somebody drew."""
    folder = tmp_path / "mine"
    folder.mkdir()
    study = create_study(open_storage(f"sqlite:///{folder}/study.db"), "mine", {"space": {}})
    for accuracy, speed in ((0.9, 1000.0), (0.8, 2000.0)):
        add(study, accuracy, speed)
    before = (SCRIPT.parent / "search.png").read_bytes()
    maker = maker_of_pictures()
    maker.main([str(folder)])
    maker.main([str(folder), str(tmp_path / "other.png")])
    assert (folder / "search.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    assert (SCRIPT.parent / "search.png").read_bytes() == before
    with pytest.raises(SystemExit, match="needs the output folder of a study and perhaps a file, got nothing"):
        maker.main([])
