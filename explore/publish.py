"""python -m explore.publish study=NAME [tracking.project=NAME] [tracking.entity=TEAM]

Saves a workspace and a report of a study in W&B, where its runs were logged. Needs `pip install 'explore[publish]'`,
a login, and the runs: those of a study offline are sent first. Typed again it writes both anew, in the same place.

  wandb sync outputs/pareto/wandb/offline-run-*
  python -m explore.publish study=pareto
"""

import importlib.util
from typing import TYPE_CHECKING

from explore.command import Refused, print_json, refusing_bad_input, run

if TYPE_CHECKING:
    from explore.schema import Config


def main(config: "Config", overrides: list[str]) -> int:
    """Read the study, and save its pages."""
    from explore.tracking import default_entity, require_key

    with refusing_bad_input():
        _require_library()
        require_key("explore.publish")
    from explore.places import named_study, output_folder

    with refusing_bad_input():
        study, folder = named_study(config), output_folder(config)
    from explore import boards

    asked = config.tracking
    try:
        entity = asked.entity or default_entity()
        with refusing_bad_input():
            board = boards.board_of(study, folder, entity=entity, project=asked.project)
        place = f"{entity}/{asked.project}"
        published = study.notes.get("published", {})
        links = boards.save(board, published.get(place, {}))
    except Refused:
        raise
    except Exception as error:
        runs = folder / "wandb" / "offline-run-*"
        raise Refused(f"W&B did not take it: {error}; runs that are not there yet: wandb sync {runs}") from error
    study.note("published", {**published, place: links})
    if config.format == "json":
        print_json({"study": study.name, **links})
    else:
        print(f"workspace: {links['workspace']}\nreport: {links['report']}")
    return 0


def _require_library() -> None:
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ValueError("explore.publish needs wandb-workspaces, got none; run pip install 'explore[publish]'")


if __name__ == "__main__":
    run(main, __doc__ or "")
