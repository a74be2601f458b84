"""python -m explore.compare STUDY STUDY ... [outputs=DIR] [storage.url=URL]

Puts the fronts of several studies side by side: what each reaches at which speed, the hypervolume of each with the same
reference point, and its difference from that of the first study with a 95 % interval. Studies of other images, or
whose speed was measured on another device or in another way, are refused.

  python -m explore.compare before after
  python -m explore.compare before after outputs=results format=json
  python -m explore.compare outputs/before elsewhere/after

A STUDY is a name, or the folder of a study that is kept in an SQLite file. Into DIR/compare/ go fronts.png, fronts.svg,
fronts.csv and hypervolumes.csv.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explore.command import make_folder, print_json, refusing_bad_input, run

if TYPE_CHECKING:
    from rich.table import Table

    from explore.reporting.fronts import Searched, Step, Worth
    from explore.schema import Config

_MEANING = """The interval is for other searches like these: it says how the difference varies when the complete trials
of each study are others of the same kind (halves of those it has, drawn 1,000 times). It knows nothing of what other
seeds of training or another measurement of speed would change."""


def own(word: str) -> bool:
    """Whether a word of the command line is for this command alone."""
    return "=" not in word


def main(config: "Config", overrides: list[str]) -> int:
    """Compare the studies that the words without `=` name."""
    from explore.reporting.fronts import on_one_scale, refuse_incomparable, steps, summary, worth, write_tables
    from explore.reporting.fronts_picture import write_fronts_picture

    with refusing_bad_input():
        studies = _read(config, [word for word in overrides if own(word)])
        refuse_incomparable(studies)
    studies, scaled = on_one_scale(studies)
    values = worth(studies)
    folder = Path(config.outputs) / "compare" / "-".join(study.name for study in studies)
    make_folder(folder)
    write_tables(studies, values, folder)
    write_fronts_picture(studies, _note(studies, values), [folder / "fronts.png", folder / "fronts.svg"])
    if config.format == "json":
        print_json(
            {
                **_record(studies, steps(studies)),
                "scaled": scaled,
                "studies": summary(studies, values),
                "folder": str(folder),
            }
        )
    else:
        _print(studies, values, steps(studies), folder)
        if scaled:
            print(f"Speeds were multiplied, for a reference network that is known better now: {', '.join(scaled)}.")
    return 0


def _read(config: "Config", words: Sequence[str]) -> "list[Searched]":
    from dataclasses import replace

    from explore.places import named_study
    from explore.reporting.fronts import searched

    if len(set(words)) < 2:
        got = ", ".join(words) or "none"
        raise ValueError(f"a comparison needs two different studies or more, got {got}; try explore.compare A B")
    places = []
    for word in dict.fromkeys(words):
        path = Path(word).expanduser()
        place = replace(config, study=path.name)
        if path.name != word:
            _check_path(word, path, config)
            place = replace(place, outputs=str(path.parent))
        places.append(place)
    studies = [searched(named_study(place)) for place in places]
    if len({study.name for study in studies}) < len(studies):
        raise ValueError(f"studies must have different names, got {', '.join(study.name for study in studies)}")
    return studies


def _check_path(word: str, path: Path, config: "Config") -> None:
    """Refuse what is neither a name nor the folder of a study; a storage on a server knows names alone."""
    from explore.places import study_url
    from explore.search.storage import of_one_machine

    if not of_one_machine(study_url(config)):
        raise ValueError(f"a STUDY must be a name where storage.url is that of a server, got {word}; try {path.name}")
    if not (path / "study.db").is_file():
        raise ValueError(
            "a STUDY must be a name of letters, digits, dots, dashes and underscores, or the folder of a study that is "
            f"kept in an SQLite file, got {word}, where no study.db is"
        )


def _note(studies: "Sequence[Searched]", values: "Sequence[Worth]") -> str:
    """Under the picture: hypervolumes, differences, and how speed was measured."""
    from explore.reporting.style import protocols

    volumes = "; ".join(
        f"{one.study} {one.hypervolume:.3f}"
        + (
            f" ({one.difference:+.3f}, 95 % interval {one.interval[0]:+.3f} to {one.interval[1]:+.3f})"
            if one.interval
            else ""
        )
        for one in values
    )
    measured = "; ".join(protocols(trial for study in studies for trial in study.complete))
    return f"Hypervolume: {volumes}\n{measured}"


def _record(studies: "Sequence[Searched]", rows: "Sequence[Step]") -> dict[str, object]:
    from math import exp

    from explore.reporting.fronts import reference, versions

    error, speed = reference(studies)
    fronts = [
        {
            "study": row.study,
            "trial": row.trial.number,
            "throughput": row.trial.throughput,
            "val_accuracy": row.trial.accuracy,
            "reached": dict(row.reached),
            "command": row.trial.command,
        }
        for row in rows
    ]
    return {
        "reference": {"val_accuracy": 1 - error, "throughput": exp(-speed)},
        "torch_versions": versions(studies),
        "fronts": fronts,
    }


def _print(studies: "Sequence[Searched]", values: "Sequence[Worth]", rows: "Sequence[Step]", folder: Path) -> None:
    from rich.console import Console

    from explore.reporting.fronts import versions

    console = Console(width=160, markup=False, highlight=False)
    console.print(_volumes(studies, values))
    print("\n" + _MEANING + "\n")
    console.print(_fronts(studies, rows))
    if len(found := versions(studies)) > 1:
        print(f"\nSpeeds were measured with torch {' and '.join(found)}: a part of the difference may be theirs.")
    print(f"\nPicture and tables: {folder}")


def _volumes(studies: "Sequence[Searched]", values: "Sequence[Worth]") -> "Table":
    from explore.reporting.fronts import summary

    table = _table("Hypervolume")
    for name in ("study", "trials", "complete", "epochs", "time", "front", "hypervolume", "difference"):
        table.add_column(name, justify="left" if name == "study" else "right")
    table.add_column("95 % interval")
    for row, value in zip(summary(studies, values), values, strict=True):
        table.add_row(
            row["study"],
            str(row["finished"]),
            str(row["complete"]),
            f"{row['epochs']:,}",
            f"{row['seconds']:,.0f} s",
            str(row["front"]),
            f"{value.hypervolume:.3f}",
            f"{value.difference:+.3f}" if value.study != studies[0].name else "",
            _verdict(value, first=value.study == studies[0].name),
        )
    return table


def _verdict(value: "Worth", *, first: bool) -> str:
    from explore.reporting.fronts import FEWEST

    if first:
        return "the others are compared with it"
    if value.interval is None:
        return f"not known with fewer than {FEWEST} complete trials"
    low, high = value.interval
    words = "larger" if low > 0 else "smaller" if high < 0 else "not told apart"
    return f"{low:+.3f} to {high:+.3f}: {words}"


def _fronts(studies: "Sequence[Searched]", rows: "Sequence[Step]") -> "Table":
    from explore.reporting.style import percent, speed, value

    table = _table("Best validation accuracy at a speed or a higher one; # marks a member of the front")
    table.add_column("images/s", justify="right")
    for study in studies:
        table.add_column(study.name, justify="right")
    table.add_column("configuration")
    for row in rows:
        cells = [
            ("" if reached is None else percent(reached)) + (f" #{row.trial.number}" if name == row.study else "")
            for name, reached in row.reached.items()
        ]
        values = row.trial.proposal.values
        words = " ".join(
            value(values[key]) if "." not in key else f"{key.rpartition('.')[2]}={value(values[key])}" for key in values
        )
        table.add_row(speed(row.trial.throughput or 0.0), *cells, words)
    return table


def _table(title: str) -> "Table":
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))


if __name__ == "__main__":
    run(main, __doc__ or "", own=own)
