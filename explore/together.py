"""Seeds of one candidate trained at once: whether that pays on this device, and how it is done."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch

from explore.candidate import Candidate, build, resolved, training_batches, training_device, turns
from explore.cost.allocator import keep_freed_memory
from explore.cost.store import find_as, identity, keep_record
from explore.data.dataset import load
from explore.evaluation import COMPLETE, STOPPED, Epoch, Evaluation, Pace, ReportOf
from explore.training.checkpoint import newest
from explore.training.fit import fit_together
from explore.training.memory import out_of_memory
from explore.training.module import Diverged
from explore.training.pace import step_seconds

# Of a recipe: what decides neither the time of a step nor whether gradients agree.
_ANY = ("seed", "epochs", "rung", "lr", "schedule", "warmup_epochs", "weight_decay", "label_smoothing")


def pace(candidate: Candidate, seeds: int, costs: Path) -> Pace:
    """What a step takes alone and together with other seeds, on the device of the training.

    It is measured once for an architecture and kept in the folder `costs`, as is the reason why some cannot be trained
    together, unless it is that memory ran out.
    """
    if not candidate.training.alone:
        return Pace(seeds=seeds, refusal="each is trained on several devices")
    if candidate.model.compile == "on":
        return Pace(seeds=seeds, refusal="model.compile=on compiles each by itself")
    _prepare(candidate)
    dataset, device = load(candidate.data), training_device(candidate.training)
    networks = [build(one, dataset) for one in _with_seeds(candidate, seeds)]
    recipe = {name: value for name, value in asdict(resolved(candidate.training)).items() if name not in _ANY}
    architecture, augmentation = asdict(candidate.architecture(dataset)), asdict(candidate.data.augmentation)
    recipe["threads"] = torch.get_num_threads()  # where the recipe leaves it to the machine, too
    described = {"architecture": architecture, "recipe": recipe, "augmentation": augmentation, "seeds": seeds}
    key = f"pace-{identity(networks[0], described, device)}"
    if known := find_as(lambda record: Pace(**record), costs, key):
        return known
    train, _ = training_batches(candidate, dataset)
    try:
        with turns(candidate.training) as turn:
            loaders = [train.seeded(one.training.seed) for one in _with_seeds(candidate, seeds)]
            rounds = step_seconds(networks, loaders, resolved(candidate.training), device, turn)
        alone, together = (median(each) for each in zip(*rounds, strict=True))
        found = Pace(seeds=seeds, alone=alone, together=together)
    except ValueError as error:
        found = Pace(seeds=seeds, refusal=str(error))
    except Exception as error:  # whatever torch cannot do to several at once
        traceback.print_exc()
        found = Pace(seeds=seeds, refusal=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        if out_of_memory(error):  # as it may beside a neighbour, who will leave
            return found
    keep_record(costs, key, asdict(found))
    return found


def train_together(candidates: Sequence[Candidate], folders: Sequence[Path], report: ReportOf) -> Evaluation:
    """Train candidates that differ in their seed to the end at once, and leave in each folder what its training would.

    So whoever evaluates them afterwards finds nothing left to train, but for one that diverged, which goes on from its
    last checkpoint and does so again. Trains nothing where one of them was begun before: each goes on by itself.
    """
    if any(newest(folder, print) for folder in folders):
        return Evaluation(status=STOPPED, reason="some were begun before")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    first = candidates[0]
    _prepare(first)
    dataset = load(first.data)
    networks = [build(one, dataset) for one in candidates]

    def report_epoch(place: int, record: Mapping[str, float]) -> None:
        report((place, Epoch.read(record)))

    train, validation = training_batches(first, dataset)
    loaders = [train.seeded(one.training.seed) for one in candidates]
    with turns(first.training) as turn:
        try:
            fit_together(networks, loaders, validation, resolved(first.training), folders, report_epoch, turn=turn)
        except Diverged as error:
            print(error)
    return Evaluation(status=COMPLETE)


def _prepare(candidate: Candidate) -> None:
    """Have this process work as one that evaluates the candidate does."""
    keep_freed_memory()
    torch.set_num_threads(candidate.training.threads or torch.get_num_threads())


def _with_seeds(candidate: Candidate, count: int) -> list[Candidate]:
    recipe = candidate.training
    return [replace(candidate, training=replace(recipe, seed=(recipe.seed + more) % 2**32)) for more in range(count)]
