"""A search that was checked: everything that can be refused is refused here, before any work."""

import json
import math
import os
import re
import shlex
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from explore.ablation.design import NOTE, SEED, Design
from explore.ablation.options import PAIRED
from explore.ablation.records import Scores
from explore.ablation.schedule import Paired
from explore.ablation.statistics import analyse
from explore.architecture.catalog import one_of
from explore.architecture.network import check
from explore.architecture.published import PUBLISHED, adapted
from explore.beginning import Beginning, beginning
from explore.cluster.job import Elsewhere
from explore.cluster.local import cores, in_turn, threads_each
from explore.cluster.options import CLUSTERS, Local, Manual
from explore.config import compose, has_option, vary
from explore.data.dataset import Dataset, load
from explore.definition import definition, without_operation
from explore.joining import check_machine, mark_folder
from explore.matching import designed
from explore.places import output_folder, study_url
from explore.schema import CATALOGS, Config
from explore.search.options import Search
from explore.search.prior import Prior, unbiased
from explore.search.proposals import Proposer
from explore.search.samplers import SAMPLERS, SPEED_AWARE
from explore.search.schedule import Rungs, Scheduler
from explore.search.space import Space, parse_space, to_overrides
from explore.search.speed_aware import SpeedAware
from explore.search.storage import find_study, of_one_machine, open_storage
from explore.search.study import Study, create_study, refuse_other_settings
from explore.search.warm_start import First
from explore.tracking import Tracking

_MAX_AUTOMATIC_WORKERS = 4
_OWN_AFFAIRS = ("study", "outputs", "storage", "cluster", "workers", "format")
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
    disk: float
    max_minutes: float
    seeds: int
    references: tuple[str, ...]
    tracking: Tracking
    definition: dict[str, Any]
    command: str
    places: tuple[str, ...]
    notes: dict[str, Any]
    costs: Path | None = None  # the folder of measured costs; None = one in `output`

    @property
    def stops(self) -> bool:
        """Whether a trial may be stopped and go on later; with speed_aware each is, after it was measured."""
        return len(self.rungs) > 1 or self.sampler == SPEED_AWARE

    @property
    def keys(self) -> Collection[str]:
        """What trials may set."""
        return {*self.space, self.design.options.by, SEED} if self.design else self.space


def prepare(config: Config, overrides: Sequence[str]) -> Plan:
    """Check all that can be checked before any work; raises ValueError and leaves the disk as it was."""
    _check_options(config, overrides)
    output = output_folder(config)
    url = study_url(config)
    _check_cluster(config, url)
    _refuse_unwritable(output)
    study = find_study(url, config.study or "sweep")
    _refuse_what_is_searched(config, overrides, study)
    dataset = load(config.data)
    _check_references(config, dataset)
    processes = config.training.devices
    workers = config.workers or max(1, (torch.cuda.device_count() or min(cores(), _MAX_AUTOMATIC_WORKERS)) // processes)
    threads = config.training.threads or threads_each(workers * processes)
    base = [*without_operation(overrides), f"training.threads={threads}"]
    if not any(key.startswith("data") and not key.startswith("data.augmentation") for key in config.space):
        base.append(f"{SNAPSHOT}={dataset.snapshot}")
    space = _checked_space(config, base)
    settings = json.loads(json.dumps({**definition(config), "images": dataset.fingerprint}))
    design = _design(config, base, space, dataset, study, settings) if config.sampler == PAIRED else None
    command = shlex.join(["python", "-m", "explore.sweep", *overrides])
    plan = Plan(
        study=config.study or "sweep",
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
        disk=1e9 * config.stopping.disk,
        max_minutes=math.inf if config.stopping.max_minutes is None else config.stopping.max_minutes,
        seeds=config.front.seeds,
        references=tuple(config.references),
        tracking=config.tracking,
        definition=settings,
        command=command,
        places=tuple(_places(overrides)),
        notes={
            "command": command,
            "report": shlex.join(["python", "-m", "explore.report", f"study={config.study}", *_places(overrides)]),
            "overrides": [*_for_workers(overrides), f"outputs={output.parent.resolve()}"],
            "commit": _commit(),
            "data": _facts(dataset),
            **({NOTE: design.to_dict()} if design else {}),
        },
    )
    first = scheduler(plan, space, dataset)
    if first.next([], room=True) is None:
        raise ValueError(f"space must hold a configuration that passes the rules, got none; {first.refusal}{_ADVICE}")
    if study:
        refuse_other_settings(study, settings)
    return plan


def _design(
    config: Config, base: Sequence[str], space: Space, dataset: Dataset, study: Study | None, settings: dict[str, Any]
) -> Design:
    """The design of an ablation; the arms of one that has begun are those of its study, if that is the same one."""
    if study:
        refuse_other_settings(study, settings)
    return designed(config, base, space, dataset, study)


def _check_options(config: Config, overrides: Sequence[str]) -> None:
    """Refuse what no search could be run with, whatever the images and the space."""
    if not config.space:
        raise ValueError("a search needs a space, got none; add +sweep=pareto, or one of your own in conf/sweep")
    for name in ("trials", "workers"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if not config.throughput:
        raise ValueError("a search needs throughput=on, got off: speed is one of its objectives")
    config.tracking.check()
    config.stopping.check()
    config.search.check()
    config.front.check()
    one_of("sampler", config.sampler, (*SAMPLERS, SPEED_AWARE, PAIRED))
    if config.sampler == PAIRED:
        config.ablation.check()
        _refuse_what_searches_have(overrides)
    elif foreign := [one for one in overrides if one.lstrip("+").startswith("ablation.")]:
        raise ValueError(
            f"ablation. has an effect with sampler=paired only, got {foreign[0]} and sampler={config.sampler}; "
            "leave it out, or begin with +sweep=ablation"
        )
    if config.training.num_nodes > 1:
        raise ValueError(
            f"training.num_nodes must be 1 in a search, got {config.training.num_nodes}: the processes of a trial are "
            "started on one machine; train on several with python -m explore.train"
        )
    if fixed := [name for name in ("devices", "num_nodes", "strategy") if f"training.{name}" in config.space]:
        raise ValueError(f"space.training.{fixed[0]} cannot be a dimension: it says how trials are run; set it for all")
    if "training.epochs" in config.space:
        raise ValueError(
            "space.training.epochs cannot be a dimension: all candidates have the same, and their curves tell what "
            "fewer would give; set training.epochs"
        )
    for name in config.references:
        one_of("references", name, PUBLISHED)


def _refuse_what_searches_have(overrides: Sequence[str]) -> None:
    """Refuse what would have no effect on an ablation."""
    for override in overrides:
        if re.split(r"[.=]", override.lstrip("+"))[0] in ("trials", "search", "stopping", "warm_start", "front"):
            raise ValueError(
                f"an ablation trains every arm to the end with the same seeds, got {override}; leave it out, and set "
                "ablation.seeds and ablation.max_seeds"
            )


def _refuse_what_is_searched(config: Config, overrides: Sequence[str], study: Study | None) -> None:
    """Refuse a value for a dimension of the space, which every trial sets anew.

    It stands where it has an effect, as what candidates that come first leave out, and where a study began with it.
    """
    asked, begun = config.warm_start, study.notes.get("overrides", ()) if study else ()
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        left_out = asked.list or (asked.published and not key.startswith(("model.", *CATALOGS)))
        if key in config.space and not left_out and override not in begun:
            raise ValueError(
                f"{key} must not be given where it is searched, got {override} and space.{key}={config.space[key]}; to "
                f"keep it fixed add '~space.{key}', to search other values replace it by 'space.{key}=choice({value})'"
            )


def _check_cluster(config: Config, url: str) -> None:
    """Refuse workers elsewhere that could not work."""
    if isinstance(config.cluster, Local):
        return
    kind = next(name for name, options in CLUSTERS.items() if type(config.cluster) is options)
    if of_one_machine(url):
        raise ValueError(
            f"cluster={kind} needs a storage for many machines, got an SQLite file, whose locks do not hold between "
            "them; take storage=postgres storage.url=postgresql://USER@HOST/DATABASE"
        )
    if config.workers is None and not isinstance(config.cluster, Manual):
        raise ValueError(f"cluster={kind} needs the number of workers, got none; add workers=8")
    config.cluster.check()


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


def scheduler(plan: Plan, space: Space, dataset: Dataset) -> Scheduler:
    """What decides what a worker does next; it begins nothing that breaks a rule on these images."""

    def check(overrides: Sequence[str]) -> None:
        vary(plan.base, overrides, plan.keys).candidate.check(dataset)

    if plan.design:
        return Paired(plan.design, space.dimensions, plan.rungs[-1], partial(_settled, plan.design), plan.workers)
    search, start = plan.search, plan.beginning
    then: Scheduler
    if plan.sampler == SPEED_AWARE:
        then = SpeedAware(
            space=space,
            rungs=plan.rungs,
            classes=len(dataset.classes),
            smallest=0.5 / len(dataset.validation),
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
        then = Rungs(proposer, plan.rungs, plan.eta)
    return First(start.first, then, plan.rungs[0]) if start.first else then


def _settled(design: Design, scores: Scores) -> bool:
    """Whether the seeds so far tell of every difference, or that it is negligible."""
    return analyse(scores, looks=design.looks, error=design.options.error, margin=design.options.margin).settled


def _checked_space(config: Config, base: Sequence[str]) -> Space:
    """The space, every dimension of which exists and takes its values; raises ValueError otherwise."""
    space = parse_space(config.space, lambda key, values: has_option(key, values, config))
    _refuse_options_of_others(config)
    for key, values in space.examples():
        group = key.partition(".")[0]
        variants = getattr(space.dimensions.get(group), "choices", None)
        if group != key and variants:
            fitting = [name for name in variants if has_option(key, {group: name}, config)]
            if not fitting:
                raise ValueError(f"space.{key}: none of {group}={', '.join(map(str, variants))} has this option")
            values = {group: fitting[0], **values}
        try:
            compose([*base, *to_overrides(values)])
        except ValueError as error:
            raise ValueError(f"space.{key}: {error}") from error
    return space


def _refuse_options_of_others(config: Config) -> None:
    """Refuse, all at once, dimensions that belong to other variants than the one that is fixed."""
    for group in CATALOGS.keys() - config.space.keys():
        others = [{group: name} for name in CATALOGS[group]]
        owned = [key for key in config.space if any(has_option(key, values, config) for values in others)]
        if lacking := [f"space.{key}" for key in owned if not has_option(key, {}, config)]:
            raise ValueError(
                f"{group}={getattr(config, group).name} must have every dimension of the space, and lacks "
                f"{', '.join(lacking)}; leave out: {shlex.join(f'~{key}' for key in lacking)}"
            )


def _check_references(config: Config, dataset: Dataset) -> None:
    """Refuse published models that cannot be built for these images: they are timed when the search has ended."""
    for name in config.references:
        try:
            sizes = {"image_size": dataset.image_size, "channels": dataset.channels, "classes": len(dataset.classes)}
            check(adapted(name, **sizes))
        except ValueError as error:
            raise ValueError(f"references must fit the images, got {name}: {error}; or leave it out") from error


def _refuse_unwritable(output: Path) -> None:
    try:
        existing = next(folder for folder in (output, *output.parents) if folder.exists())
    except OSError as error:
        reason = (error.strerror or "it failed").lower()
        raise ValueError(
            f"outputs must be a folder that can be written to, got {reason}; set outputs=FOLDER"
        ) from error
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"outputs must be a folder that can be written to, got {existing}; set outputs=FOLDER")


def _for_workers(overrides: Sequence[str]) -> list[str]:
    """What workers elsewhere find in the study; where and how many they are is known or their own affair.

    So is the snapshot, which lies in a cache of their own; that the images are the same is told by their fingerprint.
    """
    keys = [(one, one.lstrip("+").partition("=")[0]) for one in overrides]
    return [one for one, key in keys if key.partition(".")[0] not in _OWN_AFFAIRS and key != SNAPSHOT]


def _places(overrides: Sequence[str]) -> list[str]:
    """Those of the overrides that say where a study lies."""
    return [one for one in overrides if one.startswith(("outputs=", "storage=", "storage."))]


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


def _commit() -> str | None:
    """The commit of the source tree this runs from; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
