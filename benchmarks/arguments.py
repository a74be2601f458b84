"""The arguments of a benchmark: help, `KEY=VALUE` read as its defaults are, one clear line for all else."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import inf, nan
from typing import Any

from explore.architecture.catalog import nearest, one_of
from explore.command import refuse

_FORMATS = ("text", "json")
_HELP = {"-h", "--help", "help"}


def parse(
    arguments: Sequence[str],
    doc: str,
    defaults: Mapping[str, object],
    choices: Mapping[str, Collection[str]] = {},
    words: Sequence[str] = (),
) -> dict[str, Any]:
    """The value of each key, as given or by default, and of `format`, which every benchmark has.

    A value has the type of its default: text, a number, or a tuple, which is written as a list with commas, or with
    semicolons where a choice has a comma itself. A type in place of a default is a number that must be given. Numbers
    are not negative, and 0 only where the default is, where they must be given, and in a list. Text is one of its
    `choices`; that of a list without choices is one of its default. `words` may stand beside the keys.

    Prints `doc` and exits with 0 where help is asked for. Exits with 2 and a line on stderr for what is no KEY=VALUE,
    an unknown key, one that is missing, and a value that is no such number or no choice.
    """
    if _HELP & set(arguments):
        print(doc.strip())
        sys.exit(0)
    known: dict[str, Any] = {**defaults, "format": _FORMATS[0]}
    allowed = {**choices, "format": _FORMATS}
    with refusing(arguments):
        given = dict(_pair(one, known, words) for one in arguments if one not in words)
        if missing := [key for key, default in known.items() if isinstance(default, type) and key not in given]:
            raise ValueError(f"{missing[0]} must be given, got none; add {missing[0]}=NUMBER")
        return known | {key: _read(key, text, known[key], allowed.get(key)) for key, text in given.items()}


@contextmanager
def refusing(arguments: Sequence[str]) -> Iterator[None]:
    """Where a check inside raises ValueError, the command ends with its text on stderr and status 2."""
    try:
        yield
    except ValueError as error:
        sys.exit(refuse(error, arguments))


def check_installed(*modules: str) -> None:
    """Raise ValueError where others' networks that are compared with are not installed."""
    if missing := [name for name in modules if not find_spec(name)]:
        install = f"pip install {' '.join(modules)}".replace("_", "-")
        raise ValueError(f"{', '.join(modules)} must be installed, got no {missing[0]}; {install}")


def _pair(argument: str, known: Collection[str], words: Sequence[str]) -> tuple[str, str]:
    key, given, text = argument.partition("=")
    keys = f"keys are {', '.join(known)}"
    if not given:
        raise ValueError(f"an argument must be {' or '.join(['KEY=VALUE', *words])}, got {argument}; {keys}")
    if key not in known:
        raise ValueError(f"unknown key {key}; {keys}{nearest(key, known)}")
    return key, text


def _read(key: str, text: str, default: Any, allowed: Collection[str] | None) -> Any:
    if isinstance(default, type):
        return _one(key, text, default(), None)
    if not isinstance(default, tuple):
        return _one(key, text, default, allowed)
    if isinstance(default[0], str):
        allowed = allowed or default
    separator = ";" if any("," in one for one in allowed or ()) else ","
    return tuple(_one(key, one, type(default[0])(), allowed) for one in text.split(separator))


def _one(key: str, text: str, default: str | float, allowed: Collection[str] | None) -> str | float:
    if isinstance(default, str):
        return one_of(key, text, allowed) if allowed else text
    try:
        value = type(default)(text)
    except ValueError:
        value = nan
    if 0 < value < inf or value == default == 0:
        return value
    rule = f"a {'whole ' * isinstance(default, int)}number {'above' if default else 'of at least'} 0"
    raise ValueError(f"{key} must be {rule}, got {text!r}")
