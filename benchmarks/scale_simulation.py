"""How busy ten to ten thousand workers would be: a simulated clock, trials as long as recorded ones, measured costs.

    python -m benchmarks.scale_simulation propose=0.1 claim=0.03 tell=0.05 beat=0.02 look=0.001 [writers=1] [data=mnist]
        [longer=1,10,100,1000] [workers=10,30,100,300,1000,3000,10000] [picture=FILE] [format=json]

A worker waits for its turn, looks at what the others do (`look` seconds for each), proposes (`propose`) and claims
(`claim`), trains, and tells the storage (`tell`); a heartbeat takes the storage `beat` seconds. Proposals are made one
at a time, as in a real search; the storage does as many things at a time as it has `writers`, an SQLite file one. The
steps are those of the candidates of sweeps/pareto-mnist, on configurations of a recorded table with their
seconds, and so many times `longer`, as larger images or networks would be. Efficiency is the share of their time that
workers measure or train.
"""

import heapq
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import parse
from benchmarks.origin import print_json
from benchmarks.search_judge import Table, load_table
from benchmarks.search_table import BASES
from explore.search.owner import HEARTBEAT_SECONDS

# How many of the 140 steps of that search came to each rung, and the epochs that led there; the first only measured.
STEPS = {0: 50, 1: 36, 2: 21, 6: 18, 18: 15}
_ROUNDS, _LEAST = 8, 4000  # steps that are simulated, for each worker and at all
_COSTS = ("propose", "claim", "tell", "beat", "look")
_WORKERS = (10, 30, 100, 300, 1000, 3000, 10_000)
_DEFAULTS = {"writers": 1, "data": "mnist", "longer": (1.0, 10.0, 100.0, 1000.0), "workers": _WORKERS, "picture": ""}
_ASK, _CLAIM, _CLAIMED, _TELL = range(4)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a proposal and of reading a trial that is running, and of a writer of the storage for the rest."""

    propose: float
    look: float
    claim: float
    tell: float
    beat: float
    writers: int = 1


@dataclass(frozen=True, kw_only=True)
class Load:
    """Shares of the time: that workers measure or train, that the turn is taken, that the storage is busy."""

    efficiency: float
    turn: float
    storage: float


def drawn(table: Table, count: int, longer: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Seconds of so many steps, at random."""
    epochs = generator.choice(list(STEPS), count, p=np.array(list(STEPS.values())) / sum(STEPS.values()))
    rows = generator.integers(len(table.overrides), size=count)
    seconds = np.where(epochs > 0, epochs * table.epoch_seconds[rows], table.cost_seconds[rows])
    return np.asarray(longer * seconds, float)


def simulate(workers: int, seconds: Sequence[float], costs: Costs) -> Load:
    """Let the workers take the steps, of so many seconds each, one after the other."""
    beats = workers * costs.beat / HEARTBEAT_SECONDS / costs.writers
    if beats >= 1:
        return Load(efficiency=0.0, turn=0.0, storage=1.0)  # it hears heartbeats and nothing else
    claim, tell = costs.claim / (1 - beats), costs.tell / (1 - beats)
    propose = costs.propose + workers * costs.look
    steps, waiting = iter(seconds), deque[int]()
    events = [(0.0, _ASK, worker) for worker in range(workers)]
    now = began = trained = taken = written = 0.0
    writers = [0.0] * costs.writers  # when each is free again
    turn = False
    while events:
        now, kind, worker = heapq.heappop(events)
        if kind == _ASK:
            waiting.append(worker)
        elif kind == _CLAIMED:
            turn, taken = False, taken + now - began
            if (length := next(steps, None)) is None:
                break
            trained += length
            heapq.heappush(events, (now + length, _TELL, worker))
        else:
            service, then = (claim, _CLAIMED) if kind == _CLAIM else (tell, _ASK)
            done = max(now, writers[0]) + service
            heapq.heapreplace(writers, done)
            written += service / costs.writers
            heapq.heappush(events, (done, then, worker))
        if waiting and not turn:
            turn, began = True, now
            heapq.heappush(events, (now + propose, _CLAIM, waiting.popleft()))
    ahead = sum(when - now for when, kind, _ in events if kind == _TELL)  # of those that are training at the end
    busy = trained - ahead
    storage = beats + (1 - beats) * min(1.0, written / now)
    return Load(efficiency=busy / (workers * now), turn=min(1.0, taken / now), storage=storage)


def main(arguments: Sequence[str]) -> None:
    """Simulate, print, and draw where a picture is asked for."""
    options = parse(arguments, __doc__, dict.fromkeys(_COSTS, float) | _DEFAULTS, {"data": BASES})
    costs = Costs(**{name: options[name] for name in (*_COSTS, "writers")})
    table = load_table(options["data"])
    found: dict[float, dict[int, Load]] = {}
    for longer in options["longer"]:
        generator = np.random.default_rng(0)
        found[longer] = {
            workers: simulate(workers, drawn(table, max(_LEAST, _ROUNDS * workers), longer, generator).tolist(), costs)
            for workers in options["workers"]
        }
    step = float(drawn(table, 100_000, 1.0, np.random.default_rng(1)).mean())
    if options["picture"]:
        from benchmarks.scale_picture import draw

        shares = {longer * step: {n: load.efficiency for n, load in loads.items()} for longer, loads in found.items()}
        draw(shares, Path(options["picture"]))
    if options["format"] == "json":
        print_json(_rows(found, step))
        return
    print("efficiency (share of the time that the turn is taken, that the storage is busy)")
    for longer, loads in found.items():
        print(f"steps of {longer * step:,.1f} s on average")
        for workers, load in loads.items():
            print(f"  {workers:6,} workers {load.efficiency:6.1%} ({load.turn:4.0%}, {load.storage:4.0%})")


def _rows(found: Mapping[float, Mapping[int, Load]], step: float) -> list[dict[str, object]]:
    return [
        {
            "name": f"efficiency of {workers:,} workers, steps of {longer * step:.1f} s",
            "value": load.efficiency,
            "unit": "share",
            "bar": None,
            "holds": None,
        }
        for longer, loads in found.items()
        for workers, load in loads.items()
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
