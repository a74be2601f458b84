"""What a trial costs besides measuring and training, part by part, and what a search costs once.

    python -m benchmarks.overhead [format=json] [trials=10,1000,10000]

Each part is run on its own, several times, in studies that already hold so many finished trials; the figure is the
median in seconds of wall time, beside it the lowest and the highest. A trial, from one rung to the next, passes through
each part of the first two groups once; a search, however many trials it has, through each of the last. Bars: 0.3 s for
the parts of a trial together, also with `count` (parameters, multiply-adds and memory, a part of measuring); 0.5 s for
`--help`; and reading and reporting may not grow with the square of the trials.
"""

import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.arguments import parse
from benchmarks.origin import print_json
from benchmarks.result_rows import Row, row, shown
from explore.evaluation import COMPLETE, Evaluation, Report
from explore.search.options import Stopping

TRIAL_SECONDS = 0.3
HELP_SECONDS = 0.5
MOST_EXPONENT = 1.3  # 1 is as the trials, 2 as their square
HISTORIES = (10, 1000, 10_000)
# Measuring and training: the bar is for all the rest of a trial, without and with `count`.
COUNT, LARGER = "count", "count a larger one: patch 4, depth 4, width 64"
TURN = "a turn to compute, which every step takes, with nobody else there"
WORK = (COUNT, LARGER, "measure", "between epochs")
ONCE = ("read the study", "first proposal", "report", "log the study")
GROWING = ("read the study", "report")
STRETCHES = len(Stopping().rungs(27))  # from rung to rung, as in +sweep=pareto: each is a process of its own
LOOKING = ("look at the study",)  # twice a second while a search runs, beside its trials

Seconds = Mapping[str, Sequence[float]]


def nothing(job: None, folder: Path, report: Report) -> Evaluation:
    """Evaluate without any work."""
    return Evaluation(status=COMPLETE)


def rows(start: Seconds, alone: Seconds, after: Mapping[int, Seconds]) -> list[Row]:
    """Return rows of name, value, unit, bar, whether it holds, and the quartiles of several values.

    `start` are the seconds of the command's parts, `alone` those of a trial that know nothing of other trials, `after`
    the others by the number of finished trials.
    """
    found = [
        row(part, seconds, "s", at_most=HELP_SECONDS if part == "--help" else None) for part, seconds in start.items()
    ]
    found += [row(part, seconds, "s") for part, seconds in alone.items()]
    for number, parts in after.items():
        found += [row(f"{part}, after {number:,} trials", seconds, "s") for part, seconds in parts.items()]
        each = [
            median for part, median in _medians(parts).items() if part not in (*ONCE, *LOOKING) and " with " not in part
        ]
        fixed = _medians(alone)
        without = sum(each) + sum(median for part, median in fixed.items() if part not in WORK)
        name = f"a trial without measuring and training, after {number:,} trials"
        found.append(row(name, without, "s", at_most=TRIAL_SECONDS))
        found.append(row(f"{name}, with count", without + fixed[COUNT], "s", at_most=TRIAL_SECONDS))
        whole = f"{name}: all {STRETCHES} stretches of a candidate that comes to the last epoch"
        found.append(row(whole, STRETCHES * without + fixed[COUNT], "s"))
    for part in GROWING:
        if len(after) > 1:
            found.append(_exponent(part, {number: _medians(parts)[part] for number, parts in after.items()}))
    return found


def _medians(seconds: Seconds) -> dict[str, float]:
    return {part: statistics.median(values) for part, values in seconds.items()}


def _exponent(part: str, seconds: Mapping[int, float]) -> Row:
    """How a part grows between the two largest studies: with the trials to this power."""
    few, many = sorted(seconds)[-2:]
    power = math.log(seconds[many] / seconds[few]) / math.log(many / few)
    return row(f"{part}, growth from {few:,} to {many:,} trials", power, "power of trials", at_most=MOST_EXPONENT)


def main(arguments: Sequence[str]) -> None:
    """Print the parts and their sums."""
    # Imported here, because the processes that are timed import this module once more, as Python's forkserver does.
    from benchmarks.trial_parts import parts_with_history, parts_without_history, start_of_a_command
    from explore.cluster.isolation import start_server

    options = parse(arguments, __doc__, {"trials": HISTORIES})
    start_server()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = start_of_a_command(folder)
        alone = parts_without_history(folder, nothing)
        after = {number: parts_with_history(number, folder) for number in sorted(options["trials"])}
    result = rows(start, alone, after)
    if options["format"] == "json":
        print_json(result)
        return
    print("\n".join(map(shown, result)))


if __name__ == "__main__":
    main(sys.argv[1:])
