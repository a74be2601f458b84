"""A study keeps the settings with which it began, and refuses others, however many begin it at once.

python -m pytest tests/test_study_settings.py
"""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.study import StudyDirection
from PIL import Image

from explore.config import compose
from explore.plan import begin, prepare
from explore.search.storage import open_storage
from explore.search.study import Study, create_study

DEFINITION = {"space": {"x": "range(100)"}, "data": {"name": "digits", "val": 0.2}}


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def opened(folder: Path, definition: Mapping[str, Any] = DEFINITION) -> Study:
    return create_study(open_storage(url(folder)), "table", definition)


def test_of_two_who_begin_a_study_with_other_settings_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the other one has not written its own yet."""
    first, second = open_storage(url(tmp_path)), open_storage(url(tmp_path))
    made, write = threading.Event(), Study.note

    def late(study: Study, key: str, value: Any) -> None:
        made.set()
        time.sleep(0.5)
        write(study, key, value)

    monkeypatch.setattr(Study, "note", late)
    with ThreadPoolExecutor(1) as thread:
        begun = thread.submit(create_study, first, "table", DEFINITION)
        assert made.wait(60)
        with pytest.raises(ValueError, match="study table exists with other settings"):
            create_study(second, "table", {"space": {}})
        assert begun.result().definition == DEFINITION


def test_another_definition_is_refused_with_what_differs(tmp_path: Path) -> None:
    opened(tmp_path)
    assert opened(tmp_path).definition == DEFINITION
    other = {"space": {"x": "range(50)"}, "data": {"name": "digits", "val": 0.2}, "precision": "32"}
    with pytest.raises(ValueError, match="study table exists with other settings") as refused:
        opened(tmp_path, other)
    message = str(refused.value)
    assert "space.x: the study has 'range(100)', you ask for 'range(50)'" in message
    assert "precision: the study has None, you ask for '32'" in message
    assert "take another name (study=NAME)" in message
    assert "data" not in message
    assert opened(tmp_path).definition == DEFINITION


def test_a_study_that_was_stopped_before_its_definition_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explore.search.study._DEFINING_SECONDS", 0.2)
    storage = open_storage(url(tmp_path))
    storage.create_new_study([StudyDirection.MAXIMIZE] * 2, "table")
    assert opened(tmp_path).definition == DEFINITION


def test_where_the_images_lie_is_no_other_setting_while_they_are_the_same(tmp_path: Path) -> None:
    before = {**DEFINITION, "images": "abc", "data": {"source": "folder", "path": "/x/shapes", "val": 0.2}}
    opened(tmp_path, before)
    elsewhere = {**before, "data": {**before["data"], "path": "/y/shapes/"}}
    opened(tmp_path, elsewhere)
    assert opened(tmp_path, before).definition == before
    with pytest.raises(ValueError, match="exists with other settings") as refused:
        opened(tmp_path, {**elsewhere, "images": "def"})
    assert "data.path: the study has '/x/shapes', you ask for '/y/shapes/'" in str(refused.value)
    assert "images: the study has 'abc', you ask for 'def'" in str(refused.value)


def test_a_study_without_a_fingerprint_keeps_the_path_of_its_images(tmp_path: Path) -> None:
    opened(tmp_path, {"space": {}, "data": {"path": "/x"}})
    with pytest.raises(ValueError, match=r"data\.path: the study has '/x', you ask for '/y'"):
        opened(tmp_path, {"space": {}, "data": {"path": "/y"}})


def test_a_search_goes_on_with_its_images_under_another_path(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    shoes = tmp_path / "shoes"
    for name in ("boots", "sandals"):
        (shoes / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(shoes / name / f"{number}.png")

    def going_on(path: Path | str) -> Study:
        options = ["+sweep=smoke", "data=folder", f"data.path={path}", "training.batch_size=8", "references=[]"]
        options += [f"data.cache={tmp_path / 'cache'}", f"outputs={tmp_path / 'results'}"]
        return begin(prepare(compose(options), options))

    going_on(shoes)
    going_on(f"{shoes}/")
    (tmp_path / "link").symlink_to(shoes)
    going_on(tmp_path / "link")
    moved = shoes.rename(tmp_path / "moved")
    assert f"data.path={moved}" in going_on(moved).notes["overrides"], "what workers elsewhere look for"
    (moved / "boots" / "0.png").unlink()
    with pytest.raises(ValueError, match="\n  images: the study has"):
        going_on(moved)
