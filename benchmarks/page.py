"""How soon the report of a long search is there, in a real headless browser.

    python -m benchmarks.page [format=json] [trials=10000] [repeats=7]

A study with so many finished trials is made and reported on. Each repeat starts a browser, waits until it is at rest,
opens the page for the first time, and once more. Figures are medians, beside them the quartiles: seconds
from the navigation to the load event, when words and tables are there, and until the picture of the front is drawn,
both in wall time; and how long the page's main thread computed until then, because browsers share a machine with
others. Bars: 2 s for each of the first two, and 15 MB for the page.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import parse
from benchmarks.browser import Browser, browser
from benchmarks.filled_study import fill
from benchmarks.origin import print_json
from benchmarks.result_rows import Row, row, shown
from explore.config import compose, has_option
from explore.reporting.report import write_report
from explore.search.space import parse_space
from explore.search.storage import open_storage
from explore.search.study import create_study

SECONDS, MEGABYTES = 2.0, 15.0
FIRST, AGAIN = "opened for the first time", "opened again"
_REST_SECONDS = 3.0
# Twice the next frame: the first begins before the browser has painted what is drawn.
_DRAWN = """new Promise((done) => {
  const look = () => document.querySelector("#front-figure .main-svg .points")
    ? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() / 1000)))
    : setTimeout(look, 5);
  look();
})"""
_LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"


def written(trials: int, folder: Path) -> Path:
    """The report of a study with so many trials."""
    config = compose(["+sweep=pareto"])
    space = parse_space(config.space, lambda key, values: has_option(key, values, config))
    url = f"sqlite:///{folder / 'study.db'}"
    study = create_study(open_storage(url), "many", {"space": {}})
    fill(url, "many", space, trials)
    return write_report(study, folder)


def opened(page: Path, tab: Browser) -> dict[str, float]:
    """Seconds by what they were measured of."""
    tab.open(page)
    drawn = float(tab.evaluate(_DRAWN))
    if tab.console:
        raise RuntimeError(f"the page must be silent, got {tab.console}")
    loaded = float(tab.evaluate(_LOADED))
    return {"loaded": loaded, "picture drawn": drawn, "main thread": tab.processor_seconds()}


def rows(seconds: Sequence[tuple[str, dict[str, float]]], megabytes: float) -> list[Row]:
    """Rows of name, value, unit, bar, whether it holds, and the quartiles of several values."""
    found: list[Row] = []
    for when in (FIRST, AGAIN):
        for what in ("loaded", "picture drawn", "main thread"):
            values = [each[what] for time, each in seconds if time == when]
            bar = None if what == "main thread" else SECONDS
            found.append(row(f"{when}: {what}", values, "s", at_most=bar))
    return [*found, row("size of the page", megabytes, "MB", at_most=MEGABYTES)]


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    options = parse(arguments, __doc__, {"trials": 10_000, "repeats": 7})
    seconds: list[tuple[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        page = written(options["trials"], Path(name))
        for _ in range(options["repeats"]):
            with browser() as tab:
                tab.look()
                time.sleep(_REST_SECONDS)
                seconds += [(when, opened(page, tab)) for when in (FIRST, AGAIN)]
        result = rows(seconds, page.stat().st_size / 1e6)
    if options["format"] == "json":
        print_json(result)
        return
    print("\n".join(map(shown, result)))


if __name__ == "__main__":
    main(sys.argv[1:])
