"""The parts of a trial, each to be timed on its own; `benchmarks.overhead` prints them."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna

from explore.candidate import build
from explore.cluster.isolation import Isolated, start_server
from explore.config import compose, vary
from explore.cost.measure import measure_cost
from explore.cost.record import Cost, Throughput
from explore.data.dataset import Dataset, Split, load
from explore.data.loader import Batches
from explore.definition import definition
from explore.evaluation import COMPLETE, Epoch, Evaluation, Report
from explore.schema import Config
from explore.search.proposals import Proposer
from explore.search.space import Space, parse_space, to_overrides
from explore.search.storage import open_storage
from explore.search.study import Proposal, Study, Trial, create_study
from explore.tracking import Tracker
from explore.training.fit import fit

_REPEATS = 7
_EPOCHS = 10
_BASE = ["+sweep=pareto", "training.threads=1", "training.precision=32-true"]


def measure(history: int, nothing: Callable[[None, Path, Report], Evaluation]) -> dict[str, float]:
    """Return median seconds of each part of a trial, in a study that holds `history` finished trials.

    `nothing` is an evaluation without work, which a process of its own can import without importing all of this.
    """
    start_server()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = compose(_BASE)
        dataset = load(config.data)
        study = create_study(open_storage(f"sqlite:///{folder}/study.db"), "overhead", definition(config))
        proposer = Proposer(
            parse_space(config.space),
            config.sampler,
            check=lambda some: vary(_BASE, some).candidate.check(dataset),
        )
        waiting = _proposals(proposer.space, history + 4 * _REPEATS)
        trials = [_finished(study, waiting.pop()) for _ in range(history)]
        running = [_claimed(study, waiting.pop()) for _ in range(2 * _REPEATS)]
        tracker = Tracker(config.tracking, "overhead", folder)
        isolated = Isolated(nothing, lambda: None)
        network = build(config.candidate, dataset)
        shape = (dataset.channels, dataset.image_size, dataset.image_size)
        fresh = iter(range(1000))
        parts: dict[str, Callable[[], object]] = {
            "propose": lambda: proposer.propose(study.trials()),
            "claim": lambda: study.claim(waiting.pop(), command="", target=10**6),
            "fork": lambda: isolated(None, folder / "fork", lambda item: None),
            "compose": lambda: vary(_BASE, [f"training.seed={next(fresh)}"]).candidate,
            "load images": lambda: load(config.data),
            "build": lambda: build(config.candidate, dataset),
            "count": lambda: measure_cost(network, shape, config.cost, timed=False),
            "trainer and checkpoint": lambda: _fit_one_step(config, dataset, folder / f"fit{next(fresh)}"),
            "record": lambda: _record(study, running[0]),
            "track": lambda: _track(tracker, trials[0] if trials else running[0]),
            "tell": lambda: study.finish(running.pop(), _evaluation()),
        }
        return {part: _median(action) for part, action in parts.items()}


_SPEED = Throughput(
    images_per_second=1000.0,
    low=990.0,
    high=1010.0,
    latency_ms=1.0,
    batch_size=256,
    precision="32-true",
    device="none",
    threads=1,
    blocks=15,
    torch_version="none",
)
_COST = Cost(params=1000, macs=1000, memory_bytes=1000, throughput=_SPEED)
_CURVE = [
    Epoch(epoch=epoch, train_loss=1.0, val_loss=1.0, val_accuracy=0.5 + epoch / 100, lr=1e-3, seconds=1.0)
    for epoch in range(1, _EPOCHS + 1)
]


def _evaluation() -> Evaluation:
    return Evaluation(status=COMPLETE, cost=_COST, curve=tuple(_CURVE))


def _proposals(space: Space, count: int) -> list[Proposal]:
    """Proposals at random, without any history."""
    chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(count):
        values = space.sample(chance.ask())
        found.append(
            Proposal(
                values=values,
                distributions=space.distributions(values),
                overrides=to_overrides(values),
                sampler_state={},
            )
        )
    return found


def _claimed(study: Study, proposal: Proposal) -> Trial:
    trial = study.claim(proposal, command="", target=10**6)
    assert trial
    return trial


def _finished(study: Study, proposal: Proposal) -> Trial:
    trial = _claimed(study, proposal)
    study.finish(trial, _evaluation())
    return trial


def _fit_one_step(config: Config, dataset: Dataset, folder: Path) -> None:
    """A whole fit of one epoch of one batch of one image: what is left is the trainer's own."""
    folder.mkdir()
    network = build(config.candidate, dataset)
    recipe = replace(config.training, epochs=1, batch_size=1)
    one = Split(dataset.train.images[:1], dataset.train.labels[:1])

    def batches() -> Batches:
        return Batches(one, 1, device="cpu", mean=dataset.mean, std=dataset.std, classes=len(dataset.classes))

    fit(network, batches(), batches(), recipe, folder, lambda record: None)


def _record(study: Study, trial: Trial) -> None:
    study.record(trial, _COST)
    for epoch in _CURVE:
        study.record(trial, epoch)


def _track(tracker: Tracker, trial: Trial) -> None:
    tracker.begin(trial)
    for item in (_COST, *_CURVE):
        tracker.report(item)
    tracker.end(trial, _evaluation())


def _median(action: Callable[[], object]) -> float:
    action()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
