"""The parts of a trial and of a search, each timed on its own; `benchmarks.overhead` adds them up."""

import io
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import first_time
from benchmarks.filled_study import EPOCHS, evaluation, fill, proposals
from benchmarks.overhead import LARGER, TURN
from explore.candidate import Candidate, build
from explore.cluster.isolation import Isolated
from explore.config import compose, has_option, vary
from explore.cost.measure import measure_cost
from explore.cost.record import Cost
from explore.cost.turns import Turns
from explore.data.dataset import load
from explore.definition import definition
from explore.evaluation import COMPLETE, RUNNING, Epoch, Evaluation, Report
from explore.evaluator import TrainingEvaluator
from explore.reporting.progress import progress
from explore.reporting.report import write_report
from explore.reporting.tables import trial_rows
from explore.schema import Config
from explore.search.prior import Prior
from explore.search.proposals import Check, Proposer
from explore.search.samplers import SAMPLERS
from explore.search.space import Space, parse_space
from explore.search.speed_aware import SpeedAware
from explore.search.storage import open_storage
from explore.search.study import Study, create_study
from explore.tracking import Tracker
from explore.view import LiveView

_BASE = ("+sweep=pareto", "training.threads=1", "training.precision=32-true")
_NAME = "overhead"
_REPEATS, _FEW = 7, 3
_DRAWN = 15  # candidates of the space, each in a process of its own
_CHECKPOINTS = 3  # behind the first, of a trial that trains for three seconds
# What the command does before it begins to work.
_START = """import sys
from explore.imports import lasting
with lasting():
    from explore.config import compose
import explore.driver, explore.view
from explore.plan import begin, prepare
begin(prepare(compose(sys.argv[1:]), sys.argv[1:]))"""


@dataclass
class Clock:
    """Collects the seconds of named parts, and those of them that this process was computing."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    computing: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        start, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds[name].append(time.perf_counter() - start)
        self.computing[name].append(time.process_time() - processor)

    def repeat(self, name: str, action: Callable[[], object], times: int = _REPEATS) -> None:
        """Time an action several times, after one that warms up where there is more than one."""
        for _ in range(times + (times > 1)):
            with self.part(name):
                action()

    def settled(self) -> dict[str, list[float]]:
        """The seconds of each part, without the first where there are others: it was for warming up."""
        return {name: seconds[1:] or seconds for name, seconds in self.seconds.items()}


def start_of_a_command(folder: Path) -> dict[str, list[float]]:
    """Seconds of wall time of `--help`, and of a search until it would begin to work, as processes of their own."""
    clock = Clock()
    command = [sys.executable, "-m", "explore.sweep", "--help"]
    clock.repeat("--help", lambda: subprocess.run(command, check=True, capture_output=True))
    search = [sys.executable, "-c", _START, *_BASE, f"outputs={folder}"]
    clock.repeat("start of a search", lambda: subprocess.run(search, check=True), 1)
    return clock.settled()


def parts_without_history(folder: Path, nothing: Callable[[None, Path, Report], Evaluation]) -> dict[str, list[float]]:
    """Seconds of those parts of a trial that know nothing of other trials.

    What a trial does in its own process is timed there, once in each, for candidates drawn from the space of the
    search, and beside them to count a larger one. `nothing` is an evaluation without work, which a process of its own
    can import without importing all of this.
    """
    config = compose(_BASE)
    dataset = load(config.data)
    network = build(config.candidate, dataset)
    shape = dataset.image_shape
    isolated = Isolated(nothing, lambda: None)
    proposed = proposals(_space(config), seed=1)
    compose_it = TrainingEvaluator(_BASE, run=lambda job, place, report: nothing(None, place, report))
    clock = Clock()
    clock.repeat("compose", lambda: compose_it(next(proposed).overrides, folder / "composed", _ignore))
    clock.repeat("fork", lambda: isolated(None, folder / "fork", _ignore))
    clock.repeat("counted again", lambda: measure_cost(network, shape, config.cost, timed=False))
    clock.repeat("count and measure", lambda: measure_cost(network, shape, config.cost, timed=True), _FEW)
    for _ in range(_REPEATS + 1):
        for name, epochs, rung in (("one", 1, 1), ("all", EPOCHS, EPOCHS), ("all with checkpoints", EPOCHS, 1)):
            place, fresh = folder / f"fit{time.perf_counter_ns()}", build(config.candidate, dataset)
            place.mkdir()
            with clock.part(name):
                first_time.train(fresh, config.candidate, dataset, place, epochs=epochs, rung=rung)
    with Turns(torch.device("cpu")) as device:
        clock.repeat(TURN, lambda: _take(device))
    found = clock.settled()
    drawn = [vary(_BASE, next(proposed).overrides).candidate for _ in range(_DRAWN)]
    once = [_own_process(candidate, folder / f"first{number}") for number, candidate in enumerate(drawn)]
    larger = [_own_process(config.candidate, folder / f"larger{number}")["count"] for number in range(_REPEATS)]
    turns = list(zip(found["one"], found["all"], found["all with checkpoints"], strict=True))
    return {
        **{name: found[name] for name in ("compose", "fork", TURN)},
        **{name: [seconds[name] for seconds in once] for name in once[0]},  # the start of fit with a first checkpoint
        LARGER: larger,
        "measure": [seconds - statistics.median(found["counted again"]) for seconds in found["count and measure"]],
        "further checkpoints": [(more - rest) * _CHECKPOINTS / (EPOCHS - 1) for _, rest, more in turns],
        "between epochs": [rest - one for one, rest, _ in turns],
    }


def _take(device: Turns) -> None:
    with device.computing():
        pass


def _own_process(candidate: Candidate, folder: Path) -> Mapping[str, float]:
    ended = Isolated(first_time.parts, lambda: None)(candidate, folder, _ignore)
    assert ended.status == COMPLETE, ended.reason
    return ended.seconds


def parts_with_history(number: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of the parts of a trial, and of a search, that know the trials before it; `number` of them are finished.

    `folder` holds the study; what is there is filled up.
    """
    config = compose(_BASE)
    url, space = f"sqlite:///{folder / 'study.db'}", _space(config)
    create_study(open_storage(url), _NAME, definition(config))
    fill(url, _NAME, space, number)
    clock = Clock()
    with clock.part("read the study"):
        study = create_study(open_storage(url), _NAME, definition(config))
        trials = study.trials()
    clock.repeat("report", lambda: write_report(study, folder / "report"), 1 if number > 1000 else _FEW)
    tracker = Tracker(config.tracking, _NAME, folder)
    rows = trial_rows(trials, {}).astype(object).to_dict("records")
    curve = progress(trials, study.stretches()).to_dict("records")
    with clock.part("log the study"):
        tracker.study_run({"trials": rows}, {"front": folder / "report" / "front.png"}, curve)
    with LiveView(_NAME, number, Console(file=io.StringIO(), force_terminal=True)) as view:
        clock.repeat("look at the study", lambda: view.update(study.trials()))
    for name in SAMPLERS:
        if name != "grid":
            clock.repeat(f"propose with {name}", partial(_propose, proposer(name, config, space), study), _FEW)
    _search(study, speed_aware(config, space, config.stopping.rungs(config.training.epochs)), tracker, clock)
    # The rest leaves the study as it was for what is filled up next.
    _forget(folder / "study.db", number)
    return clock.settled()


def _propose(proposer: Proposer, study: Study) -> None:
    assert proposer.propose(study.trials())


def _search(study: Study, scheduler: SpeedAware, tracker: Tracker, clock: Clock) -> None:
    """Take trials as a worker does, and end them without evaluating them."""
    with clock.part("first proposal"):
        scheduler.next(study.trials(), room=True)
    for _ in range(_REPEATS + 1):
        with clock.part("ask"):
            step = scheduler.next(study.trials_without_dead(), room=True)
        assert step
        proposal = step.proposal
        with clock.part("claim"):
            trial = study.claim(proposal, command="python -m explore.train", target=10**6)
        assert trial
        ended = evaluation(proposal)
        assert ended.cost
        with clock.part("record"):
            # Its cost, and its epochs at least once: a worker records short ones together.
            study.record(trial, Evaluation(status=RUNNING, cost=ended.cost))
            study.record(trial, replace(ended, status=RUNNING))
        with clock.part("tell"):
            study.finish(trial, ended)
        with clock.part("log"):
            tracker.begin(trial)
            items: list[Cost | Epoch] = [ended.cost, *ended.curve]
            for item in items:
                tracker.report(item)
            tracker.end(trial, ended)


def _forget(database: Path, number: int) -> None:
    """Take the trials from `number` on out of a study."""
    with sqlite3.connect(database) as connection:
        late = "IN (SELECT trial_id FROM trials WHERE number >= ?)"
        for table in ("trial_params", "trial_values", "trial_user_attributes", "trials"):
            connection.execute(f"DELETE FROM {table} WHERE trial_id {late}", (number,))
    connection.close()


def _space(config: Config) -> Space:
    return parse_space(config.space, lambda key, values: has_option(key, values, config))


def proposer(sampler: str, config: Config, space: Space) -> Proposer:
    """One of Optuna's samplers, with the checks of a real search."""
    return Proposer(space, sampler, startup=config.search.startup, check=_checks(config))


def speed_aware(config: Config, space: Space, rungs: Sequence[int]) -> SpeedAware:
    """The default of a real search, with its checks and its prior."""
    dataset = load(config.data)
    return SpeedAware(
        space=space,
        rungs=rungs,
        classes=len(dataset.classes),
        smallest=0.5 / len(dataset.validation),
        check=_checks(config),
        trend=partial(Prior.load(), image_size=dataset.image_size),
    )


def _checks(config: Config) -> Check:
    dataset = load(config.data)

    def check(overrides: Sequence[str]) -> None:
        vary(_BASE, overrides).candidate.check(dataset)

    return check


def _ignore(item: Cost | Epoch) -> None:
    pass
