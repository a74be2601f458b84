"""python -m explore.export study=NAME trial=NUMBER|front format=onnx|torch_export [KEY=VALUE ...]

Writes trained networks as files that need nothing of this package: weights, preparation of the images and names of the
classes in one. They take pixels as they are (uint8 from 0 to 255, batch x channels x height x width, any batch). Each
is held against the original on all test images, and refused where it is not the same; both are timed in turn.

  python -m explore.export study=pareto trial=17 format=onnx
  python -m explore.export study=pareto trial=front format=torch_export

  trial=17               the trial with that number; trial=front means every member of the front
  format=onnx            for onnxruntime and other hardware; needs: pip install 'explore[export]'
  format=torch_export    for PyTorch (a .pt2, as torch.export reads it); both formats may be given
  format=json            beside them: the result for machines

Often set:
  outputs=DIR            where the study is; files go to DIR/STUDY/export, a model card beside each
  storage.url=URL        where the study is kept, if not in DIR
  data.path=DIR          where its images lie now
  cost.max_seconds=X     time for each measurement

What was written before, and would be the same again, is kept: typed again, the command goes on where it stopped.
A trial whose checkpoint is gone is trained again by its own command, which is printed; then it can be exported.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explore.command import Refused, make_folder, print_json, refusing_bad_input, run
from explore.exporting.formats import FORMATS, Format

if TYPE_CHECKING:
    from explore.exporting.artifact import Artifact
    from explore.schema import Config
    from explore.search.study import Study
    from explore.search.trial import Trial

_FOLDER = "export"
_PRINTED = ("text", "json")
_PLACES = ("study", "outputs", "storage", "format")
_CHANGES = ("data", "cost")


def own(word: str) -> bool:
    """Whether a word of the command line is for this command alone; so are changes, which the study's settings take."""
    key, _, value = word.lstrip("+").partition("=")
    return key == "trial" or (key == "format" and value not in _PRINTED) or key.partition(".")[0] in _CHANGES


def main(config: "Config", overrides: list[str]) -> int:
    """Export what was asked for, one after the other; those that cannot be are said in the end."""
    from explore.exporting.trained import asked_for, check_changes
    from explore.places import named_study, output_folder
    from explore.search.rivals import results

    with refusing_bad_input():
        formats, number, changes = _asked(overrides)
        study, output = named_study(config), output_folder(config)
        trials = asked_for(number, results(study))
        check_changes(study, changes)
    make_folder(output / _FOLDER)
    artifacts: list[Artifact] = []
    failures: list[str] = []
    for trial in trials:
        try:
            with refusing_bad_input():
                artifacts += _export(study, trial, output, formats, overrides, changes)
        except Refused as refusal:
            failures.append(str(refusal))
    if config.format == "json":
        print_json({"study": study.name, "artifacts": [one.to_dict() for one in artifacts], "failures": failures})
    elif artifacts:
        _print(artifacts)
    for failure in failures:
        print(f"explore: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _asked(overrides: Sequence[str]) -> tuple[list[Format], str, list[str]]:
    """Formats, trial and changes that were asked for; raises ValueError for what does not exist."""
    pairs = [(word, *word.lstrip("+").partition("=")[::2]) for word in overrides]
    trials = [value for _, key, value in pairs if key == "trial"]
    names = list(dict.fromkeys(value for _, key, value in pairs if key == "format" and value not in _PRINTED))
    if len(trials) != 1:
        raise ValueError(f"trial must be given once, as a number or front, got {' and '.join(trials) or 'nothing'}")
    if not names:
        raise ValueError(f"format must be given, one of {', '.join(FORMATS)} or both, got none")
    if unknown := [name for name in names if name not in FORMATS]:
        written, printed = ", ".join(FORMATS), ", ".join(_PRINTED)
        raise ValueError(f"format must be one of {written} (to write) or {printed} (to print), got {unknown[0]!r}")
    changes = [word for word, key, _ in pairs if key.partition(".")[0] in _CHANGES]
    if strange := [
        word for word, key, _ in pairs if key.partition(".")[0] not in (*_PLACES, *_CHANGES, "trial", "imports")
    ]:
        raise ValueError(
            f"what a trial is was settled by its study, got {strange[0]}; only {', '.join(_CHANGES)} may change: where "
            "images lie, how speed is measured"
        )
    for name in names:
        FORMATS[name].check()
    return [FORMATS[name] for name in names], trials[0], changes


def _export(
    study: "Study",
    trial: "Trial",
    output: Path,
    formats: Sequence[Format],
    overrides: Sequence[str],
    changes: Sequence[str],
) -> "list[Artifact]":
    from explore.exporting.artifact import Artifact, export
    from explore.exporting.card import card
    from explore.exporting.kept import keep, kept, origin_of
    from explore.exporting.trained import trained

    network, artifacts = trained(study, trial, output, changes), []
    places = [word for word in overrides if word.startswith(("outputs=", "storage"))]
    for kind in formats:
        file = output / _FOLDER / f"trial-{trial.number:04d}{kind.suffix}"
        page = file.with_name(f"{file.name}.md")
        about = {"study": study.name, "trial": str(trial.number), "command": trial.command}
        origin = origin_of(network, about)
        known = kept(file, origin) if page.exists() else None
        print(f"explore: trial {trial.number} as {kind.name}{': kept' if known else ''}", file=sys.stderr)
        agreement, speeds = known or export(network, kind, file, about)
        artifacts.append(
            Artifact(
                trial=trial.number,
                format=kind.name,
                file=file,
                card=page,
                kept=known is not None,
                agreement=agreement,
                speeds=speeds,
            )
        )
        if known:
            continue
        words = [f"study={study.name}", f"trial={trial.number}", f"format={kind.name}", *places, *changes]
        command = shlex.join(["python", "-m", "explore.export", *words])
        text = card(network, kind, file, agreement, speeds, study=study.name, notes=study.notes, command=command)
        page.write_text(text, encoding="utf-8")
        keep(file, origin, agreement, speeds)
    return artifacts


def _print(artifacts: "Sequence[Artifact]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Exported", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("trial", "test accuracy", "original", "largest difference", "images/s", "original", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("file")
    for one in artifacts:
        seen, speeds = one.agreement, one.speeds
        table.add_row(
            str(one.trial),
            f"{100 * seen.right / seen.images:.1f} %",
            f"{100 * seen.original_right / seen.images:.1f} %",
            f"{seen.difference:.1e}",
            f"{speeds.exported.images_per_second:,.0f}",
            f"{speeds.original.images_per_second:,.0f}",
            f"{speeds.ratio[1]:.2f} ×",
            str(one.file),
        )
    console = Console(width=160)
    console.print(table, highlight=False)
    print(f"A model card lies beside each: {artifacts[0].card}")


if __name__ == "__main__":
    run(main, __doc__ or "", own=own)
