"""The page works in a real browser, without a network: pictures are drawn and answer, tables sort, filter and copy.

Light and dark, on a phone, with ten thousand trials, and with a silent console.

python -m pytest tests/test_page_in_browser.py -m slow      # needs Chromium or Chrome; skipped where there is none
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from filled_studies import add, new_study
from filled_studies import searched as many_searched
from test_seeds import study_with_seeds
from test_stopping import searched

from benchmarks.browser import BROWSER, Browser, browser
from benchmarks.page import written
from explore.reporting.report import write_report
from explore.search.savings import in_words, savings
from explore.search.study import Study

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")]

REFERENCES = [{"name": "mixer_s16", "throughput": 9000.0, "note": "<b>not</b> trained here"}]
DRAWN = """new Promise((done) => {
  dispatchEvent(new Event("beforeprint"));
  const figures = [...document.querySelectorAll(".figure")];
  const drawn = () => figures.every((one) => one.querySelector(".main-svg"));
  const look = () => drawn() ? setTimeout(done, 300, figures.length) : setTimeout(look, 20);
  look();
})"""
CELLS = "[...document.querySelector('#trials-table').tBodies[0].rows].map((row) => row.cells[%d].textContent)"


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as tab:
        yield tab


def seen(tab: Browser, study: Study, folder: Path) -> int:
    """Open the report of a study, and return how many pictures are drawn."""
    tab.open(write_report(study, folder / "report"))
    return int(tab.evaluate(DRAWN))


def place(tab: Browser, selector: str, index: int = 0) -> tuple[float, float]:
    """The middle of an element, which is scrolled to."""
    found = f"document.querySelectorAll({selector!r})[{index}]"
    tab.evaluate(f"{found}.scrollIntoView({{block: 'center'}})")
    box = tab.evaluate(
        f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({found}.getBoundingClientRect())"
    )
    return float(box[0]), float(box[1])


def test_the_page_of_a_search_that_stopped_early(tab: Browser, tmp_path: Path) -> None:
    study, _ = searched(18)
    study.note("ended", "It ended after 18 candidates: none was expected to add 0.2% to the hypervolume of the front.")
    tab.look()
    assert seen(tab, study, tmp_path) >= 2
    saved = savings(study.trials())
    assert saved is not None
    shown = tab.evaluate("document.body.innerText")
    assert in_words(saved) in shown
    assert study.notes["ended"] in shown
    assert tab.console == []


def test_tables_sort_filter_and_can_be_copied(tab: Browser, tmp_path: Path) -> None:
    tab.look()
    seen(tab, many_searched(24), tmp_path)
    tab.evaluate("window.said = []; navigator.clipboard.writeText = async (text) => { said.push(text); }")
    assert tab.evaluate(CELLS % 0) == [str(number) for number in range(24)]
    tab.point(*place(tab, "#trials-table th button", 3), click=True)  # images/s
    assert tab.evaluate(CELLS % 0) == [str(number) for number in reversed(range(24))]
    tab.point(*place(tab, "#trials-table th button", 3), click=True)
    assert tab.evaluate(CELLS % 0) == [str(number) for number in range(24)]
    typed = "const field = document.querySelector('[data-filter=trials]'); field.value = 'Attention swiglu'; "
    tab.evaluate(f"(() => {{ {typed} field.dispatchEvent(new Event('input')); }})()")
    assert set(tab.evaluate(CELLS % 10)) == {"swiglu"}
    kept = len(tab.evaluate(CELLS % 0))
    assert 0 < kept < 24
    assert f"{kept} of 24 rows" in tab.evaluate("document.body.innerText")
    tab.point(*place(tab, "[data-table=trials]"), click=True)
    names, *lines = [line.split("\t") for line in tab.evaluate("said[0]").splitlines()]
    assert (names[0], names[3], names[-1]) == ("trial", "images/s", "command")
    assert len(lines) == kept
    assert {len(line) for line in lines} == {len(names)}
    assert float(lines[0][3]) == 50_000 / (int(lines[0][0]) + 1)
    tab.point(*place(tab, "#trials-table tbody button"), click=True)
    assert tab.evaluate("said[1]") == lines[0][-1] == f"python -m explore.train model.depth={int(lines[0][0]) + 1}"
    assert tab.console == []


def test_points_tell_what_they_are_and_give_their_command(tab: Browser, tmp_path: Path) -> None:
    tab.look()
    study = many_searched(24)
    study.note("references", REFERENCES)
    seen(tab, study, tmp_path)
    tab.evaluate("window.said = []; navigator.clipboard.writeText = async (text) => { said.push(text); }")
    for figure in ("front", "curves"):
        x, y = place(tab, f"#{figure}-figure .scatterlayer .point", 4)
        tab.point(x, y)
        tab.evaluate("new Promise((done) => setTimeout(done, 300))")
        hovered = tab.evaluate(f"document.querySelector('#{figure}-figure .hoverlayer').textContent")
        assert "#" in hovered, figure
        tab.point(x, y, click=True)
        tab.evaluate("new Promise((done) => setTimeout(done, 400))")
        command = tab.evaluate("said.at(-1)")
        assert command.startswith("python -m explore.train model.depth="), figure
        assert tab.evaluate("document.querySelector('#told code').textContent") == command
        number = int(command.rpartition("=")[2]) - 1
        assert f"#{number}" in hovered
        tab.evaluate("document.querySelector('[data-close]').click()")
        assert tab.evaluate("document.querySelector('#told').hidden")
    assert "<b>not</b> trained here" in tab.evaluate("document.body.innerText")
    assert tab.console == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_screens_and_follows_light_and_dark(tab: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    tab.look(width=width, dark=dark)
    study = study_with_seeds()
    study.note("references", REFERENCES)
    add(study, status="failed", reason="RuntimeError: " + "a long reason " * 20)
    assert seen(tab, study, tmp_path) == 3
    assert tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    luminance = "(([r, g, b]) => (r + g + b) / 3)(getComputedStyle(%s).%s.match(/\\d+/g).map(Number))"
    behind = tab.evaluate(luminance % ("document.body", "backgroundColor"))
    assert (behind < 60) if dark else (behind > 200)
    for text in ("'#front-figure .xtitle'", "'#front-figure .legendtext'", "'td'", "'.soft'"):
        kind = "fill" if "figure" in text else "color"
        before = tab.evaluate(luminance % (f"document.querySelector({text})", kind))
        assert abs(before - behind) > 80, f"{text} cannot be read"
    assert tab.console == []


def test_ten_thousand_trials_can_be_sorted_and_scrolled(tab: Browser, tmp_path: Path) -> None:
    tab.look()
    tab.open(written(10_000, tmp_path))
    tab.evaluate(DRAWN)
    drawn = len(tab.evaluate(CELLS % 0))
    assert 50 <= drawn <= 500, "not all rows at once"
    tab.evaluate(
        "((box) => { box.scrollTop = box.scrollHeight; })(document.querySelector('#trials-table').parentElement)"
    )
    tab.evaluate("new Promise((done) => setTimeout(done, 300))")
    assert len(tab.evaluate(CELLS % 0)) > drawn
    tab.point(*place(tab, "#trials-table th button", 0), click=True)
    tab.point(*place(tab, "#trials-table th button", 0), click=True)
    assert tab.evaluate(CELLS % 0)[0] == "9999"
    assert tab.console == []


def test_the_console_is_heard(tab: Browser, tmp_path: Path) -> None:
    """Otherwise the tests above could not fail."""
    study = new_study()
    add(study)
    page = write_report(study, tmp_path / "report")
    page.write_text(page.read_text().replace("<body>\n", "<body>\n<script>undefined.x</script>\n"))
    tab.open(page)
    [said] = tab.console
    assert "Uncaught TypeError" in said
