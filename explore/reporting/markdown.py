"""Tables and text in Markdown."""

import re
from collections.abc import Collection, Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$])")


def plain(text: str) -> str:
    """What Markdown shows as the text itself, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """A command in a cell of a table, where a bar would end the cell."""
    return f"`{text.replace('|', chr(92) + '|')}`"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[str]) -> str:
    """A table of cells in Markdown; the columns named in `words` are flush left, those of numbers flush right."""
    rule = ["---" if column in words else "---:" for column in columns]
    lines = [map(plain, columns), rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
