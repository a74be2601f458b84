"""The pieces of a page, tiles, facts, tables and pictures, and how they become one file that needs nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

Write = Callable[[Any], str]
_MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A headline number: what it is, the number, and where it comes from."""

    name: str
    number: str
    unit: str = ""
    note: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table: what people read, and the numbers that it is sorted by and copied as; None for words.

    A `wide` one has sentences.
    """

    name: str
    texts: Sequence[str]
    numbers: Sequence[float | None] | None = None
    wide: bool = False

    @property
    def known(self) -> bool:
        """Whether there is anything in it."""
        return any(text != _MISSING for text in self.texts)

    @classmethod
    def of(cls, name: str, values: Sequence[Any], write: Write = str, *, wide: bool = False) -> "Column":
        """Write each value; what is missing becomes a dash."""
        known = [value for value in values if not pd.isna(value)]
        numeric = bool(known) and all(isinstance(value, Real) and not isinstance(value, bool) for value in known)
        return cls(
            name=name,
            texts=[_MISSING if pd.isna(value) else write(value) for value in values],
            numbers=[None if pd.isna(value) else float(value) for value in values] if numeric else None,
            wide=wide,
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that can be sorted and copied. With `commands`, one for each row, the first column has trial numbers."""

    columns: Sequence[Column]
    commands: Sequence[str] = ()
    searched: bool = False  # it has a field to filter it by

    def packed(self) -> Mapping[str, Any]:
        """As the page keeps it."""
        return {
            "columns": [vars(column) for column in self.columns],
            "rows": len(self.columns[0].texts),
            "commands": self.commands,
        }


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a page. `words` say what it shows to those who cannot see it; `files` are those beside the page.

    Points with a `customdata` belong to the trial of this number: a click on one shows the command of a table.
    """

    figure: go.Figure
    words: str
    files: Sequence[str] = ()

    @property
    def height(self) -> int:
        """Height in CSS pixels, for the room that it takes before it is drawn."""
        return int(self.figure.layout.height)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page with a heading; all texts are plain, and are shown as they are. `key` is its place in links."""

    key: str
    title: str
    words: str = ""
    picture: Picture | None = None
    table: Table | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page says. `facts` are pairs of a name and a text; a command is a line that people can copy."""

    title: str
    subtitle: str
    tiles: Sequence[Tile] = ()
    words: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    commands: Sequence[str] = ()
    sections: Sequence[Section] = ()

    def html(self) -> str:
        """The whole page with all scripts and data; what it is told is text in it, never markup."""
        environment = Environment(
            loader=PackageLoader("explore.reporting", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        plotly = get_plotlyjs() if any(section.picture for section in self.sections) else ""
        return environment.get_template("page.html.j2").render(page=self, plotly=plotly)
