"""What the pictures, tables and pages of an ablation share: words, colours, shapes and the order of things."""

import textwrap
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations, count
from typing import Any

import pandas as pd

from explore.ablation.records import Difference, Findings, Scores
from explore.ablation.words import coverage as covered
from explore.evaluation import COMPLETE
from explore.reporting import style
from explore.reporting.intervals import student

BETTER, WORSE = style.COLOURS[0], style.COLOURS[3]
_ABOVE = 0.04  # of the height of an axis of accuracies is left free above the highest band
_LEAST_HEIGHT = 0.1  # of such an axis, where all are the same, in percentage points


@dataclass(frozen=True, kw_only=True)
class Mark:
    """How an arm is drawn: its colour says the level of the first factor, its shape those of all others.

    `rest` names these others and is empty with one factor; `shape` counts them.
    """

    first: str
    rest: str
    colour: str
    shape: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is said of a difference, and how it is drawn: filled where it is told, square where it is negligible."""

    words: str
    colour: str
    told: bool
    negligible: bool


def verdict(difference: Difference) -> Verdict:
    """Say what the tests and the margin say of a difference."""
    told, negligible = difference.different, difference.negligible
    words = ("better" if difference.mean > 0 else "worse") if told else "" if negligible else "not told"
    colour = (BETTER if difference.mean > 0 else WORSE) if told else style.GREY
    return Verdict(
        words=", ".join(filter(None, [words, "negligible" if negligible else ""])),
        colour=colour,
        told=told,
        negligible=negligible,
    )


def listed(findings: Findings) -> list[str | Difference]:
    """The differences in the order that they are shown, each after its heading.

    Those of whole arms are left out where they say the same as those of the levels of the only factor.
    """
    found: dict[str, list[Difference]] = {}
    for difference in findings.levels:
        found.setdefault(f"{word(difference.of)} against {difference.against}", []).append(difference)
    if len({difference.of for difference in findings.levels}) != 1:
        for difference in findings.arms:
            found.setdefault(f"arms against {difference.against}", []).append(difference)
    rows: list[str | Difference] = []
    for heading, differences in found.items():
        rows += [heading, *differences]
    return rows


def marks(scores: Scores) -> Mapping[str, Mark]:
    """Give each arm its colour and shape."""
    first = next(iter(scores.factors), "")
    colours, shapes = level_colours(scores), dict[str, int]()
    given = {}
    for name, levels in scores.arms.items():
        others = [key for key in scores.factors if key != first and key in levels]
        rest = ", ".join(f"{word(key)} {style.value(levels[key])}" for key in others)
        level = levels.get(first)
        given[name] = Mark(
            first="none" if level is None else style.value(level),
            rest=rest,
            colour=colours.get((first, level), style.GREY),
            shape=shapes.setdefault(rest, len(shapes)),
        )
    return given


def level_colours(scores: Scores) -> Mapping[tuple[str, Hashable], str]:
    """Give each level of each factor its colour, the same in every picture; of eight levels no two are alike."""
    turn = count()
    return {
        (key, level): style.COLOURS[next(turn) % len(style.COLOURS)]
        for key, levels in scores.factors.items()
        for level in levels
    }


def crossings(scores: Scores) -> list[tuple[str, str, pd.DataFrame]]:
    """Return each two factors that are crossed, with a table of accuracies: a row per seed, a column per two levels.

    Accuracies are averaged over the other factors. Two levels that lack an arm which others have are missing, because
    their average would be of something else.
    """
    found = []
    for first, second in combinations(scores.factors, 2):
        arms: dict[tuple[Any, Any], list[str]] = {}
        for name, levels in scores.arms.items():
            if first in levels and second in levels:
                arms.setdefault((levels[first], levels[second]), []).append(name)
        most = max(map(len, arms.values()), default=0)
        cells = {key: scores.accuracies[names].mean(axis=1) for key, names in arms.items() if len(names) == most}
        if all(len({key[side] for key in cells}) > 1 for side in (0, 1)) and len(scores.accuracies):
            found.append((first, second, pd.DataFrame(cells)))
    return found


def aside(number: int, of: int) -> float:
    """How far a line's points stand beside the place of their level, so that intervals do not cover one another."""
    return (number - (of - 1) / 2) * min(0.06, 0.6 / of)


def curves(scores: Scores, runs: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Return the learning curves of each arm that has some: a row per run that is complete, a column per epoch.

    Of arms that are compared, and of the seeds that are, where there are any.
    """
    complete = runs[(runs["status"] == COMPLETE) & runs["arm"].isin(scores.arms)]
    if len(scores.accuracies):
        complete = complete[complete["seed"].isin(scores.accuracies.index)]
    by_arm = dict(tuple(complete.groupby("arm")["curve"]))
    tables = {name: pd.DataFrame(list(by_arm[name])) for name in scores.arms if name in by_arm}
    return {name: table.rename(columns=lambda epoch: epoch + 1) for name, table in tables.items() if table.size}


def bounds(tables: Mapping[str, pd.DataFrame], level: float) -> tuple[float, float]:
    """Return where an axis of accuracies in percent begins and ends: no band is cut but in the first quarter of the
    epochs, which may lie below it, nor does it go beyond 0 and 100.

    Where all begin to learn would squeeze into a line what they differ in.
    """
    lows, highs = [], []
    for table in tables.values():
        shown = table.iloc[:, (table.shape[1] - 1) // 4 :]
        mean, half = 100 * shown.mean(), 100 * student(shown, level).fillna(0.0)
        lows.append(float((mean - half).min()))
        highs.append(float((mean + half).max()))
    high = max(*highs, _LEAST_HEIGHT)
    low = max(min(*lows, high - _LEAST_HEIGHT), 0.0)
    return low, min(high + _ABOVE * (high - low), 100.0)


def word(key: str) -> str:
    """A config key as people say it: `token mixing`, `patch size`."""
    return key.removeprefix("model.").replace("_", " ").replace(".", " ")


def clipped(text: str, most: int = 32) -> str:
    """Cut what is too long for a picture."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def points(fraction: float) -> str:
    """Write a difference of accuracies in percentage points: `+0.42`."""
    return signed(100 * fraction)


def signed(number: float) -> str:
    """Write a number with its sign and two digits after the point: `−0.42`."""
    written = f"{number:+.2f}".replace("-", "−")
    return "0.00" if written[1:] == "0.00" else written


def percent(fraction: float) -> str:
    """Write an accuracy as finely as differences are looked at: `97.31 %`."""
    return f"{100 * fraction:.2f} %"


def probability(p: float) -> str:
    """Write a p-value: `0.021`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def captions(findings: Findings | None, level: float, margin: float) -> Mapping[str, str]:
    """Say under each picture what is drawn; `level` is that of the intervals, `margin` a fraction."""
    interval, seeds = f"{coverage(level)} interval", f"{findings.seeds if findings else 'few'} seeds"
    bootstrap = f", {coverage(findings.bootstrap_level)}" if findings else ""
    if findings and findings.bootstrap_level > findings.level:
        bootstrap += f": what {seeds} allow at most"
    means = (
        f"Mean over {seeds}, with the {interval} without what the seeds have in common (Cousineau 2005, corrected by "
        "Morey 2008)."
    )
    return {
        "forest": (
            f"Mean over {seeds} of the differences in pairs of equal seed, with the {interval} by Student's t (thick) "
            f"and by bootstrap (thin{bootstrap}). Shaded: less than ±{100 * margin:.3g} points, which is of no "
            "interest."
        ),
        "interaction": f"{means} Parallel lines mean that the two factors do not interact.",
        "plane": f"{means} Throughput with its 95 % interval.",
        "curves": f"Mean over {seeds} with its {interval} by Student's t.",
    }


def coverage(level: float) -> str:
    """Write what an interval of `1 - level` covers: `95.75 %`."""
    return covered(level, digits=2)


def wrapped(text: str, width: int) -> str:
    """Break a note under a picture into lines."""
    return "\n".join(textwrap.wrap(text, width))
