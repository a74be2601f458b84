"""Where a study lies: its folder, and the storage that keeps it."""

import os
import re
import textwrap
from pathlib import Path

from explore.schema import STUDY_NAMES, Config
from explore.search.storage import open_study
from explore.search.study import Study


def named_study(config: Config) -> Study:
    """The study that `study=NAME` names; raises ValueError where no name is given, or none has it."""
    if config.study is None:
        raise ValueError("study must be given, got nothing; add study=NAME, such as study=pareto")
    return open_study(study_url(config), config.study)


def output_folder(config: Config) -> Path:
    """Where the results of the configured study lie."""
    name = "sweep" if config.study is None else config.study
    if not re.fullmatch(r"\w[\w.-]{,99}", name):
        raise ValueError(f"study must be {STUDY_NAMES}, got {textwrap.shorten(name, 60)!r}")
    if "\0" in config.outputs:
        raise ValueError(f"outputs must be the path of a folder, got {config.outputs!r}")
    outputs, output = Path(config.outputs), Path(config.outputs) / name
    if os.path.islink(output) and not output.resolve().is_relative_to(outputs.resolve()):
        raise ValueError(
            f"the folder of a study must lie in outputs, got {output}, a link to {output.resolve()}; set outputs=FOLDER"
        )
    return output


def study_url(config: Config) -> str:
    """The storage of the configured study, by default an SQLite file among its results."""
    return str(config.storage.address(output_folder(config)))
