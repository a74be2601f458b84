"""python -m explore.report study=NAME [outputs=DIR] [storage.url=URL]

Writes the report of a study again from the study alone: report.html, its pictures as PNG and SVG,
front.csv and trials.csv.

  python -m explore.report study=pareto
  python -m explore.report study=pareto format=json
"""

from pathlib import Path
from typing import TYPE_CHECKING

from explore.command import print_json, refusing_bad_input, run

if TYPE_CHECKING:
    from explore.schema import Config
    from explore.search.study import Study


def main(config: "Config", overrides: list[str]) -> int:
    """Read the study and write its report."""
    from explore.reporting.page import write_report
    from explore.search.rivals import results
    from explore.search.study import finished, front

    with refusing_bad_input():
        study, folder = _open(config)
    report = write_report(study, folder)
    trials = results(study)
    if config.format == "json":
        members = [trial.number for trial in front(trials)]
        print_json({"study": study.name, "finished": len(finished(trials)), "front": members, "report": str(report)})
    else:
        print(f"{len(finished(trials))} finished trials, {len(front(trials))} on the front: {report}")
    return 0


def _open(config: "Config") -> "tuple[Study, Path]":
    from explore.plan import output_folder, study_url
    from explore.search.storage import open_study

    if config.study is None:
        raise ValueError("study must be given, got nothing; add study=NAME, such as study=pareto")
    return open_study(study_url(config), config.study), output_folder(config)


if __name__ == "__main__":
    run(main, __doc__ or "")
