"""Searches with real training, at equal seconds: `python -m benchmarks.search_real`.

    methods=tpe,nsga2  seeds=5  seconds=150  outputs=outputs/search-real  format=text|json

For each seed ours and every method searches the space of `+sweep=pareto` on MNIST with one worker, one after the other,
and is interrupted when its seconds are over, as by Ctrl-C. Then the candidates on its front by validation accuracy are
tested, and the hypervolume of their test accuracies and speeds is taken, accuracy as it is and as the negative
logarithm of the error, speed on a log scale. Zero is chance at the slowest speed on any front. Behind p is Wilcoxon's
signed-rank test of searches with the same seeds, after Holm; with five seeds it cannot be below 0.06. Optuna's samplers
train everything to the end, as those who use them do. Searches that are in `outputs` already are not run again.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import parse
from benchmarks.origin import print_json
from benchmarks.result_rows import Row, row, shown
from benchmarks.search_statistics import corrected, paired
from explore.candidate import test_accuracy
from explore.config import compose, vary
from explore.data.dataset import load
from explore.search.front import hypervolume
from explore.search.improvement import scales
from explore.search.samplers import SAMPLERS
from explore.search.storage import open_storage
from explore.search.study import Study
from explore.search.trial import Trial, front

_BASE = ("+sweep=pareto", "training.threads=1", "training.precision=32-true")
_ENDLESS = ("trials=10000", "workers=1", "tracking.mode=disabled")
_LEAVING_SECONDS = 60.0  # until a search that was interrupted has written its report
Array = NDArray[np.float64]
Points = list[tuple[float, float]]  # test accuracy as a fraction, images in a pass of the reference network
SCALES = ("plain", "log error")
OURS = "speed_aware"


def search(method: str, seed: int, seconds: float, outputs: Path) -> Points:
    """The tested front of a search, run now or before."""
    name = f"{method}-{seed}"
    file = outputs / f"{name}.json"
    if not file.exists():
        shutil.rmtree(
            outputs / name, ignore_errors=True
        )  # of one that was cut off: it would have more than its seconds
        own = ["search.stop=off"] if method == OURS else ["stopping.rule=off"]
        _run([*_BASE, *_ENDLESS, *own, f"sampler={method}", f"search.seed={seed}", f"study={name}"], seconds, outputs)
        study = Study(open_storage(f"sqlite:///{outputs / name / 'study.db'}"), name)
        trials = study.trials()
        found = {"points": _tested(study, outputs / name), "reference_ms": _reference_ms(trials)}
        file.write_text(json.dumps({**found, "epochs": sum(one.epochs for one in trials), "trials": len(trials)}))
    known = json.loads(file.read_text())
    # As images in a pass of the reference network: each search has found its speed for itself.
    return [(accuracy, speed * known["reference_ms"]) for accuracy, speed in known["points"]]


def _reference_ms(trials: Sequence[Trial]) -> float:
    costs = [trial.evaluation.cost for trial in trials]
    return next(one.throughput.reference_ms or 1.0 for one in costs if one and one.throughput)


def _run(arguments: Sequence[str], seconds: float, outputs: Path) -> None:
    command = [sys.executable, "-m", "explore.sweep", *arguments, f"outputs={outputs}"]
    outputs.mkdir(parents=True, exist_ok=True)
    with (outputs / "log.txt").open("a") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        time.sleep(seconds)
        if running.poll() is not None:
            raise SystemExit(f"a search has ended by itself, see {outputs / 'log.txt'}")
        running.send_signal(signal.SIGINT)
        try:
            running.wait(_LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()


def _tested(study: Study, folder: Path) -> Points:
    found = []
    for trial in front(study.trials()):
        candidate = vary(_BASE, trial.proposal.overrides).candidate
        found.append((test_accuracy(candidate, folder / trial.folder), trial.throughput or 0.0))
    return found


def volumes(
    fronts: Mapping[str, Sequence[Points]], smallest: float, chance: float
) -> dict[str, dict[str, list[float]]]:
    """By scale and method the hypervolume of each seed, as a share of that of all fronts together.

    Raises ValueError where no search has a front.
    """
    everything = [point for points in fronts.values() for one in points for point in one]
    if not everything:
        raise ValueError("a search must train a candidate to its end, got none that did; give it more seconds")
    slowest = min(speed for _, speed in everything)
    found: dict[str, dict[str, list[float]]] = {}
    for name, scale in zip(SCALES, scales(smallest), strict=True):
        area = partial(_area, scale=scale, chance=chance, slowest=slowest)
        found[name] = {method: [area(one) / area(everything) for one in points] for method, points in fronts.items()}
    return found


def _area(points: Points, *, scale: Callable[[Array], Array], chance: float, slowest: float) -> float:
    if not points:
        return 0.0
    accuracy, speed = np.array(points).T
    reference = -float(scale(np.array(chance))), -np.log(0.99 * slowest)  # the slowest counts as well
    return hypervolume(np.column_stack([-scale(accuracy), -np.log(speed)]), reference)


def rows(found: Mapping[str, Mapping[str, Sequence[float]]], ours: str) -> list[Row]:
    """Median and quartiles of each method, and the p-value of the test of each other method against `ours`."""
    lines: list[Row] = []
    for scale, methods in found.items():
        lines += [row(f"{scale}: hypervolume by {method}", values, "of all") for method, values in methods.items()]
        others = [{"method": name, "p": paired(methods[ours], methods[name])} for name in methods if name != ours]
        lines += [row(f"{scale}: p of {ours} and {one['method']}", one["p_holm"], "") for one in corrected(others)]
    return lines


def main(arguments: Sequence[str]) -> None:
    defaults = {"methods": ("tpe", "nsga2"), "seeds": 5, "seconds": 150.0, "outputs": "outputs/search-real"}
    asked = parse(arguments, __doc__, defaults, {"methods": SAMPLERS})
    fronts: dict[str, list[Points]] = {method: [] for method in (OURS, *asked["methods"])}
    for seed in range(asked["seeds"]):
        for method, ended in fronts.items():
            ended.append(search(method, seed, asked["seconds"], Path(asked["outputs"])))
    dataset = load(compose(_BASE).data)
    found = volumes(fronts, 0.5 / len(dataset.test), 1 / len(dataset.classes))
    lines = rows(found, OURS)
    if asked["format"] == "json":
        print_json(lines)
    else:
        print("\n".join(map(shown, lines)))


if __name__ == "__main__":
    main(sys.argv[1:])
