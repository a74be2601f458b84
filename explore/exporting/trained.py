"""The trained network of a trial, from what the study says of it and what its training left on disk."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from explore import candidate as candidates
from explore.ablation.design import design_of
from explore.architecture.network import Network
from explore.candidate import Candidate
from explore.config import compose, vary
from explore.counted import counted
from explore.data.dataset import Dataset, load
from explore.definition import alone, without_operation
from explore.evaluation import COMPLETE, Epoch
from explore.search.study import Study
from explore.search.trial import Trial, front


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trial with its network: on the processor, in evaluation mode, trained to the last epoch of `curve`."""

    trial: Trial
    candidate: Candidate
    dataset: Dataset
    network: Network
    curve: tuple[Epoch, ...]


def asked_for(trial: str, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of a study that `trial=` means: a number, or `front`.

    Raises ValueError for anything else, and for trials that were never measured.
    """
    if trial == "front":
        if members := front(trials):
            return members
        raise ValueError("trial=front needs a complete trial, got a study without one; go on with the search")
    by_number = {str(one.number): one for one in trials}
    if trial not in by_number:
        last = trials[-1].number if trials else None
        known = "it has none yet" if last is None else f"from 0 to {last}"
        raise ValueError(f"trial must be front or the number of a trial of the study ({known}), got {trial!r}")
    if by_number[trial].throughput is None:
        status = by_number[trial].status
        raise ValueError(f"trial must be one that was measured, got {trial}, which is {status}; take another one")
    return [by_number[trial]]


def check_changes(study: Study, changes: Sequence[str]) -> None:
    """Raise ValueError for changes that the settings of a study do not take, and where its images cannot be read."""
    load(compose([*_settings(study), *changes]).data)


def trained(study: Study, trial: Trial, output: Path, changes: Sequence[str]) -> Trained:
    """The network of a trial with its weights, from its own folder or from where its command has trained it again.

    Args:
        study: the study.
        trial: one of it.
        output: folder of the study.
        changes: overrides of data and cost for this once: where images lie, how speed is measured.

    Raises:
        ValueError: there are no weights, or the images are not those of the study; says what to do.
    """
    known, design = _settings(study), design_of(study)
    base, keys = without_operation(known), design.keys if design else compose(known).space
    as_trained = vary(base, trial.proposal.overrides, keys)
    candidate = vary([*base, *changes], trial.proposal.overrides, keys).candidate
    dataset = load(candidate.data)
    if (theirs := study.notes["data"]["fingerprint"]) != dataset.fingerprint:
        raise ValueError(
            f"the images must be those of the study ({theirs}), got others ({dataset.fingerprint}): the files, or how "
            "they are read, have changed since; bring back those that it was searched with"
        )
    lacking = []
    for folder in (output / trial.folder, alone(replace(as_trained, outputs=str(output.parent)))):
        try:
            network, curve = candidates.trained(candidate, dataset, folder)
        except ValueError as error:
            lacking.append(str(error).removesuffix("; train it again"))
            continue
        if len(curve) == candidate.training.epochs:
            return Trained(trial=trial, candidate=candidate, dataset=dataset, network=network, curve=curve)
        lacking.append(f"{folder} has {len(curve)} of {candidate.training.epochs} epochs")
    raise ValueError(
        f"trial {trial.number} must have been trained to its end, with its checkpoint kept, got one that is "
        f"{_words(trial)}: {'; '.join(lacking)}. Train it, and export it again:\n  "
        f"{trial.command} {shlex.quote(f'outputs={output.parent}')}"
    )


def _settings(study: Study) -> list[str]:
    """The overrides that a search was begun with; raises ValueError where there are none."""
    known: list[str] | None = study.notes.get("overrides")
    if known is None:
        raise ValueError(f"study {study.name} must have been begun by explore.sweep, got one without its settings")
    return known


def _words(trial: Trial) -> str:
    epochs = trial.evaluation.epochs
    return trial.status if trial.status == COMPLETE else f"{trial.status} after {counted(epochs, 'epoch')}"
