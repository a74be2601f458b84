"""python -m explore.report study=NAME [outputs=DIR] [storage.url=URL]

Writes the report of a study again from the study alone: report.html, its pictures as PNG and SVG, and its tables.

  python -m explore.report study=pareto
  python -m explore.report study=pareto format=json
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

from explore.command import print_json, refusing_bad_input, run
from explore.counted import counted

if TYPE_CHECKING:
    from explore.schema import Config


def main(config: "Config", overrides: list[str]) -> int:
    """Read the study and write its report."""
    from explore.ablation.design import design_of
    from explore.places import named_study, output_folder
    from explore.reporting.report import write_report
    from explore.search.rivals import results
    from explore.search.savings import savings
    from explore.search.trial import finished, front
    from explore.verdict import show_verdict

    with refusing_bad_input():
        study, folder = named_study(config), output_folder(config)
    report = write_report(study, folder)
    if design := design_of(study):
        show_verdict(study, design, report, config.format, ended=study.notes.get("ended", ""), go_on=None)
        return 0
    trials = results(study)
    if config.format == "json":
        found = {
            "study": study.name,
            "finished": len(finished(trials)),
            "front": [trial.number for trial in front(trials)],
            "unsettled": [trial.number for trial in front(trials) if trial.settled is False],
            "savings": asdict(saved) if (saved := savings(trials)) else None,
            "ended": study.notes.get("ended") or None,
            "report": str(report),
        }
        print_json(found)
    else:
        count = len(finished(trials))
        print(f"{counted(count, 'finished trial')}, {len(front(trials))} on the front: {report}")
    return 0


if __name__ == "__main__":
    run(main, __doc__ or "")
