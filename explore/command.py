"""What every command has in common: help within a moment, overrides, one clear message for bad input.

Nothing heavy is imported here: `--help` must not wait for torch.
"""

import ast
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from explore.config import Config

_PACKAGE = Path(__file__).parent
_BAD_INPUT = 2
_INTERRUPTED = 130


class Refused(Exception):  # noqa: N818 - said to a person, not raised at one
    """Input that cannot work; its text is all that a person needs."""


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn the ValueErrors of checks into refusals; outside of this, a ValueError is a mistake of ours."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error)) from error


def run(main: "Callable[[Config, list[str]], int]", text: str) -> NoReturn:
    """Run a command on the overrides of the command line; `text` is its help.

    Exits with the status that `main` returns, and with 2 for bad input.
    """
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(text.strip() + "\n\n" + _choices())
        sys.exit(0)
    if any(argument.startswith("-") for argument in arguments):
        _hand_to_hydra(main)
    sys.exit(_run(main, arguments))


def _run(main: "Callable[[Config, list[str]], int]", arguments: list[str]) -> int:
    from explore.config import compose

    try:
        with refusing_bad_input():
            config = compose(arguments)
        return main(config, arguments)
    except Refused as refusal:
        print(f"explore: {refusal}", file=sys.stderr)
        if "format=json" in arguments:
            print(json.dumps({"error": str(refusal)}))
        return _BAD_INPUT
    except KeyboardInterrupt:
        return _INTERRUPTED


def _hand_to_hydra(main: "Callable[[Config, list[str]], int]") -> NoReturn:
    """Hydra's own flags (--cfg job, --info, --shell-completion ...) do what Hydra's documentation says."""
    import hydra
    from omegaconf import DictConfig

    from explore.config import CONF, register

    def task(config: DictConfig) -> None:
        overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        sys.exit(_run(main, overrides))

    register()
    sys.argv[1:] += ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled"]
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    sys.exit(0)


def _choices() -> str:
    """The options of every group, read from the source: importing the networks would take seconds."""
    groups = {
        "+sweep": sorted(path.stem for path in _conf().glob("sweep/*.yaml")),
        "data": _keys("data/options.py", "SOURCES"),
        "model": [
            "isotropic",
            "and published ones: mixer_{s32,s16,b32,b16,l32,l16,h14}, vit_{ti16,s32,s16,b32,b16,l16}",
        ],
        "token_mixing": _keys("architecture/token_mixing/catalog.py", "TOKEN_MIXINGS"),
        "channel_mixing": _keys("architecture/channel_mixing/catalog.py", "CHANNEL_MIXINGS"),
        "sampler": _keys("search/samplers.py", "SAMPLERS"),
    }
    lines = [f"  {group + '=':16} {', '.join(names)}" for group, names in groups.items()]
    return (
        "Choices:\n" + "\n".join(lines) + "\n\nEvery key with its value: add --cfg job. Tab completion: --hydra-help."
    )


def _conf() -> Path:
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _PACKAGE.parent / "conf"


def _keys(file: str, catalog: str) -> list[str]:
    """The keys of a dict that a source file assigns to the name `catalog`."""
    for node in ast.parse((_PACKAGE / file).read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict) and any(isinstance(t, ast.Name) and t.id == catalog for t in targets):
            return sorted(str(key.value) for key in value.keys if isinstance(key, ast.Constant))
    raise LookupError(f"{catalog} is not a dict in {file}")


def print_json(value: object) -> None:
    """Print a result for machines."""
    print(json.dumps(value, indent=2))
