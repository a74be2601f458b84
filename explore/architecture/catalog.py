"""What every mixing has in common: a name, hyperparameters read from its constructor, and a line in a catalog.

A mixing is a class `Mixing(grid, width, *, option: type = default, ...)`. Its keyword-only parameters are its
hyperparameters: the configuration schema, the error messages and the search space follow from that signature. A
catalog is a plain dict from a name to such a class. Nothing here needs torch.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from types import NoneType
from typing import Any, NamedTuple, Self, TypeVar, get_args

T = TypeVar("T")


class Grid(NamedTuple):
    """The patches of an image: rows × columns; tokens are the patches row by row."""

    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Number of patches."""
        return self.height * self.width


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """A choice from a catalog: its name there, and the hyperparameters that differ from the defaults."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: str | Mapping[str, Any]) -> Self:
        """Reads `"mlp"` or `{"name": "mlp", "expansion": 1.0}`; a name alone means the defaults of that mixing.

        Raises `ValueError` for anything else.
        """
        if isinstance(given, str):
            return cls(name=given)
        if isinstance(given, Mapping) and isinstance(given.get("name"), str):
            return cls(name=given["name"], options={key: value for key, value in given.items() if key != "name"})
        raise ValueError(f"a mixing must be a name or a mapping with a name, got {given!r}; try mlp or {{name: mlp}}")


class Hyperparameter(NamedTuple):
    """One keyword-only parameter of a mixing."""

    name: str
    type: Any
    default: Any


@cache  # a search asks thousands of times for each of its proposals
def hyperparameters(constructor: Callable[..., object]) -> Mapping[str, Hyperparameter]:
    """The keyword-only parameters of a mixing, in the order of its signature.

    Raises `TypeError` when one has no annotation or no default: the configuration could not offer it.
    """
    found = {}
    for parameter in inspect.signature(constructor, eval_str=True).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.annotation is parameter.empty or parameter.default is parameter.empty:
            raise TypeError(f"a hyperparameter needs a type and a default, got {parameter} in {constructor!r}")
        found[parameter.name] = Hyperparameter(parameter.name, parameter.annotation, parameter.default)
    return found


@cache
def schema(name: str, constructor: Callable[..., object]) -> type:
    """A dataclass with the field `name` and one field for each hyperparameter: the options of one catalog entry."""
    fields: list[Any] = [("name", str, name)]
    fields += [(one.name, one.type, one.default) for one in hyperparameters(constructor).values()]
    title = "".join(part.capitalize() for part in name.split("_"))
    return make_dataclass(title, [(key, kind, field(default=default)) for key, kind, default in fields], kw_only=True)


def construct(kind: str, catalog: Mapping[str, Callable[..., T]], mixing: Mixing, grid: Grid, width: int) -> T:
    """Builds the chosen mixing for a grid of patches with `width` channels each.

    `kind` is what the catalog lists (`token_mixing`, `channel_mixing`); the messages begin with it. Raises
    `ValueError` for an unknown name, an unknown option, an option of the wrong type, and what the mixing refuses.
    """
    constructor = catalog[one_of(kind, mixing.name, catalog)]
    known = hyperparameters(constructor)
    for name, value in mixing.options.items():
        one_of(f"an option of {kind}={mixing.name}", name, known)
        if not _fits(value, known[name].type):
            raise ValueError(f"{kind}.{name} must be {_written(known[name].type)}, got {value!r} for {mixing.name}")
    return constructor(grid, width, **mixing.options)


def one_of(what: str, value: str, allowed: Iterable[str]) -> str:
    """Returns `value` when it is allowed; raises `ValueError` with the allowed values and the nearest one if not."""
    names = sorted(allowed)
    if value in names:
        return value
    rule = f"must be one of {', '.join(names)}" if names else "cannot be given, there are none"
    raise ValueError(f"{what} {rule}, got {value!r}{nearest(str(value), names)}")


def nearest(value: str, names: Iterable[str]) -> str:
    """Asks whether the nearest of the names was meant, as the end of a message; empty where none is near."""
    near = difflib.get_close_matches(value, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _fits(value: object, annotation: Any) -> bool:
    allowed = get_args(annotation) or (annotation,)
    # Python takes a bool for an int; a configuration that says `heads: true` is a mistake.
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, allowed) or (float in allowed and isinstance(value, int))


def _written(annotation: Any) -> str:
    allowed = get_args(annotation) or (annotation,)
    return " or ".join("null" if one is NoneType else one.__name__ for one in allowed)
