"""The configuration: what people write, composed by Hydra, and refused in words where it cannot be.

Hydra ends here: what `compose` returns are plain dataclasses.
"""

import copy
import difflib
import importlib
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache, reduce
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from explore.architecture.catalog import hyperparameters, nearest, one_of, schema
from explore.architecture.spec import Model, options_in_stages, set_in_every_stage
from explore.schema import CATALOGS, KINDS, STUDY_NAMES, Config, register
from explore.search.secrets import refuse_passwords

FORMATS = ("text", "json")
_GROUPS = (*CATALOGS, *KINDS, "model", "sweep")
# How Hydra words what people get wrong, and what they should read instead.
_REWORDED = (
    (r"Ambiguous value for argument '\+*(.+?)=(.*?)'", "{0} takes one value, got {1}; {2}"),
    (r"Sweep parameters '\+*(.+?)=(.*)' requires", "{0} takes one value, got {1}; {2}"),
    (r"Multiple values for ([\w/]+)\.", "{0} must be given once, got it twice"),
    (r"An item is already at '(.+?)'", "{0} has a value already, which is replaced without +; write {0}=VALUE"),
    (r"Could not override '(.+?)'\. No match in the defaults list", "{0} has no default to replace; write +{0}=NAME"),
    (r"Could not override '(.+?)'\.\s+To append to your config", "{0} has no value to replace; write +{0}=VALUE"),
    (r"Error merging override '?\++(.+?)=(.*)", "{0} must have a value of its type, got {1}"),
)
_URLS = ("storage.url", "storage.database", "warm_start.url")
_COMPOSING = threading.Lock()  # Hydra keeps its state in one place for all threads
_INSTALLED, _REPOSITORY = Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf"
CONF = _INSTALLED if _INSTALLED.is_dir() else _REPOSITORY


def compose(overrides: Sequence[str]) -> Config:
    """Compose the configuration from `conf/` and overrides in Hydra's grammar.

    Two overrides are our own: `imports=[my_mixings]` imports modules first, which may add entries to the catalogs, and
    `space.model.depth=range(1, 7)` sets a dimension of the search space, which `~space.model.depth` removes. A value
    that begins with `~/` lies in the home folder.
    Raises ValueError for an unknown key or option and for a value of the wrong type, with what there is instead.
    """
    composed = _composed(tuple(overrides))
    with _errors_for_people():
        config: Config = OmegaConf.to_object(composed)  # type: ignore[assignment]
    _check_stages(config.model, overrides)
    if config.format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {config.format!r}")
    return config


def _check_stages(model: Model, overrides: Sequence[str]) -> None:
    """Refuse what would be ignored: options for a variant that does not exist, and what the stages set themselves."""
    for key in ("model.depth", "model.width", *CATALOGS):
        given = next((one for one in overrides if one.lstrip("+").startswith((f"{key}=", f"{key}."))), None)
        if given and set_in_every_stage(model, key.removeprefix("model.")):
            raise ValueError(
                f"{key} must be set in model.stages, where every stage of this model has its own, got {given}; "
                "leave it out, or write model.stages anew"
            )
    for index, group, name, options in options_in_stages(model):
        one_of(f"a {group} in model.stages[{index}]", name, CATALOGS[group])
        for option in options:
            if any(override.startswith(f"{group}.{option}=") for override in overrides):
                raise ValueError(
                    f"{group}.{option} must be set in model.stages, where each stage of this model has its own, got it "
                    "for all; leave it out, or write model.stages anew"
                )


def vary(base: Sequence[str], overrides: Sequence[str], keys: Collection[str] | None = None) -> Config:
    """The same as `compose([*base, *overrides])`, many times faster where the overrides are those of a search.

    Values and variants of mixings are set in a copy of what `base` composes to, which is kept; their types are those
    of the space, which was checked. Anything else is composed. Raises ValueError for an override of what is not among
    `keys`: those of a study may come from a storage that others write to.
    """
    parsed = [_parsed(override) for override in overrides]
    if foreign := [one for one in parsed if keys is not None and one.key_or_group not in keys]:
        raise ValueError(f"a trial must be of the space {', '.join(keys or ())}, got {foreign[0].input_line}")
    if any("." not in one.key_or_group and one.key_or_group not in CATALOGS for one in parsed):
        return compose([*base, *overrides])
    config = copy.deepcopy(_base(tuple(base)))
    for override in parsed:
        *path, name = override.key_or_group.split(".")
        value: Any = override.value()
        if override.key_or_group in CATALOGS:
            value = _variant(tuple(base), name, value)
        setattr(reduce(getattr, path, config), name, value.text if isinstance(value, QuotedString) else value)
    return config


def _variant(base: tuple[str, ...], group: str, name: str) -> Any:
    """A variant of a mixing, with the options that `base` sets for all; to compose takes long where it sets none."""
    own = getattr(_base(base), group)
    if own == type(own)() and not any(override.lstrip("+").startswith(f"{group}.") for override in base):
        return schema(name, CATALOGS[group][name])()
    return copy.deepcopy(getattr(_base((*base, f"{group}={name}")), group))


@lru_cache(maxsize=4096)
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


@cache
def _base(overrides: tuple[str, ...]) -> Config:
    return compose(overrides)


def as_yaml(overrides: Sequence[str]) -> str:
    """The composed configuration, every key with its value; raises ValueError as `compose` does."""
    return OmegaConf.to_yaml(_composed(tuple(overrides)))


def has_option(key: str, values: Mapping[str, Any], base: Config) -> bool:
    """Whether a dimension exists, given the variants chosen: `token_mixing.heads` is an option of `attention` only."""
    group, _, option = key.partition(".")
    if group not in CATALOGS or not option:
        return True
    name = values.get(group) or getattr(base, group).name
    return name not in CATALOGS[group] or option in hyperparameters(CATALOGS[group][name])


def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with _COMPOSING:
        return _compose(overrides)


@lru_cache(maxsize=64)
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    refuse_passwords(overrides)
    dimensions, remaining = _split_off_dimensions(import_extensions(overrides))
    register(published=False)
    for override in remaining:
        _check_form(override)
    if not GlobalHydra.instance().is_initialized():
        hydra.initialize_config_dir(str(CONF), version_base="1.3")
    given = [_in_home(override) for override in remaining]
    with _errors_for_people():
        try:
            config = hydra.compose("config", given)
        except MissingConfigException:
            register()
            config = hydra.compose("config", given)
    _refuse_unknown_keys(config)
    refuse_passwords([f"{key}={OmegaConf.select(config, key)}" for key in _URLS])  # from a file
    config.space = _space({str(key): str(text) for key, text in config.space.items()}, dimensions)
    return config


def _split_off_dimensions(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Dimensions of the space, whose keys have dots and whose values Hydra would take for a sweep, and the rest."""
    dimensions = [override for override in overrides if override.lstrip("+~").startswith("space.")]
    return dimensions, [override for override in overrides if override not in dimensions]


def _space(space: dict[str, str], overrides: Sequence[str]) -> dict[str, str]:
    for override in overrides:
        key, _, text = override.lstrip("+~").removeprefix("space.").partition("=")
        if override.startswith("~"):
            if key not in space:
                known = ", ".join(space) or "none"
                raise ValueError(f"~space.{key} must name a dimension of the space, which has {known}")
            del space[key]
        elif not text.strip():
            raise ValueError(f"space.{key} must be a dimension, got nothing; try 'space.{key}=choice(1, 2)'")
        else:
            quoted = text[0] == text[-1] and text[0] in "'\"" and len(text) > 1
            space[key] = text[1:-1] if quoted else text
    return space


def _check_form(override: str) -> None:
    """Refuse what Hydra accepts without effect, or refuses without saying where it stands."""
    key, equals, value = override.lstrip("+").partition("=")
    if override.startswith("~"):
        raise ValueError(f"a key cannot be removed, got {override!r}; give it another value")
    if not key or not equals:
        raise ValueError(f"{override!r} must be written KEY=VALUE")
    if key in _GROUPS and not re.search(r"[A-Za-z]", value.replace("null", "")):
        raise ValueError(f"{key} must be the name of an option, got {value or 'nothing'}; leave it out for the default")


def _in_home(override: str) -> str:
    """Write `~/` out: a shell does not, because it stands behind `=`, and Hydra has another meaning for it."""
    key, _, value = override.partition("=")
    if value != "~" and not value.startswith("~/"):
        return override
    path = str(Path(value).expanduser()).replace("'", "\\'")
    return f"{key}='{path}'"


@contextmanager
def _errors_for_people() -> Iterator[None]:
    try:
        yield
    except MissingConfigException as error:
        raise ValueError(_unknown_option(error)) from error
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key} must be given, got nothing; add {error.full_key}=VALUE") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explained(error)) from error


def import_extensions(overrides: Sequence[str]) -> list[str]:
    """Import the modules that `imports=[...]` names, which may extend the catalogs; returns the other overrides."""
    remaining = []
    for override in overrides:
        if not override.startswith("imports="):
            remaining.append(override)
            continue
        for module in override.removeprefix("imports=").strip("[]").split(","):
            try:
                importlib.import_module(module.strip())
            except ImportError as error:
                raise ValueError(
                    f"imports must name modules that Python finds, got {module.strip()}: {error}"
                ) from error
    return remaining


def _refuse_unknown_keys(node: DictConfig, path: str = "") -> None:
    """Refuse what `+` has slipped past the schema."""
    kind = OmegaConf.get_type(node)
    if not is_dataclass(kind):
        return
    known = [item.name for item in fields(kind)]
    for key in node:
        if str(key) not in known:
            raise ValueError(_unknown_key(f"{path}{key!s}", path, known))
        if not OmegaConf.is_missing(node, key) and isinstance(child := node[key], DictConfig):
            _refuse_unknown_keys(child, f"{path}{key!s}.")


def _explained(error: BaseException) -> str:
    """The cause in one sentence, without Hydra's advice for developers."""
    for cause in _causes(error):
        key = getattr(cause, "full_key", None)
        parent = getattr(cause, "parent_node", None)
        if key and isinstance(parent, DictConfig) and is_dataclass(OmegaConf.get_type(parent)):
            file = re.match(r"In '(.+?)':", str(error))
            return _wrong_value(key, parent, cause) + (f" (in {file[1]}.yaml)" if file else "")
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        if key == "study":
            return f"study must be {STUDY_NAMES}, got {value!r}; letters are those from a to z"
        return (
            f"{error.override!r} cannot be read; a value with brackets, commas or quotes in it is written "
            f"{key}='\"VALUE\"', with both kinds of quotes"
        )
    for pattern, words in _REWORDED:
        if found := re.search(pattern, str(error)):
            key, value = found[1], found[2] if found.re.groups > 1 else ""
            return words.format(key, value, f"to search over several, write 'space.{key}=choice(...)'")
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key", "object_type", "reference")))


def _wrong_value(key: str, parent: DictConfig, cause: BaseException) -> str:
    group, _, name = key.rpartition(".")
    known = [item.name for item in fields(OmegaConf.get_type(parent))]  # type: ignore[arg-type]
    if name not in known:
        if owners := _owners(group, name):
            return f"unknown key {key}; only {', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
        if group not in CATALOGS:
            kinds = KINDS.get(group, {}).items()
            chosen = [f"{group}={kind}" for kind, options in kinds if OmegaConf.get_type(parent) is options]
            return _unknown_key(key, chosen[0] if chosen else group, known)
        known.remove("name")
        return _unknown_key(key, f"{group}={parent.name}", known)
    rule = str(cause).splitlines()[0]
    kind = next(item.type for item in fields(OmegaConf.get_type(parent)) if item.name == name)  # type: ignore[arg-type]
    if is_dataclass(kind) and "is not Optional" not in rule:
        inner = [item.name for item in fields(kind)]
        return f"{key} has options of its own, {', '.join(inner)}; write {key}.{inner[0]}=VALUE"
    if "is not a ListConfig" in rule:
        return f"{key} must be a list, got one value; write {key}=[VALUE] or {key}=[VALUE,VALUE]"
    if number := re.fullmatch(r"Value '(.*)' of type '.*' could not be converted to (Integer|Float)", rule):
        return _wrong_number(key, number[1], whole=number[2] == "Integer")
    if word := re.match(r"Value '(.*)' is not a valid bool", rule):
        return f"{key} must be true or false (on or off), got {word[1]}"
    return f"{key} must have a value, got null" if "is not Optional" in rule else f"{key}: {rule}"


def _wrong_number(key: str, value: str, *, whole: bool) -> str:
    """What to say of a value that is none, and of a fraction of what only other kinds of the group share out."""
    group, _, name = key.rpartition(".")
    sharing = [
        f"{group}={kind}"
        for kind, options in KINDS.get(group, {}).items()
        if any(item.name == name and item.type is float for item in fields(options))
    ]
    rule = f"{key} must be a {'whole ' if whole else ''}number, got {value}"
    return f"{rule}; fractions are for {' and '.join(sharing)}" if whole and sharing else rule


def _owners(group: str, option: str) -> list[str]:
    """The other variants of a group that have an option."""
    if kinds := KINDS.get(group):
        return [f"{group}={name}" for name, kind in kinds.items() if option in (item.name for item in fields(kind))]
    catalog = CATALOGS.get(group, {})
    return [f"{group}={name}" for name, mixing in catalog.items() if option in hyperparameters(mixing)]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unknown_key(key: str, where: str, known: Sequence[str]) -> str:
    word = key.rpartition(".")[2]
    beside = [key.removesuffix(word) + match for match in difflib.get_close_matches(word, known, n=1)]
    near = beside or [
        f"{item.name}.{match}"
        for item in fields(Config)
        if is_dataclass(item.type) and key == word  # whoever names a group means that one
        for match in difflib.get_close_matches(word, [inner.name for inner in fields(item.type)], n=1)
    ]
    hint = f"; did you mean {near[0]}?" if near else ""
    place = where.strip(".") or "the configuration"
    return f"unknown key {key}; {place} has {', '.join(known) or 'no options'}{hint}"


def _unknown_option(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(CATALOGS.get(group) or error.options or [])
    return f"{group or 'config'} must be one of {', '.join(options)}, got {name!r}{nearest(name, options)}"
