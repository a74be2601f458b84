"""The arms of an ablation as tables for papers: LaTeX with booktabs, and Markdown."""

from pathlib import Path
from typing import Any

import pandas as pd

from explore.ablation.options import Ablation
from explore.ablation.records import Findings, Scores
from explore.reporting import style
from explore.reporting.ablation_style import coverage, points, probability, word
from explore.reporting.ablation_tables import arm_rows
from explore.reporting.markdown import plain, table

_ACCURACY, _MISSING = "accuracy / %", "–"
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
    | {"<": "$<$", ">": "$>$", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "–": "--"}
)
# As wide as it is, or as the text where that is less.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%" + "\n"


def write_papers(
    options: Ablation, scores: Scores, findings: Findings | None, runs: pd.DataFrame, name: str, folder: Path
) -> None:
    """Write arms.tex and arms.md into an existing folder; `name` is that of the study."""
    rows = arm_rows(options, scores, findings, runs)
    cells, best, caption = _cells(rows, scores, options), best_told(rows), f"{name}. {note(options, scores, findings)}"
    (folder / "arms.tex").write_text(_latex(cells, best, caption, len(scores.factors)), encoding="utf-8")
    (folder / "arms.md").write_text(_markdown(cells, best, caption, len(scores.factors)), encoding="utf-8")


def best_told(rows: pd.DataFrame) -> int | None:
    """Return the place of the most accurate arm where it is told from the reference, or the reference from all others.

    `rows` are those of `arm_rows`.
    """
    compared = rows[rows["difference"].notna()]
    if compared.empty:
        return None
    best = int(rows["difference"].astype(float).argmax())
    if rows["difference"][best] > 0:
        return best if rows["different"][best] else None
    return 0 if all(compared["different"]) else None


def note(options: Ablation, scores: Scores, findings: Findings | None) -> str:
    """Say what stands in a table of arms."""
    if findings is None:
        return "Validation accuracy; no two seeds of all arms are complete yet."
    matched = "" if options.match == "none" else f" {_matched(options)}"
    return (
        f"Validation accuracy: mean over {findings.seeds} seeds ± half the {coverage(findings.level)} interval by "
        f"Student's t. Difference from {next(iter(scores.arms))} in percentage points, in pairs of equal seed; p of "
        f"the t-test of pairs after Holm, a difference is told below {findings.level:.3g}.{matched} Bold: the most "
        "accurate, where it is told from the reference."
    )


def _matched(options: Ablation) -> str:
    what = {"macs": "MACs", "params": "Parameters"}.get(options.match, options.match.capitalize())
    return f"{what} matched within {100 * options.tolerance:.3g} % by {word(options.by)}."


def _cells(rows: pd.DataFrame, scores: Scores, options: Ablation) -> pd.DataFrame:
    """The table as people read it, nothing escaped yet."""
    readable = {word(key): rows[key].map(_level) for key in scores.factors}
    if options.match != "none":
        readable[word(options.by)] = rows[options.by].map(_level)
    counts = {"parameters": ("params", style.short), "MACs": ("macs", style.short)}
    for heading, (column, write) in (counts | {"images/s": ("throughput", style.speed)}).items():
        readable[heading] = rows[column].map(lambda number, write=write: _MISSING if pd.isna(number) else write(number))
    compared = rows["arm"].isin(scores.arms)
    readable[_ACCURACY] = rows.apply(_mean, axis=1).where(compared, _MISSING)
    readable["difference / points"] = rows.apply(_difference, axis=1)
    readable["p"] = rows["p_holm"].map(lambda p: _MISSING if pd.isna(p) else probability(p))
    return pd.DataFrame(readable)


def _level(level: Any) -> str:
    return _MISSING if pd.isna(level) else style.value(level)


def _mean(row: "pd.Series[float]") -> str:
    half = row["high"] - row["val_accuracy"]
    return _MISSING if pd.isna(half) else f"{100 * row['val_accuracy']:.2f} ± {100 * half:.2f}"


def _difference(row: "pd.Series[float]") -> str:
    if pd.isna(row["difference"]):
        return _MISSING
    return f"{points(row['difference'])} [{points(row['difference_low'])}, {points(row['difference_high'])}]"


def _latex(cells: pd.DataFrame, best: int | None, caption: str, factors: int) -> str:
    written = cells.map(lambda text: text.translate(_LATEX))
    if best is not None:
        written[_ACCURACY] = _marked(written[_ACCURACY], best, "\\textbf{", "}")
    sides = "l" * factors + "r" * (cells.shape[1] - factors)
    written.columns = pd.Index([_heading(words, side) for words, side in zip(cells.columns, sides, strict=True)])
    table = written.to_latex(
        index=False,
        escape=False,
        column_format=sides,
        caption=caption.translate(_LATEX),
        position="t",
    )
    begin, rest = table.split("\n", 1)
    rest = rest.replace("\\begin{tabular}", f"\\smallskip\n{_FITTED}\\begin{{tabular}}", 1)
    rest = rest.replace("\\end{tabular}", "\\end{tabular}}", 1)
    return f"% \\usepackage{{booktabs,graphicx}}\n{begin}\n\\centering\n{rest}"


def _heading(words: str, side: str) -> str:
    """Words below one another, so that headings make no column wider than its numbers do; units stay where they are."""
    if words == "p":
        return "$p$"
    if " " not in words or " / " in words:
        return words.translate(_LATEX)
    lines = r"\\".join(line.translate(_LATEX) for line in words.split(" "))
    return rf"\shortstack[{side}]{{{lines}}}"


def _markdown(cells: pd.DataFrame, best: int | None, caption: str, factors: int) -> str:
    written = cells.map(plain)
    if best is not None:
        written[_ACCURACY] = _marked(written[_ACCURACY], best, "**", "**")
    rows = written.itertuples(index=False)
    return f"{table(list(cells.columns), rows, cells.columns[:factors])}\n\n{plain(caption)}\n"


def _marked(cells: "pd.Series[str]", best: int, before: str, after: str) -> list[str]:
    return [f"{before}{text}{after}" if place == best else text for place, text in enumerate(cells)]
