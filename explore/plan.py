"""A search that was checked: everything that can be refused is refused here, before any work."""

import json
import math
import shlex
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from explore.ablation.design import NOTE, Design
from explore.ablation.options import PAIRED
from explore.ablation.records import Scores
from explore.ablation.schedule import Paired
from explore.ablation.statistics import analyse
from explore.beginning import Beginning, beginning
from explore.candidate import TooLargeError
from explore.checks import (
    check_cluster,
    check_options,
    check_references,
    checked_space,
    refuse_unwritable,
    refuse_what_is_searched,
    without_options_of_others,
)
from explore.cluster.job import Elsewhere
from explore.cluster.local import cores, in_turn, threads_each
from explore.cluster.options import Local
from explore.config import vary
from explore.data.dataset import Dataset, load
from explore.definition import definition, without_operation
from explore.joining import check_machine, mark_folder
from explore.matching import designed
from explore.places import output_folder, study_url
from explore.schema import Config
from explore.search.options import Search
from explore.search.prior import Prior, unbiased
from explore.search.proposals import Proposer
from explore.search.samplers import SPEED_AWARE
from explore.search.schedule import Rungs, Scheduler
from explore.search.space import Space
from explore.search.speed_aware import SpeedAware
from explore.search.storage import find_study, open_storage
from explore.search.study import Study, create_study, refuse_other_settings
from explore.search.veto import Veto
from explore.search.warm_start import First
from explore.tracking import Tracking

_MAX_AUTOMATIC_WORKERS = 4
# A GPU has up to four workers where images have at most so many pixels a side: some begin and end their trials while
# that of another is on the GPU. Eight do hardly more in an hour, and decide with fewer results.
_SMALL_IMAGES, _SHARE_A_GPU = 64, 4
_OWN_AFFAIRS = ("study", "outputs", "storage", "cluster", "workers", "format")
_UNITS = {"params": "parameters", "macs": "multiply-adds"}
SNAPSHOT = "data.snapshot"  # so that all trials see the images that this process sees, whatever becomes of the files
_ADVICE = "; change a dimension like this: 'space.model.patch_size=choice(4, 8)'"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search that was checked and can be sent to its workers.

    `base` are the overrides that every candidate shares, `design` is that of an ablation, None for a search. `command`
    is the line that goes on with it, `places`
    are those of its overrides that say where the study lies, `notes` are kept with the study: for its report, and
    `overrides` for workers elsewhere.
    """

    study: str
    url: str = field(repr=False)  # may hold a password
    output: Path
    base: tuple[str, ...]
    space: dict[str, str]
    sampler: str
    design: Design | None
    search: Search
    beginning: Beginning
    least_throughput: float | None
    trials: int
    workers: int
    cluster: Local | Elsewhere
    rungs: tuple[int, ...]
    eta: int
    veto: float | None
    disk: float
    max_minutes: float
    seeds: int
    references: tuple[str, ...]
    tracking: Tracking
    definition: dict[str, Any]
    command: str
    places: tuple[str, ...]
    notes: dict[str, Any]
    sampler_before: str | None = None  # what searched the study until now, where that was another one
    costs: Path | None = None  # the folder of measured costs; None = one in `output`

    @property
    def stops(self) -> bool:
        """Whether a trial may be stopped and go on later; with speed_aware each is, after it was measured."""
        return len(self.rungs) > 1 or self.sampler == SPEED_AWARE

    @property
    def keys(self) -> Collection[str]:
        """What trials may set."""
        return self.design.keys if self.design else self.space


def prepare(config: Config, overrides: Sequence[str]) -> Plan:
    """Check all that can be checked before any work; raises ValueError and leaves the disk as it was."""
    check_options(config, overrides)
    config = without_options_of_others(config, overrides)
    output = output_folder(config)
    url = study_url(config)
    check_cluster(config, url)
    refuse_unwritable(output)
    study = find_study(url, output.name)
    refuse_what_is_searched(config, overrides, study)
    dataset = load(config.data)
    check_references(config, dataset)
    processes = config.training.devices
    workers = config.workers or _workers(processes, dataset)
    threads = config.training.threads or threads_each(workers * processes)
    base = [*without_operation(overrides), f"training.threads={threads}"]
    if not any(key.startswith("data") and not key.startswith("data.augmentation") for key in config.space):
        base.append(f"{SNAPSHOT}={dataset.snapshot}")
    space = checked_space(config, base)
    settings = json.loads(json.dumps({**definition(config), "images": dataset.fingerprint}))
    design = _design(config, base, space, dataset, study, settings) if config.sampler == PAIRED else None
    command = shlex.join(["python", "-m", "explore.sweep", *overrides])
    plan = Plan(
        study=output.name,
        url=url,
        output=output,
        base=tuple(base),
        space=dict(config.space),
        sampler=config.sampler,
        design=design,
        search=config.search,
        beginning=beginning(config, base, space, dataset),
        least_throughput=config.limits.throughput,
        trials=len(design.arms) * design.looks[-1] if design else config.trials,
        workers=workers,
        cluster=config.cluster,
        rungs=(config.training.epochs,) if design else config.stopping.rungs(config.training.epochs),
        eta=config.stopping.eta,
        veto=config.stopping.veto,
        disk=1e9 * config.stopping.disk,
        max_minutes=math.inf if config.stopping.max_minutes is None else config.stopping.max_minutes,
        seeds=config.front.seeds,
        references=tuple(config.references),
        tracking=config.tracking,
        definition=settings,
        command=command,
        sampler_before=_sampler_before(config, study),
        places=tuple(_places(overrides)),
        notes={
            **_notes(config, overrides, output, dataset),
            "command": command,
            **({NOTE: design.to_dict()} if design else {}),
        },
    )
    _refuse_a_space_of_nothing(plan, space, dataset)
    if study:
        refuse_other_settings(study, settings)
    return plan


def _refuse_a_space_of_nothing(plan: Plan, space: Space, dataset: Dataset) -> None:
    """Refuse a space of which rules or limits of size refuse all; of the latter it says how near anything came."""
    too_large: list[TooLargeError] = []
    first = scheduler(plan, space, dataset, too_large)
    if first.next([], room=True) is not None:
        return
    if not too_large:
        raise ValueError(_nothing_passes(str(first.refusal), space))
    nearest = min(too_large, key=lambda one: one.by)
    limits = " and ".join(f"limits.{name}" for name in nearest.sizes)
    got = " and ".join(f"{getattr(nearest.limits, name):,}" for name in nearest.sizes)
    sizes = " and ".join(f"{size:,} {_UNITS[name]}" for name, size in nearest.sizes.items())
    raise ValueError(
        f"{limits} must leave some configuration, got {got}; the smallest looked at has {sizes}; loosen {limits}, or "
        "widen the space"
    )


def _nothing_passes(refusal: str, space: Space) -> str:
    """What to say of a space of which a rule refuses all, in the end with these words."""
    searched = any(key.rpartition(".")[2] in refusal for key in space.dimensions)
    return f"space must hold a configuration that passes the rules, got none; {refusal}{_ADVICE if searched else ''}"


def _design(
    config: Config, base: Sequence[str], space: Space, dataset: Dataset, study: Study | None, settings: dict[str, Any]
) -> Design:
    """The design of an ablation; the arms of one that has begun are those of its study, if that is the same one."""
    if study:
        refuse_other_settings(study, settings)
    return designed(config, base, space, dataset, study)


def begin(plan: Plan) -> Study:
    """Make the output folder and open or make the study; raises ValueError where that cannot be done."""
    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"outputs must be a folder that can be written to, got {plan.output}: {error}") from error
    with in_turn(plan.output / ".begin"):  # of two who begin at once the second one finds what the first has written
        study = open_study(plan)
        check_machine(study, plan.url)
        mark_folder(study, plan.output)
        for key, value in plan.notes.items():
            study.note(key, value)
    return study


def open_study(plan: Plan) -> Study:
    """The study of a plan; raises ValueError when it exists with other settings."""
    return create_study(open_storage(plan.url), plan.study, plan.definition)


def scheduler(plan: Plan, space: Space, dataset: Dataset, too_large: list[TooLargeError] | None = None) -> Scheduler:
    """What decides what a worker does next; it begins nothing that breaks a rule on these images.

    It adds what it finds beyond the limits of size to `too_large`.
    """

    def check(overrides: Sequence[str]) -> None:
        candidate = vary(plan.base, overrides, plan.keys).candidate
        candidate.check(dataset)
        try:
            candidate.check_size(dataset)
        except TooLargeError as error:
            if too_large is not None:
                too_large.append(error)
            raise

    if plan.design:
        return Paired(plan.design, space.dimensions, plan.rungs[-1], partial(_settled, plan.design), plan.workers)
    search, start = plan.search, plan.beginning
    classes, smallest = len(dataset.classes), 0.5 / len(dataset.validation)
    then: Scheduler
    if plan.sampler == SPEED_AWARE:
        then = SpeedAware(
            space=space,
            rungs=plan.rungs,
            classes=classes,
            smallest=smallest,
            seed=search.seed,
            # A short search must learn, too; and those that come first are no sample of the space.
            startup=max(2, min(search.startup, plan.trials // 3)) + (0 if start.teaches else len(start.first)),
            check=check,
            least_throughput=plan.least_throughput,
            tolerance=search.tolerance,
            fewest=search.fewest if search.stop == "auto" else None,
            trend=partial(Prior.load(), image_size=dataset.image_size) if search.prior == "learned" else unbiased,
            earlier=start.earlier,
            elsewhere=start.elsewhere,
        )
    else:
        proposer = Proposer(space=space, sampler=plan.sampler, seed=search.seed, startup=search.startup, check=check)
        veto = Veto(space, plan.rungs[-1], classes, smallest, plan.veto) if plan.veto is not None else None
        then = Rungs(proposer, plan.rungs, plan.eta, veto)
    return First(start.first, then, plan.rungs[0]) if start.first else then


def _settled(design: Design, scores: Scores) -> bool:
    """Whether the seeds so far tell of every difference, or that it is negligible."""
    return analyse(scores, looks=design.looks, error=design.options.error, margin=design.options.margin).settled


def _for_workers(overrides: Sequence[str]) -> list[str]:
    """What workers elsewhere find in the study; where and how many they are is known or their own affair.

    So is the snapshot, which lies in a cache of their own; that the images are the same is told by their fingerprint.
    """
    keys = [(one, one.lstrip("+").partition("=")[0]) for one in overrides]
    return [one for one, key in keys if key.partition(".")[0] not in _OWN_AFFAIRS and key != SNAPSHOT]


def _places(overrides: Sequence[str]) -> list[str]:
    """Those of the overrides that say where a study lies."""
    return [one for one in overrides if one.startswith(("outputs=", "storage=", "storage."))]


def _notes(config: Config, overrides: Sequence[str], output: Path, dataset: Dataset) -> dict[str, Any]:
    """What workers elsewhere and a reader of the report want to know."""
    return {
        "report": shlex.join(["python", "-m", "explore.report", f"study={output.name}", *_places(overrides)]),
        "overrides": [*_for_workers(overrides), f"outputs={output.parent.resolve()}"],
        "commit": _commit(),
        "sampler": config.sampler,
        "data": _facts(dataset),
    }


def _sampler_before(config: Config, study: Study | None) -> str | None:
    """What has searched a study until now, if that is another sampler than it goes on with."""
    before: str = study.notes.get("sampler", config.sampler) if study else config.sampler
    return before if before != config.sampler else None


def _facts(dataset: Dataset) -> dict[str, Any]:
    """What a reader of the report wants to know of the images."""
    return {
        "name": dataset.name,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "classes": len(dataset.classes),
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "skipped": dataset.skipped,
        "fingerprint": dataset.fingerprint,
    }


def _workers(processes: int, dataset: Dataset) -> int:
    """How many trials of so many processes this machine trains at a time, unless told otherwise."""
    if not (gpus := torch.cuda.device_count()):
        return max(1, min(cores(), _MAX_AUTOMATIC_WORKERS) // processes)
    if processes == 1 and dataset.image_size <= _SMALL_IMAGES:
        return gpus * max(1, min(_SHARE_A_GPU, cores() // gpus))
    return max(1, gpus // processes)


def _commit() -> str | None:
    """The commit of the source tree this runs from; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
