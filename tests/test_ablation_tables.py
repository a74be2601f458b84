"""The tables of an ablation have every number, and those for papers mark the best only where it is told."""

import re
import shutil
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ablations import invented
from rich.console import Console

from explore.reporting.ablation_papers import best_told, write_papers
from explore.reporting.ablation_tables import arm_rows, write_tables
from explore.reporting.ablation_terminal import arms_table


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return invented(failing="s2 + swiglu")


def test_arms_have_what_was_found_of_them(found: dict[str, Any]) -> None:
    rows = arm_rows(*found.values()).set_index("arm")
    assert list(rows.index) == [*found["scores"].arms, "s2 + swiglu"]
    table = found["scores"].accuracies["attention + mlp"]
    row = rows.loc["attention + mlp"]
    assert (row["val_accuracy"], row["sd"]) == pytest.approx((table.mean(), table.std()))
    assert (row["seeds"], row["model.width"], row["params"], row["throughput"]) == (
        8,
        68,
        67_322,
        pytest.approx(35_700),
    )
    assert row["difference"] == pytest.approx((table - found["scores"].accuracies["mlp + mlp"]).mean())
    assert row["different"]
    assert pd.isna(rows.loc["mlp + mlp", "difference"]), "the reference is not compared with itself"
    left_out = rows.loc["s2 + swiglu"]
    assert (left_out["seeds"], left_out["reason"]) == (7, "RuntimeError: out of memory")
    assert pd.isna(left_out["difference"])


def test_tables_have_every_run_and_every_difference(found: dict[str, Any], tmp_path: Path) -> None:
    write_tables(*found.values(), tmp_path)
    arms, runs, differences, effects = (
        pd.read_csv(tmp_path / f"{name}.csv") for name in ("arms", "runs", "differences", "effects")
    )
    assert len(arms) == 10
    assert (len(runs), runs["trial"].tolist(), runs.columns[-1]) == (80, list(range(80)), "command")
    assert runs["command"].str.startswith("python -m explore.train token_mixing=").all()
    assert runs["val_accuracy"].isna().sum() == 1
    assert len(differences) == 4 + 1 + 8
    assert differences["mean"][0] == found["findings"].levels[0].mean
    assert list(effects["of"]) == ["token_mixing", "token_mixing × channel_mixing"]
    assert ",64,61322,1204224,21000.0," in (tmp_path / "arms.csv").read_text()


def test_whole_numbers_stay_whole_beside_an_arm_that_was_never_run(found: dict[str, Any], tmp_path: Path) -> None:
    runs = found["runs"]
    idle = runs["arm"] == "s2 + swiglu"
    runs = runs.assign(**{name: runs[name].where(~idle) for name in ("params", "macs", "model.width", "val_accuracy")})
    write_tables(found["options"], found["scores"], found["findings"], runs, tmp_path)
    assert "64.0" not in (tmp_path / "arms.csv").read_text()
    assert "61322.0" not in (tmp_path / "runs.csv").read_text()


@pytest.mark.parametrize(
    ("differences", "told", "best"),
    [
        ([0.01, 0.02], [True, True], 2),
        ([0.01, 0.02], [True, False], None),
        ([-0.01, -0.02], [True, True], 0),
        ([-0.01, -0.02], [False, True], None),
        ([None, None], [None, None], None),
    ],
)
def test_the_best_is_marked_only_where_it_is_told(differences: list[Any], told: list[Any], best: int | None) -> None:
    rows = pd.DataFrame({"arm": ["a", "b", "c"], "difference": [None, *differences], "different": [None, *told]})
    assert best_told(rows) == best


def test_papers_have_the_numbers_and_mark_the_best(found: dict[str, Any], tmp_path: Path) -> None:
    write_papers(*found.values(), "mixings", tmp_path)
    latex, markdown = (tmp_path / "arms.tex").read_text(), (tmp_path / "arms.md").read_text()
    rows = arm_rows(*found.values()).set_index("arm")
    best = rows.loc["convolution + swiglu"]
    written_as = f"{100 * best['val_accuracy']:.2f} $\\pm$ {100 * (best['high'] - best['val_accuracy']):.2f}"
    assert re.findall(r"\\textbf{(.*?)}", latex) == [written_as]
    assert re.findall(r"\*\*(.*?)\*\*", markdown) == [written_as.replace("$\\pm$", "±")]
    assert r"attention & mlp & 68 & 67.3 k & 1.21 M & 35,700 & " in latex
    assert latex.index(r"\toprule") < latex.index(r"\midrule") < latex.index(r"\bottomrule")
    assert "| s2 | swiglu | 74 | 76.3 k | 1.21 M | 57,750 | – | – | – |" in markdown, "what failed has no accuracy"
    assert "MACs matched within 2 % by width" in markdown


def test_names_are_escaped_in_papers(tmp_path: Path) -> None:
    ablation = invented({"my_factor": ["50% & more", r"a|b *c* \d {e} ~f^ <g>\n#h$"]})
    write_papers(*ablation.values(), "a_study", tmp_path)
    latex, markdown = (tmp_path / "arms.tex").read_text(), (tmp_path / "arms.md").read_text()
    assert r"50\% \& more &" in latex
    assert r"a\textbar{}b *c* \textbackslash{}d \{e\} \textasciitilde{}f\textasciicircum{} $<$g$>$" in latex
    assert r"a\_study" in latex
    assert r"| a\|b \*c\* \\d {e} \~f^ \<g\>" in markdown
    body = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in body}) == 1, "every row has the same cells"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex; apt-get install texlive-latex-recommended")
@pytest.mark.parametrize("columns", ["", "twocolumn"])
def test_latex_takes_the_table_and_it_fits_into_the_text(found: dict[str, Any], tmp_path: Path, columns: str) -> None:
    odd = invented({"my_factor": ["50% & more", r"a|b *c* \d {e} ~f^ <g>\n#h$"], "model.depth": [1, 2]})
    for ablation in (found, odd):
        write_papers(*ablation.values(), "a_study", tmp_path)
        [packages] = re.findall(r"^% (\\usepackage.*)", (tmp_path / "arms.tex").read_text())
        document = rf"\documentclass[{columns}]{{article}}{packages}\begin{{document}}\input{{arms}}\end{{document}}"
        (tmp_path / "paper.tex").write_text(document)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert "Output written on paper.pdf (1 page" in done.stdout
        assert "Overfull" not in done.stdout
        assert "Missing character" not in (tmp_path / "paper.log").read_text()


def test_the_terminal_shows_every_arm(found: dict[str, Any]) -> None:
    console = Console(width=120, record=True, file=StringIO())
    console.print(arms_table(arm_rows(*found.values()), "[mixings]"))
    lines = console.export_text().splitlines()
    assert lines[0].startswith("[mixings]")
    assert len(lines) == 12
    assert re.fullmatch(
        r"attention \+ mlp +96\.\d\d ± 0\.\d\d % +8 +\+0\.\d\d +< 0\.001 +35,700 +67,322 +1\.21 M *", lines[4]
    )
