"""The disk that the checkpoints of stopped trials take has a limit: the least promising are given up for it."""

import os
import shutil
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from explore.evaluation import STOPPED
from explore.search.front import losses
from explore.search.stopping import places
from explore.search.study import Study
from explore.search.trial import Trial

_CHECKPOINTS = "*.ckpt"
# Bytes of the checkpoints of stopped trials, by their rows and whether they were given up: while both are the same,
# nobody writes there.
Sizes = dict[tuple[int, bool], int]


def make_room(study: Study, output: Path, limit: float, known: Sizes) -> list[Trial]:
    """Remove checkpoints of stopped trials until all of them together take at most `limit` bytes; who was given up.

    Those with the fewest epochs go first, because they are the cheapest to do without, and of these the ones that
    others beat. What is `known` is not looked at again, and what was looked at is known.
    """
    # Who was only measured has none.
    stopped = [trial for trial in study.trials() if trial.status == STOPPED and trial.epochs]
    for trial in stopped:
        if (trial.row, trial.given_up) not in known:
            known[trial.row, trial.given_up] = _size(output / trial.folder)
    sizes = {trial.row: known[trial.row, trial.given_up] for trial in stopped}
    excess = sum(sizes.values()) - limit
    if excess <= 0:
        return []
    given_up = []
    for trial in _least_promising_first([one for one in stopped if sizes[one.row]]):
        if excess <= 0:
            break
        study.give_up(trial)  # first, so that nobody goes on with it
        for file in (output / trial.folder).glob(_CHECKPOINTS):
            file.unlink()
        excess -= sizes[trial.row]
        known[trial.row, True] = 0
        given_up.append(trial)
    return given_up


def bring(before: Path, now: Path) -> None:
    """Copy the checkpoint of a trial to the folder where it goes on, if that is another one."""
    if before == now:
        return
    now.mkdir(parents=True, exist_ok=True)
    for file in before.glob(_CHECKPOINTS):
        partial = now / f"{file.name}.partial"
        with suppress(FileNotFoundError):  # one who was given up may be alive, and removes the one before its last
            shutil.copyfile(file, partial)
            os.replace(partial, now / file.name)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(_CHECKPOINTS))


def _least_promising_first(trials: list[Trial]) -> list[Trial]:
    found: list[Trial] = []
    by_epochs = sorted(trials, key=lambda trial: trial.evaluation.epochs)
    for _, group in groupby(by_epochs, key=lambda trial: trial.evaluation.epochs):
        alike = list(group)
        order = places(losses([one.accuracy or 0.0 for one in alike], [one.throughput or 1.0 for one in alike]))
        found += [alike[index] for index in sorted(range(len(alike)), key=lambda index: -order[index])]
    return found
