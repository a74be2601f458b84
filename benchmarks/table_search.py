"""The real search loop on curves that are looked up: storage, workers, processes and turns are those of any search."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.looked_up import Job, look_up
from explore.cluster.isolation import Isolated
from explore.cluster.local import in_turn
from explore.evaluation import Evaluation, Report
from explore.search.proposals import Proposer
from explore.search.samplers import SPEED_AWARE
from explore.search.schedule import Rungs, Scheduler
from explore.search.space import parse_space
from explore.search.speed_aware import SpeedAware
from explore.search.storage import open_storage
from explore.search.study import Study, create_study
from explore.search.worker import Stopped, Worker

SPACE = {
    "model.depth": "range(1, 13)",
    "model.width": "choice(8, 16, 32, 64, 96)",
    "token_mixing": "choice(mlp, attention, convolution, pooling, s2)",
    "channel_mixing": "choice(mlp, swiglu)",
    "training.lr": "tag(log, interval(2e-3, 1e-2))",
}
ETA = 3
_WAIT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is searched, and by how many here; `epoch_seconds` is how long an epoch takes."""

    trials: int
    workers: int = 1
    sampler: str = SPEED_AWARE
    epochs: int = 27
    epoch_seconds: float = 0.02

    @property
    def rungs(self) -> tuple[int, ...]:
        """Where candidates wait; with one of Optuna's samplers nobody does."""
        if self.sampler != SPEED_AWARE:
            return (self.epochs,)
        found = [1]
        while found[-1] * ETA < self.epochs:
            found.append(found[-1] * ETA)
        return (*found, self.epochs)


@dataclass(frozen=True)
class LookedUp:
    """As `Evaluator`; `run` looks up, here or in a process of its own."""

    options: Options
    run: Callable[[Job, Path, Report], Evaluation] = look_up

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        """As `Evaluator`."""
        values = {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in overrides)}
        job = Job(values, until, self.options.epochs, self.options.epoch_seconds)
        folder.mkdir(parents=True, exist_ok=True)
        return self.run(job, folder, report)


def begin(url: str, name: str) -> Study:
    """Open the study, or begin it."""
    return create_study(open_storage(url), name, {"space": SPACE})


def scheduler(options: Options, seed: int = 0) -> Scheduler:
    """What decides; without a tolerance it ends when nobody waits any more."""
    space = parse_space(SPACE)
    if options.sampler == SPEED_AWARE:
        return SpeedAware(space=space, rungs=options.rungs, classes=10, smallest=1e-3, seed=seed, tolerance=0.0)
    return Rungs(Proposer(space, options.sampler, seed), options.rungs, ETA)


def work(study: Study, output: Path, options: Options, place: int, stop: Callable[[], bool]) -> None:
    """Work until nothing is left to do, as `explore.working.work` does."""
    isolated = Isolated(look_up, lambda: worker.check_in())
    worker = Worker(
        study=study,
        scheduler=scheduler(options),
        evaluate=LookedUp(options, isolated),
        target=options.trials,
        output=output,
        turn=lambda: in_turn(output / ".turn"),
        stop=stop,
        wait=lambda: time.sleep(_WAIT_SECONDS),
    )
    with suppress(Stopped):
        worker.run()
