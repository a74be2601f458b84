"""Searches of other projects, run for real, on the recorded curves of a table.

Their own code proposes and stops; here is only the clock: workers that train what they are told and report every epoch.
They are no dependencies of this project: each stands in a folder of its own that PYTHONPATH names, see `_SYNE_TUNE` and
`_OPTUNAHUB`.
"""

import heapq
from collections.abc import Callable
from datetime import datetime
from itertools import count
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import PercentilePruner
from optuna.trial import TrialState

from benchmarks.search_judge import Finish, Table
from benchmarks.search_rows import Rows
from explore.search.front import losses
from explore.search.samplers import make_sampler

try:
    from syne_tune.backend.trial_status import Trial as SyneTuneTrial
    from syne_tune.optimizer.schedulers.multiobjective import moasha as syne_tune
    from syne_tune.optimizer.schedulers.multiobjective import non_dominated_priority
except ImportError:
    syne_tune = None
try:
    import multi_metric_pruner
except ImportError:
    multi_metric_pruner = None

_SYNE_TUNE = (
    "syne_tune must be importable, and is not; pip install --no-deps --target FOLDER syne-tune==0.16.0, "
    "then PYTHONPATH=FOLDER"
)
_OPTUNAHUB = (
    "multi_metric_pruner must be importable, and is not; git clone https://github.com/optuna/optunahub-registry FOLDER"
    ", then PYTHONPATH=FOLDER/package/pruners"
)
_METRICS = ("error", "slowness")


class Search(Protocol):
    """A search that may stop a training early, as workers see it."""

    def propose(self) -> int | None:
        """Return the row of the table that a free worker trains; None if there is no other."""

    def report(self, row: int, epoch: int) -> bool:
        """Take the result of an epoch, and say whether there shall be another one; none follows the last."""

    def failed(self, row: int) -> None:
        """Take note that a training diverged."""


def simulate(table: Table, search: Search, workers: int) -> list[Finish]:
    """Let so many workers train what a search proposes until it has no more, and return what came to the last epoch.

    A worker builds and measures a network first. It learns of a decision as soon as an epoch is over, and then has the
    next row at once. An epoch in which a training diverged counts like any other.
    """
    epoch_seconds = np.nan_to_num(table.epoch_seconds)
    running: list[tuple[float, int, int, int]] = []
    order, spent = count(), 0
    finishes = []

    def train(now: float, row: int, epoch: int) -> None:
        heapq.heappush(running, (now + epoch_seconds[row], next(order), row, epoch))

    def start(now: float) -> None:
        if (row := search.propose()) is not None:
            train(now + table.cost_seconds[row], row, 1)

    for _ in range(workers):
        start(0.0)
    while running:
        now, _, row, epoch = heapq.heappop(running)
        spent += 1
        if np.isnan(table.validation[row, epoch - 1]):
            search.failed(row)
        elif search.report(row, epoch) and epoch < table.epochs:
            train(now, row, epoch + 1)
            continue
        elif epoch == table.epochs:
            finishes.append(Finish(row, spent, float(now)))
        start(now)
    return finishes


def moasha(
    table: Table, seed: int, workers: int, *, grace: int = 1, eta: int = 3, ranked: bool = False
) -> list[Finish]:
    """Multi-objective asynchronous successive halving of Syne Tune: random rows, stopped at rungs.

    Schmucker et al. (2021), "Multi-objective asynchronous successive halving".

    Args:
        table: what is searched; each row is proposed once.
        seed: of the order of proposals.
        workers: how many train at a time.
        grace: epochs before the first rung.
        eta: of so many at a rung the best goes on; also the distance of rungs.
        ranked: with the priorities that the paper describes in place of the released ones, see `ranks`.
    """
    return simulate(table, _Moasha(table, seed, grace, eta, ranked), workers)


def with_pruner(
    table: Table, sampler_name: str, seed: int, workers: int, *, startup: int, percentile: float = 50.0
) -> list[Finish]:
    """A sampler of Optuna with OptunaHub's pruner for several objectives; each proposal is taken to its nearest row.

    Args:
        table: what is searched; each row is proposed once.
        sampler_name: one of `SAMPLERS`.
        seed: of the sampler.
        workers: how many train at a time.
        startup: random trials before the sampler's model, and trials before any is pruned.
        percentile: how many of a hundred go on, by their Pareto rank after the same epoch; 50 is the median pruner.
    """
    return simulate(table, _Pruned(table, sampler_name, seed, startup, percentile), workers)


def ranks(objectives: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place of each point in Syne Tune's order: by front, within a front spread out from the lowest error.

    In version 0.16.0 `NonDominatedPriority` returns which point has a place where its caller wants the place of each
    point, so that being stopped has little to do with being good. The parts are theirs.
    """
    places = np.empty(len(objectives))
    left, before = np.arange(len(objectives)), 0
    while len(left):
        on_front = non_dominated_priority.pareto_efficient(objectives[left])
        front = left[on_front]
        places[front] = before + non_dominated_priority.compute_epsilon_net(objectives[front], dim=0)
        left, before = left[~on_front], before + len(front)
    return places


def _results(table: Table) -> Callable[[int, int], dict[str, float]]:
    """What a training reports after an epoch: both losses by name."""
    slowness = losses(np.zeros_like(table.throughput).tolist(), table.throughput.tolist())[:, 1]

    def result(row: int, epoch: int) -> dict[str, float]:
        return dict(zip(_METRICS, (1 - float(table.validation[row, epoch - 1]), float(slowness[row])), strict=True))

    return result


class _Moasha:
    def __init__(self, table: Table, seed: int, grace: int, eta: int, ranked: bool) -> None:
        if syne_tune is None:
            raise ValueError(_SYNE_TUNE)
        self._left = np.random.default_rng(seed).permutation(len(table.throughput)).tolist()
        self._result = _results(table)
        self._trials: dict[int, Any] = {}
        self._scheduler = syne_tune.MOASHA(
            # A dimension is whatever can be sampled: no row comes twice.
            config_space={"row": SimpleNamespace(sample=self._left.pop)},
            metrics=list(_METRICS),
            time_attr="epoch",
            multiobjective_priority=ranks if ranked else None,
            max_t=table.epochs,
            grace_period=grace,
            reduction_factor=eta,
            random_seed=seed,
        )

    def propose(self) -> int | None:
        if not self._left:
            return None
        config = self._scheduler.suggest().config
        row = int(config["row"])
        self._trials[row] = SyneTuneTrial(trial_id=row, config=config, creation_time=datetime.min)
        self._scheduler.on_trial_add(self._trials[row])
        return row

    def report(self, row: int, epoch: int) -> bool:
        decision = self._scheduler.on_trial_result(self._trials[row], self._result(row, epoch) | {"epoch": epoch})
        if decision == "CONTINUE":
            return True
        self._scheduler.on_trial_remove(self._trials[row])
        return False

    def failed(self, row: int) -> None:
        self._scheduler.on_trial_error(self._trials[row])


class _Pruned:
    """Two studies with the same trials: the pruner copies all of its own for every decision, and needs no values."""

    def __init__(self, table: Table, sampler_name: str, seed: int, startup: int, percentile: float) -> None:
        if multi_metric_pruner is None:
            raise ValueError(_OPTUNAHUB)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._rows, self._free = Rows(table), set(range(len(table.throughput)))
        self._result, self._last = _results(table), table.epochs
        pruner = multi_metric_pruner.MultiMetricPruner(
            PercentilePruner(percentile, n_startup_trials=startup),
            metric_directions=dict.fromkeys(_METRICS, "minimize"),
            joint=True,
        )
        sampler = make_sampler(sampler_name, seed=seed, startup=startup)
        self._sampled = optuna.create_study(directions=["minimize"] * len(_METRICS), sampler=sampler)
        self._pruned = optuna.create_study(directions=["minimize"] * len(_METRICS), pruner=pruner)
        self._trials: dict[int, tuple[optuna.Trial, Any]] = {}

    def propose(self) -> int | None:
        if not self._free:
            return None
        wanted = self._sampled.ask()
        row = self._rows.nearest(self._rows.space.sample(wanted), self._free)
        self._free.remove(row)
        # The sampler must learn what is true of the row, so that the trial is asked for again with the row's values.
        self._sampled.tell(wanted, state=TrialState.FAIL)
        self._sampled.enqueue_trial(self._rows.values_of(row))
        trial = self._sampled.ask()
        self._rows.space.sample(trial)
        self._trials[row] = trial, multi_metric_pruner.MultiMetricPrunerTrial(self._pruned.ask())
        return row

    def report(self, row: int, epoch: int) -> bool:
        result, (_, trial) = self._result(row, epoch), self._trials[row]
        trial.report(result, epoch)
        if epoch == self._last:
            self._tell(row, TrialState.COMPLETE, list(result.values()))
            return False
        if trial.should_prune():
            self._tell(row, TrialState.PRUNED)
            return False
        return True

    def failed(self, row: int) -> None:
        self._tell(row, TrialState.FAIL)

    def _tell(self, row: int, state: TrialState, values: list[float] | None = None) -> None:
        trial, pruned = self._trials[row]
        self._sampled.tell(trial, values, state)
        self._pruned.tell(pruned.number, values, state)
