"""The page works in a real browser, without a network: every figure is drawn, the tables sort, the console is silent.

python -m pytest tests/test_page_in_browser.py -m slow      # needs Chromium or Chrome; skipped where there is none
"""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filled_studies import add, new_study
from test_stopping import searched

from explore.reporting.page import write_report
from explore.search.savings import in_words, savings
from explore.search.study import Study

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")]


class Text(HTMLParser):
    """The words of a page outside scripts and styles."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self._inside = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.words += data.split()


def opened(page: Path, folder: Path) -> tuple[str, list[str]]:
    """The page as it is after its scripts ran, and what they said on the console."""
    assert BROWSER
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += [
        "--enable-logging=stderr",
        "--log-level=0",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=3000",
    ]
    # Nothing may be fetched: every name leads nowhere.
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking"]
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def study_with_stopped_trials() -> Study:
    study, _ = searched(18)
    study.note("ended", "It ended after 18 candidates: none was expected to add 0.2% to the hypervolume of the front.")
    return study


def test_the_page_of_a_search_that_stopped_early(tmp_path: Path) -> None:
    study = study_with_stopped_trials()
    dom, console = opened(write_report(study, tmp_path / "report"), tmp_path)
    assert console == []
    saved = savings(study.trials())
    assert saved is not None
    assert f"{in_words(saved)} {study.notes['ended']}" in " ".join(Text(dom).words)
    drawn = re.findall(r'<svg class="main-svg"', dom)
    figures = re.findall(r"data-figure=", dom)
    assert len(figures) >= 2
    assert len(drawn) >= len(figures), "a figure was not drawn"


def test_the_console_is_heard(tmp_path: Path) -> None:
    """Otherwise the tests above could not fail."""
    study = new_study()
    add(study)
    page = write_report(study, tmp_path / "report")
    page.write_text(page.read_text().replace("<body>\n", "<body>\n<script>undefined.x</script>\n"))
    [said] = opened(page, tmp_path)[1]
    assert "Uncaught TypeError" in said
