"""What a trial costs besides measuring and training, part by part.

    python -m benchmarks.overhead [format=json] [trials=N]

Each part is run on its own, several times, in a study that already holds N finished trials (default 10); the figure is
the median in seconds of wall time. The bar is for their sum without `count` (parameters, multiply-adds and memory,
which is measuring): 0.5 s.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from explore.evaluation import COMPLETE, Evaluation, Report

BAR_SECONDS = 0.5
_MEASURING = ("count",)


def nothing(job: None, folder: Path, report: Report) -> Evaluation:
    """Evaluate without any work."""
    return Evaluation(status=COMPLETE)


def rows(seconds: dict[str, float], history: int) -> list[dict[str, object]]:
    """Return rows of name, value, unit, bar and whether it holds."""
    found: list[dict[str, object]] = [
        {"name": part, "value": value, "unit": "s", "bar": None, "holds": None} for part, value in seconds.items()
    ]
    total = sum(value for part, value in seconds.items() if part not in _MEASURING)
    name = f"all but count, after {history} trials"
    return [*found, {"name": name, "value": total, "unit": "s", "bar": BAR_SECONDS, "holds": total <= BAR_SECONDS}]


def main(arguments: Sequence[str]) -> None:
    """Print the parts and their sum."""
    # Imported here, because the processes that are timed import this module once more, as Python's forkserver does.
    from benchmarks.trial_parts import measure

    options = dict(argument.split("=", 1) for argument in arguments)
    history = int(options.get("trials", 10))
    result = rows(measure(history, nothing), history)
    if options.get("format") == "json":
        print(json.dumps(result, indent=2))
        return
    for row in result:
        bar = "" if row["bar"] is None else f"   bar {row['bar']} s: {'holds' if row['holds'] else 'MISSED'}"
        print(f"{row['name']:30} {row['value']:8.4f} s{bar}")


if __name__ == "__main__":
    main(sys.argv[1:])
