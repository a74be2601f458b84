"""The searches that are replayed on recorded learning curves, by their names."""

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks import search_public
from benchmarks.search_judge import SCALES, SHARES, Finish, Table
from benchmarks.search_prior import unseen
from benchmarks.search_replay import SpeedUnknown, replay, sampled, speed_aware
from benchmarks.search_rows import Rows
from explore.search.options import Search
from explore.search.prior import unbiased
from explore.search.schedule import Scheduler
from explore.search.speed_aware import SpeedAware

OURS = "speed_aware"
_RUNGS, _WHOLE = (1, 3, 9, 27), (27,)
_VETO = 0.05
_MOST = 4000
# Of each sampler of Optuna what came off best, and others, its own among them. That of NSGA-II is its population.
_STARTUPS: Mapping[str, tuple[int, ...]] = {"nsga2": (12, 6, 25, 50), "tpe": (10, 5, 20), "gp": (6, 10)}
Method = Callable[[Table, int, int], list[Finish]]


def _loop(scheduler: Callable[[Rows, int], Scheduler], table: Table, seed: int, workers: int) -> list[Finish]:
    return replay(table, lambda rows: scheduler(rows, seed), workers, enough=partial(_enough, table))


def _enough(table: Table, finishes: list[Finish]) -> bool:
    if not finishes:
        return False
    numbers = [one.configuration for one in finishes]
    complete = all(table.progress(numbers, scale)[-1] >= SHARES[-1] for scale in SCALES)
    return complete or finishes[-1].epochs > _MOST


def _of_optuna(sampler: str, startup: int, rungs: tuple[int, ...] = _WHOLE, below: float | None = None) -> Method:
    return partial(_loop, lambda rows, seed: sampled(rows, sampler, seed, startup, rungs, below=below))


def _ours(
    rungs: tuple[int, ...] = _RUNGS, kind: type[SpeedAware] = SpeedAware, *, prior: bool = True, **options: float
) -> Method:
    def scheduler(rows: Rows, seed: int) -> Scheduler:
        trend = unseen(rows.table.data) if prior else unbiased
        return speed_aware(rows, seed, rungs, kind, trend=trend, **options)

    return partial(_loop, scheduler)


METHODS: Mapping[str, Method] = {
    OURS: _ours(),
    "random": _of_optuna("random", 0),
    **{sampler: _of_optuna(sampler, startups[0]) for sampler, startups in _STARTUPS.items()},
    "moasha": lambda table, seed, workers: search_public.moasha(table, seed, workers, ranked=True),
    "moasha, as released": lambda table, seed, workers: search_public.moasha(table, seed, workers),
    "tpe, pruner": lambda table, seed, workers: search_public.with_pruner(table, "tpe", seed, workers, startup=10),
    "nsga2, pruner": lambda table, seed, workers: search_public.with_pruner(table, "nsga2", seed, workers, startup=12),
    "random, rungs": _of_optuna("random", 0, _RUNGS),
    "tpe, rungs": _of_optuna("tpe", 10, _RUNGS),
    "random, rungs, veto": _of_optuna("random", 0, _RUNGS, _VETO),
    "tpe, rungs, veto": _of_optuna("tpe", 10, _RUNGS, _VETO),
    # Ours as it ends by itself, which elsewhere it may not do before it has 99 %.
    "speed_aware, to its own end": _ours(tolerance=Search.tolerance, fewest=Search.fewest),
    **{
        f"{sampler}, start-up {startup}": _of_optuna(sampler, startup)
        for sampler, startups in _STARTUPS.items()
        for startup in startups[1:]
    },
    # Ours with a part taken away.
    "speed_aware, no prior": _ours(prior=False),
    "speed_aware, no rungs": _ours(_WHOLE),
    "speed_aware, speed unknown": _ours(kind=SpeedUnknown),
}
