"""What a person sees while a search runs: one live view in a terminal, one plain line per trial elsewhere."""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from explore.ablation.design import Design
from explore.command import print_json
from explore.counted import counted
from explore.evaluation import COMPLETE, DIVERGED, FAILED, INTERRUPTED, REFUSED, RUNNING, STOPPED
from explore.reporting.ablation_terminal import arms_so_far
from explore.reporting.progress import front_hypervolume
from explore.reporting.style import MEASURED, plus_minus, state
from explore.search.owner import is_here, is_running
from explore.search.savings import in_words, savings
from explore.search.seeds import over_seeds, over_seeds_in_test
from explore.search.trial import Trial, finished, front

_ROWS = 12
_UNSETTLED = "~"  # before a speed whose interval is wider than asked for
_COLOURS = {COMPLETE: "green", RUNNING: "cyan", STOPPED: "blue", MEASURED: "dim"}
_COLOURS |= {REFUSED: "yellow", DIVERGED: "red", FAILED: "red"}


class View(Protocol):
    """Shows a study as it grows; `style` is text or json."""

    style: str

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    def update(self, trials: Sequence[Trial]) -> None:
        """Show the trials as they are now."""

    def conclude(
        self, trials: Sequence[Trial], tests: Mapping[int, float], report: Path, *, ended: str, go_on: str | None
    ) -> None:
        """Show the result; `ended` is why it ended, `go_on` the command that continues an unfinished search."""


def make_view(study: str, target: int, style: str, design: Design | None) -> View:
    """The view for `format=text` or `format=json`, in a terminal or elsewhere; `design` is that of an ablation."""
    if style == "json":
        return JsonView(study, target)
    console = Console()
    return LiveView(study, target, console, design) if console.is_terminal else PlainView(study, target)


class PlainView:
    """One line for each trial that has ended, on `stream`; the front at the end, on standard output."""

    style = "text"

    def __init__(self, study: str, target: int) -> None:
        self.study = study
        self.target = target
        self.stream = sys.stdout
        self._ended: set[int] = set()  # numbers: who goes on again has ended before, so that the count never falls
        self._shown: set[int] | None = None  # rows: a trial that was stopped and went on ends more than once

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, trials: Sequence[Trial]) -> None:
        """Print the trials that have ended since the last time."""
        ended = [trial for trial in trials if trial.status != RUNNING and state(trial) != MEASURED]
        self._ended |= {trial.number for trial in finished(trials)}
        done = len(self._ended)
        if self._shown is None:
            self._shown = {trial.row for trial in ended}
            if done:
                left = any(trial.status in (RUNNING, INTERRUPTED) for trial in trials)
                print(f"study {self.study}: {_begun(done, self.target, full=not left)}", file=self.stream)
        for trial in ended:
            if trial.row not in self._shown and self._concerns(trial):
                self._shown.add(trial.row)
                print(f"[{done}/{max(done, self.target)}] {_line(trial)}", file=self.stream, flush=True)

    def _concerns(self, trial: Trial) -> bool:
        return True

    def conclude(
        self, trials: Sequence[Trial], tests: Mapping[int, float], report: Path, *, ended: str, go_on: str | None
    ) -> None:
        """Print the front with a command for each member."""
        console = Console(width=max(100, shutil.get_terminal_size((160, 40)).columns))
        _print_result(console, self.study, trials, tests, report, ended, go_on)


class OwnView(PlainView):
    """For the log of one worker among many: the trials that this process has trained."""

    def _concerns(self, trial: Trial) -> bool:
        return _is_own(trial)


class Company:
    """Says once of each other command that works on the same study that it does, on standard error."""

    def __init__(self, study: str) -> None:
        self.study = study
        self._rows: set[int] | None = None  # those that say nothing new
        self._told: set[tuple[str, int]] = set()

    def update(self, trials: Sequence[Trial]) -> None:
        """Look for trials that others have taken since the last time; at the first, for those they are at now."""
        if self._rows is None:
            at_work = [one for one in trials if one.status == RUNNING and is_here(one.owner) and is_running(one.owner)]
            self._rows = {trial.row for trial in trials} - {trial.row for trial in at_work}
        for trial in trials:
            if trial.row not in self._rows and not _is_own(trial):
                self._tell(trial.owner["host"], trial.owner["pid"])
        self._rows |= {trial.row for trial in trials}

    def _tell(self, host: str, pid: int) -> None:
        if (host, pid) not in self._told:
            self._told.add((host, pid))
            words = f"process {pid} on {host} works on study {self.study} as well, and its trials count in it"
            print(f"explore: {words}", file=sys.stderr, flush=True)


def _is_own(trial: Trial) -> bool:
    return is_here(trial.owner) and bool(trial.owner["pid"] == os.getpid())


class JsonView(PlainView):
    """Progress on standard error, one JSON document on standard output."""

    style = "json"

    def __init__(self, study: str, target: int) -> None:
        super().__init__(study, target)
        self.stream = sys.stderr

    def conclude(
        self, trials: Sequence[Trial], tests: Mapping[int, float], report: Path, *, ended: str, go_on: str | None
    ) -> None:
        """Print the result as JSON: accuracies as fractions, throughput in images per second."""
        numbers = {trial.number for trial in front(trials)}
        members = [
            {
                "trial": trial.number,
                "val_accuracy": trial.accuracy,
                "test_accuracy": tests.get(trial.number),
                "throughput": trial.throughput,
                "settled": trial.settled,
                "seeds": _over_seeds(trial),
                "as_fast_as": [number for number in trial.alike if number in numbers],
                "values": dict(trial.proposal.values),
                "command": trial.command,
            }
            for trial in front(trials)
        ]
        statuses = [trial.status for trial in trials]
        result = {
            "study": self.study,
            "trials": {status: statuses.count(status) for status in sorted(set(statuses))},
            "front": members,
            "hypervolume": front_hypervolume(trials),
            "savings": asdict(saved) if (saved := savings(trials)) else None,
            "report": str(report),
            "ended": ended or None,
            "go_on": go_on,
        }
        print_json(result)


class LiveView:
    """One screen that follows the search: counts, running trials, front or arms, hypervolume, time left, savings."""

    style = "text"

    def __init__(self, study: str, target: int, console: Console, design: Design | None = None) -> None:
        self.study = study
        self.target = target
        self.console = console
        self.design = design
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._began = time.monotonic()
        self._before: int | None = None
        self._ended: set[int] = set()  # as in the plain view
        # Drawn anew when another trial has ended, not each time that somebody looks.
        self._drawn: set[int] | None = None
        self._best, self._worth, self._saved = Table(), "", ""

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def update(self, trials: Sequence[Trial]) -> None:
        """Draw the screen anew."""
        self._ended |= {trial.number for trial in finished(trials)}
        if self._before is None:
            self._before = len(self._ended)
        self._live.update(self._screen(trials), refresh=True)

    def conclude(
        self, trials: Sequence[Trial], tests: Mapping[int, float], report: Path, *, ended: str, go_on: str | None
    ) -> None:
        """Print the front with a command for each member."""
        _print_result(self.console, self.study, trials, tests, report, ended, go_on)

    def _screen(self, trials: Sequence[Trial]) -> RenderableType:
        done = len(self._ended)
        if (ended := {trial.row for trial in trials if trial.status != RUNNING}) != self._drawn:
            self._drawn = ended
            self._best, self._worth = self._so_far(trials)
            self._saved = in_words(saved) if (saved := savings(trials)) else ""
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(f"explore {self.study}", style="bold"),
            ProgressBar(total=max(done, self.target), completed=done, width=30),
            f"{done}/{max(done, self.target)}",
            _counts(trials),
            self._worth,
            self._time_left(done),
        )
        return Group(bar, *([Text(self._saved)] if self._saved else []), _running_table(trials), self._best)

    def _so_far(self, trials: Sequence[Trial]) -> tuple[Table, str]:
        if self.design:
            return arms_so_far(self.design, trials), ""
        return _front_table(trials, {}, title="Front so far"), f"hypervolume {front_hypervolume(trials):.3f}"

    def _time_left(self, done: int) -> str:
        new = done - (self._before or 0)
        if not new:
            return ""
        seconds = (time.monotonic() - self._began) / new * (self.target - done)
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s left"


def _begun(done: int, target: int, *, full: bool) -> str:
    """What to say of a study that has so many finished trials already; a `full` one has none to go on with."""
    if done < target or not full:
        return f"{done} of {max(done, target)} trials {'are' if done != 1 else 'is'} finished, going on"
    asked = f", and {target} asked for" if target < done else ""
    return f"{counted(done, 'trial')} {'are' if done != 1 else 'is'} finished{asked}: there is none left to train"


def _line(trial: Trial) -> str:
    parts = [f"trial {trial.number:<3} {trial.status:9}"]
    if trial.evaluation.epochs:
        parts.append(f"{trial.evaluation.epochs:>3} epoch{'s' if trial.evaluation.epochs != 1 else ' '}")
    if trial.accuracy is not None:
        parts.append(f"val {100 * trial.accuracy:5.1f} %")
    if trial.throughput is not None:
        parts.append(f"{_speed(trial):>9} img/s")
    if trial.evaluation.seconds:
        parts.append(f"{sum(trial.evaluation.seconds.values()):5.1f} s")
    parts.append(_values(trial))
    if trial.evaluation.reason:
        parts.append(f"({trial.evaluation.reason})")
    return "  ".join(parts)


def _speed(trial: Trial) -> str:
    """Images per second of a measured trial, with a mark where they are less well known than was asked for."""
    return f"{_UNSETTLED if trial.settled is False else ''}{trial.throughput:,.0f}"


def _values(trial: Trial) -> str:
    """The configuration in short: the last word of each key."""

    def short(key: str, value: object) -> str:
        text = f"{value:.2g}" if isinstance(value, float) else str(value)
        return text if key in ("token_mixing", "channel_mixing") else f"{key.rpartition('.')[2]}={text}"

    return " ".join(short(key, value) for key, value in trial.proposal.values.items())


def _counts(trials: Sequence[Trial]) -> str:
    statuses = [state(trial) for trial in trials]
    words = [(status, statuses.count(status)) for status in _COLOURS if status != COMPLETE]
    return "  ".join(f"[{_COLOURS[status]}]{count} {status}[/]" for status, count in words if count)


def _running_table(trials: Sequence[Trial]) -> Table:
    table = Table.grid(padding=(0, 2))
    for trial in trials:
        if trial.status == RUNNING:
            curve = trial.evaluation.curve
            progress = f"epoch {curve[-1].epoch}, val {100 * curve[-1].val_accuracy:.1f} %" if curve else "measuring"
            table.add_row(f"[cyan]trial {trial.number}[/]", progress, escape(_values(trial)))
    return table


def _front_table(trials: Sequence[Trial], tests: Mapping[int, float], *, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("trial", "img/s", "val", "test", "params", "MACs"):
        table.add_column(name, justify="right")
    members = front(trials)
    numbers = {trial.number for trial in members}
    equally_fast = {trial.number: ", ".join(str(one) for one in trial.alike if one in numbers) for trial in members}
    compared = any(equally_fast.values())
    if compared:
        table.add_column("speed not told apart from")
    again = any(trial.retrained for trial in members)
    if again:
        table.add_column("other seeds", justify="right")
    table.add_column("configuration")
    shown = members[:_ROWS] if not tests else members
    if any(trial.settled is False for trial in shown):
        table.caption = f"{_UNSETTLED} did not settle: its interval is wider than asked for"
        table.caption_justify = "left"
    for trial in shown:
        cost = trial.evaluation.cost
        assert cost and trial.accuracy is not None and trial.throughput is not None
        test = tests.get(trial.number)
        table.add_row(
            str(trial.number),
            _speed(trial),
            f"{100 * trial.accuracy:.1f} %",
            "" if test is None else f"{100 * test:.1f} %",
            f"{cost.params:,}",
            f"{cost.macs / 1e6:,.2f} M",
            *([equally_fast[trial.number]] if compared else []),
            *([plus_minus(mean.mean, mean.half) if (mean := over_seeds(trial)) else ""] if again else []),
            escape(_values(trial)),
        )
    return table


def _over_seeds(trial: Trial) -> dict[str, Any] | None:
    """What trainings with other seeds found; None where there are none."""
    if not (mean := over_seeds(trial)):
        return None
    tested = over_seeds_in_test(trial)
    return {
        "number": len(trial.retrained),
        "val_accuracy": asdict(mean),
        "test_accuracy": asdict(tested) if tested else None,
    }


def _print_result(
    console: Console,
    study: str,
    trials: Sequence[Trial],
    tests: Mapping[int, float],
    report: Path,
    ended: str,
    go_on: str | None,
) -> None:
    count, members = len(finished(trials)), front(trials)
    console.print()
    if members:
        console.print(_front_table(trials, tests, title=f"Front of {study} after {counted(count, 'trial')}"))
        console.print("\nTrain a member again:", style="bold")
        for trial in members:
            console.print(f"  {trial.command}", markup=False, highlight=False, soft_wrap=True)
    elif count:
        states = Counter(trial.status for trial in finished(trials))
        how = ", ".join(f"{number} {status}" for status, number in states.items())
        advice = "; loosen limits. or widen the space" if states[REFUSED] else ""
        advice += "; give more stopping.disk, and more trials" if any(trial.given_up for trial in trials) else ""
        console.print(f"No front of {study}: no trial was trained to its end ({how}){advice}", highlight=False)
    for trial in trials:
        if trial.status in (FAILED, DIVERGED):
            console.print(f"trial {trial.number} {trial.status}: {escape(trial.evaluation.reason)}", soft_wrap=True)
    saved = None if go_on else savings(trials)  # before the end whoever waits at a rung may still go on
    if words := [*([in_words(saved)] if saved else []), *([ended] if ended else [])]:
        console.print(f"\n{' '.join(words)}", highlight=False)
    console.print(f"\nReport: {report}", highlight=False, soft_wrap=True)
    if go_on:
        console.print(f"Go on:  {go_on}", markup=False, highlight=False, soft_wrap=True)
