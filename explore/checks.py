"""What is refused of a search before any work: options, space, references and folders that cannot be."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from explore.ablation.options import PAIRED
from explore.architecture.catalog import one_of
from explore.architecture.network import check
from explore.architecture.published import PUBLISHED, adapted
from explore.cluster.local import cores
from explore.cluster.options import CLUSTERS, Local, Manual
from explore.config import compose, has_option
from explore.data.dataset import Dataset
from explore.schema import CATALOGS, Config
from explore.search.samplers import SAMPLERS, SPEED_AWARE
from explore.search.space import Space, Values, parse_space, to_overrides
from explore.search.storage import of_one_machine
from explore.search.study import Study

_MOST_WORKERS_PER_CORE = 8
_SEARCHED = ("model", *CATALOGS, "training", "data", "pretrained")
_OF_SPEED_AWARE = tuple(f"search.{name}=" for name in ("prior", "stop", "fewest", "tolerance"))
_HOW_TRIALS_RUN = ("accelerator", "devices", "num_nodes", "strategy", "threads", "rung")


def check_options(config: Config, overrides: Sequence[str]) -> None:
    """Refuse what no search could be run with, whatever the images and the space."""
    if not config.space:
        raise ValueError("a search needs a space, got none; add +sweep=pareto, or one of your own in conf/sweep")
    for name in ("trials", "workers"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if not config.throughput:
        raise ValueError("a search needs throughput=on, got off: speed is one of its objectives")
    config.training.check()
    config.limits.check()
    config.data.check()
    config.tracking.check()
    config.stopping.check()
    config.search.check()
    config.front.check()
    one_of("sampler", config.sampler, (*SAMPLERS, SPEED_AWARE, PAIRED))
    if config.sampler == PAIRED:
        config.ablation.check()
        _refuse_what_searches_have(overrides)
    else:
        _refuse_another_sampler_for_an_ablation(config, overrides)
        _refuse_what_ablations_have(config, overrides)
        _refuse_a_veto_without_effect(config, overrides)
        _refuse_what_the_sampler_ignores(config, overrides)
        _refuse_a_first_rung_behind_the_end(config, overrides)
    if config.training.num_nodes > 1:
        raise ValueError(
            f"training.num_nodes must be 1 in a search, got {config.training.num_nodes}: the processes of a trial are "
            "started on one machine; train on several with python -m explore.train"
        )
    for key in config.space:
        if (part := key.partition(".")[0]) not in _SEARCHED:
            raise ValueError(
                f"space.{key} cannot be a dimension: candidates differ in {', '.join(_SEARCHED)}, and {part} is the "
                f"same for all; set {key}=VALUE"
            )
    if fixed := [name for name in _HOW_TRIALS_RUN if f"training.{name}" in config.space]:
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


def _refuse_another_sampler_for_an_ablation(config: Config, overrides: Sequence[str]) -> None:
    """Refuse a sampler that was asked for in place of that of an ablation, whose settings would have no effect."""
    others = [one for one in overrides if not one.lstrip("+").startswith("sampler=")]
    if len(others) < len(overrides) and compose(others).sampler == PAIRED:
        raise ValueError(
            f"an ablation trains every arm to the end with the same seeds, got sampler={config.sampler}; leave it out, "
            "or begin a search with +sweep=pareto"
        )


def _refuse_what_ablations_have(config: Config, overrides: Sequence[str]) -> None:
    """Refuse what would have no effect on a search."""
    if foreign := [one for one in overrides if one.lstrip("+").startswith("ablation.")]:
        raise ValueError(
            f"ablation. has an effect with sampler=paired only, got {foreign[0]} and sampler={config.sampler}; "
            "leave it out, or begin with +sweep=ablation"
        )


def _refuse_a_veto_without_effect(config: Config, overrides: Sequence[str]) -> None:
    """Refuse a veto that was asked for where another model decides, or nobody waits for a decision."""
    veto, rule, epochs = config.stopping.veto, config.stopping.rule, config.training.epochs
    if veto is None or not any(one.lstrip("+").startswith("stopping.veto=") for one in overrides):
        return
    if config.sampler == SPEED_AWARE:
        raise ValueError(
            f"stopping.veto has an effect where ranks decide at the rungs, got {veto:g} and sampler={SPEED_AWARE}, "
            "which decides by a model of its own; leave it out, or take sampler=tpe"
        )
    if len(config.stopping.rungs(epochs)) == 1:
        fewest = f"stopping.min_epochs={config.stopping.min_epochs} of training.epochs={epochs}"
        raise ValueError(
            "stopping.veto needs candidates that wait at a rung, got "
            f"{veto:g} and {fewest if rule == 'rungs' else f'stopping.rule={rule}'}; leave it out, or have them wait"
        )


def _refuse_what_the_sampler_ignores(config: Config, overrides: Sequence[str]) -> None:
    """Refuse options of `speed_aware` that were asked for with another sampler."""
    if config.sampler == SPEED_AWARE:
        return
    for override in overrides:
        if override.lstrip("+").startswith(_OF_SPEED_AWARE):
            raise ValueError(
                f"{override.lstrip('+')} has an effect with sampler={SPEED_AWARE}, got sampler={config.sampler}; "
                f"leave it out, or take sampler={SPEED_AWARE}"
            )


def _refuse_a_first_rung_behind_the_end(config: Config, overrides: Sequence[str]) -> None:
    """Refuse a first rung that was asked for and that no candidate would wait at."""
    first, epochs = config.stopping.min_epochs, config.training.epochs
    asked = any(one.lstrip("+").startswith("stopping.min_epochs=") for one in overrides)
    if asked and config.stopping.rule == "rungs" and first >= epochs:
        raise ValueError(
            f"stopping.min_epochs must be below training.epochs, got {first} and training.epochs={epochs}: nobody "
            "would wait at a rung; set fewer, or stopping.rule=off in its place, which trains all to the end"
        )


def without_options_of_others(config: Config, overrides: Sequence[str]) -> Config:
    """Leave out of the space what only mixings have that cannot be chosen; refuse it where it was asked for."""
    space, lacking = parse_space(config.space), list[str]()
    for group, catalog in CATALOGS.items():
        names = getattr(space.dimensions.get(group), "choices", (getattr(config, group).name,))
        owned = [key for key in config.space if any(has_option(key, {group: name}, config) for name in catalog)]
        lacking += [key for key in owned if not any(has_option(key, {group: name}, config) for name in names)]
        asked = [key for key in lacking if any(one.lstrip("+").startswith(f"space.{key}=") for one in overrides)]
        if asked:
            raise ValueError(f"space.{asked[0]}: none of {group}={', '.join(map(str, names))} has this option")
    return replace(config, space={key: text for key, text in config.space.items() if key not in lacking})


def refuse_what_is_searched(config: Config, overrides: Sequence[str], study: Study | None) -> None:
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


def check_cluster(config: Config, url: str) -> None:
    """Refuse more workers than this machine could bear, and workers elsewhere that could not work.

    Machines elsewhere may have a GPU that this one has not.
    """
    if isinstance(config.cluster, Local):
        config.candidate.check_machine()
        if (asked := config.workers or 1) > (most := _MOST_WORKERS_PER_CORE * cores()):
            raise ValueError(
                f"workers must be at most {_MOST_WORKERS_PER_CORE} for each core of this machine, {most}, got {asked}; "
                "for workers elsewhere add cluster=slurm, ray or manual"
            )
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


def checked_space(config: Config, base: Sequence[str]) -> Space:
    """The space, every dimension of which exists and takes its values; raises ValueError otherwise."""
    space = parse_space(config.space, lambda key, values: has_option(key, values, config))
    for together, examples in _compatible(space, config):
        try:
            compose([*base, *to_overrides(together)])
        except ValueError:
            for key, values in examples:
                try:
                    compose([*base, *to_overrides(values)])
                except ValueError as error:
                    raise ValueError(f"space.{key}: {error}") from error
    return space


def _compatible(space: Space, config: Config) -> list[tuple[dict[str, Any], list[tuple[str, Values]]]]:
    """A few configurations that have every example of a space, with their examples: composing takes its time."""
    found: list[tuple[dict[str, Any], list[tuple[str, Values]]]] = []
    for key, values in space.examples():
        own = _in_variants(space, config, key, values)
        fitting = ((one, place) for one in own for place in found if _agree(place[0], one))
        chosen, place = next(fitting, (own[0], None))
        if place is None:
            found.append(place := ({}, []))
        place[0].update(chosen)
        place[1].append((key, chosen))
    return found


def _in_variants(space: Space, config: Config, key: str, values: Values) -> list[Values]:
    """An example of an option of a mixing with each searched variant that has it; another example as it is."""
    group = key.partition(".")[0]
    variants = getattr(space.dimensions.get(group), "choices", None)
    if group == key or not variants:
        return [values]
    if fitting := [name for name in variants if has_option(key, {group: name}, config)]:
        return [{group: name, **values} for name in fitting]
    raise ValueError(f"space.{key}: none of {group}={', '.join(map(str, variants))} has this option")


def _agree(one: Values, other: Values) -> bool:
    return all(key not in one or repr(one[key]) == repr(value) for key, value in other.items())  # 1 is not True


def check_references(config: Config, dataset: Dataset) -> None:
    """Refuse published models that cannot be built for these images: they are timed when the search has ended."""
    for name in config.references:
        try:
            sizes = {"image_size": dataset.image_size, "channels": dataset.channels, "classes": len(dataset.classes)}
            check(adapted(name, **sizes))
        except ValueError as error:
            raise ValueError(f"references must fit the images, got {name}: {error}; or leave it out") from error


def refuse_unwritable(output: Path) -> None:
    """Refuse a folder for results that cannot be made or written to."""
    try:
        existing = next(folder for folder in (output, *output.parents) if folder.exists())
    except OSError as error:
        reason = (error.strerror or "it failed").lower()
        raise ValueError(
            f"outputs must be a folder that can be written to, got {reason}; set outputs=FOLDER"
        ) from error
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"outputs must be a folder that can be written to, got {existing}; set outputs=FOLDER")
