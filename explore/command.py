"""What every command has in common: help within a moment, overrides, one clear message for bad input.

Nothing heavy is imported here: `--help` must not wait for torch.
"""

import ast
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from explore.faults import unwritable
from explore.imports import lasting

if TYPE_CHECKING:
    from explore.schema import Config

_PACKAGE = Path(__file__).parent
_BAD_INPUT = 2
INTERRUPTED = 130
# Flags of Hydra that show something; those that would run something belong to the sweep.
_QUESTIONS = {"-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--hydra-help", "--version"}
_WAYS_TO_ANSWER = {"-p", "--package", "--resolve"}
_QUESTIONS_IN_WORDS = """Every key with its value: add --cfg job
Tab completion in bash:   eval "$(python -m explore.train -sc install=bash)\""""
# Hydra's own completes `python FILE.py` only.
_COMPLETION = """_explore_complete() {
    local words=($COMP_LINE)
    [[ ${words[1]} == -m && ${words[2]} == explore.* ]] || return
    local choices=$(COMP_LINE="$COMP_LINE" ${words[0]} -m ${words[2]} -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "${COMP_WORDS[COMP_CWORD]}"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _explore_complete python python3"""


class Refused(Exception):  # noqa: N818 - said to a person, not raised at one
    """Input that cannot work; its text is all that a person needs."""


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn the ValueErrors of checks into refusals; outside of this, a ValueError is a mistake of ours."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error)) from error


def run(
    main: "Callable[[Config, list[str]], int]",
    text: str,
    meanwhile: Callable[[], None] = lambda: None,
    own: Callable[[str], bool] = lambda word: False,
) -> NoReturn:
    """Run a command on the overrides of the command line; `text` is its help.

    `meanwhile` is called before the heavy imports, for what can go on beside them. `own` tells the words that `main`
    alone understands: it gets them among the overrides, but the configuration does not. Exits with the status that
    `main` returns, and with 2 for bad input.
    """
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(text.strip() + "\n\n" + _choices())
        sys.exit(0)
    try:
        meanwhile()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(_run(main, arguments, own))


def make_folder(folder: Path) -> None:
    """Make a folder for results; refuses one that cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or "it failed").lower()
        raise Refused(f"outputs must be a folder that can be written to, got {folder} ({reason})") from error


def refuse(reason: Exception, arguments: Sequence[str]) -> int:
    """Say what a person has to mend, as JSON too where the arguments ask for that; returns the status to exit with."""
    print(f"explore: {reason}", file=sys.stderr)
    if "format=json" in arguments:
        print(json.dumps({"error": str(reason)}))
    return _BAD_INPUT


def _run(
    main: "Callable[[Config, list[str]], int]",
    arguments: list[str],
    own: Callable[[str], bool] = lambda word: False,
) -> int:
    try:
        if flags := {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}:
            return _show(flags, arguments)
        return main(_composed([one for one in arguments if not own(one)]), arguments)
    except Refused as refusal:
        return refuse(refusal, arguments)
    except BrokenPipeError:
        # Whoever read the output, `head` for instance, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if not (fault := unwritable(error)):
            raise
        return refuse(fault, arguments)


def _composed(overrides: list[str]) -> "Config":
    with lasting():
        from explore.config import compose

    with refusing_bad_input():
        return compose(overrides)


def _show(flags: set[str], arguments: list[str]) -> int:
    """Answer a question about the configuration; nothing is run."""
    if not flags & _QUESTIONS or flags - _QUESTIONS - _WAYS_TO_ANSWER:
        known = ", ".join(sorted(_QUESTIONS | _WAYS_TO_ANSWER))
        raise Refused(f"a setting must be written KEY=VALUE, got {' '.join(sorted(flags))}; flags are --help, {known}")
    if flags & {"-sc", "--shell-completion"} and "install=bash" in arguments:
        print(_COMPLETION)
    elif flags <= {"-c", "--cfg"} and {"job", "--cfg=job"} & set(arguments):
        from explore.config import as_yaml

        with refusing_bad_input():
            print(as_yaml([one for one in arguments if one != "job" and not one.startswith("-")]), end="")
    else:
        _ask_hydra()
    return 0


def _ask_hydra() -> None:
    """Let Hydra answer, as its documentation says."""
    import hydra
    from omegaconf import DictConfig

    from explore.config import CONF
    from explore.schema import register
    from explore.search.secrets import refuse_passwords

    def nothing(config: DictConfig) -> None:
        """Questions are answered before the task would run."""

    with refusing_bad_input():
        refuse_passwords(sys.argv[1:])
    register()
    # Hydra knows `python FILE.py` only.
    os.environ["COMP_LINE"] = re.sub(r"^\S+ +-m +", "", os.environ.get("COMP_LINE", ""))
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(nothing)()


def _choices() -> str:
    """The options of every group, read from the source: importing the networks would take seconds."""
    groups = {
        "+sweep": sorted(path.stem for path in _conf().glob("sweep/*.yaml")),
        "data": _keys("data/options.py", "SOURCES"),
        "model": ["isotropic", *_published()],
        "token_mixing": _keys("architecture/token_mixing/catalog.py", "TOKEN_MIXINGS"),
        "channel_mixing": _keys("architecture/channel_mixing/catalog.py", "CHANNEL_MIXINGS"),
        "sampler": _samplers(),
        "storage": _keys("search/options.py", "STORAGES"),
        "cluster": _keys("cluster/options.py", "CLUSTERS"),
    }
    lines = [
        textwrap.fill(", ".join(names), 120, initial_indent=f"  {group + '=':16} ", subsequent_indent=" " * 19)
        for group, names in groups.items()
    ]
    return "\n".join(["Choices:", *lines, "", _QUESTIONS_IN_WORDS])


def _published() -> list[str]:
    """The names of published models, those of a family together."""
    from explore.architecture.published import PUBLISHED

    families: dict[str, list[str]] = {}
    for name in PUBLISHED:
        family, _, variant = name.partition("_")
        families.setdefault(family, []).append(variant)
    return [f"{family}_{{{','.join(variants)}}}" for family, variants in families.items()]


def _samplers() -> list[str]:
    """Those of Optuna and our own, which are no samplers to it."""
    own = (("search/samplers.py", "SPEED_AWARE"), ("ablation/options.py", "PAIRED"))
    return sorted([*_keys("search/samplers.py", "SAMPLERS"), *(ast.literal_eval(_assigned(*each)) for each in own)])


def _conf() -> Path:
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _PACKAGE.parent / "conf"


def _keys(file: str, catalog: str) -> list[str]:
    """The keys of a dict that a source file assigns to the name `catalog`."""
    value = _assigned(file, catalog)
    if not isinstance(value, ast.Dict):
        raise LookupError(f"{catalog} is not a dict in {file}")
    return sorted(str(key.value) for key in value.keys if isinstance(key, ast.Constant))


def _assigned(file: str, name: str) -> ast.expr:
    """What a source file assigns to a name."""
    for node in ast.parse((_PACKAGE / file).read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.expr) and any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return value
    raise LookupError(f"{name} is not assigned in {file}")


def print_json(value: object) -> None:
    """Print a result for machines."""
    print(json.dumps(value, indent=2))
