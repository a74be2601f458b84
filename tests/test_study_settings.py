"""A study keeps the settings with which it began, and refuses others, however many begin it at once.

python -m pytest tests/test_study_settings.py
"""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optuna.study import StudyDirection

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
