"""What a search begins with, as `warm_start` asks for it: candidates that come first, and earlier trials that teach."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from explore.architecture.catalog import Mixing, hyperparameters, one_of
from explore.architecture.published import PUBLISHED, adapted_model
from explore.config import compose, vary
from explore.counted import counted
from explore.data.dataset import Dataset
from explore.definition import definition, described
from explore.places import output_folder
from explore.schema import CATALOGS, Config
from explore.search.listed import read_entries
from explore.search.rivals import measured_on, results
from explore.search.samplers import SPEED_AWARE
from explore.search.secrets import hidden
from explore.search.space import Space, Values, is_number, to_overrides
from explore.search.storage import find_study, studies_at
from explore.search.study import Study
from explore.search.trial import Proposal, Trial, front, times_as_fast
from explore.search.warm_start import teaching
from explore.speeds import reference_ms, this_machine

ALL = "all"
_MOST_REFUSALS, _MOST_SHOWN = 5, 12  # in a message
# What decides how accurate a candidate becomes, besides its images and the weights it begins with.
_DECIDES = ("model.", "training.", "data.augmentation.", *CATALOGS)
_LONGEST = 40  # characters of a value in a message


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a search begins with.

    `first` are the candidates that come before all others, in this order. `earlier` are trials of another study that
    teach this one, `elsewhere` those whose speed was measured in another way or on another device. `words` tell people.
    """

    first: tuple[Proposal, ...] = ()
    earlier: tuple[Trial, ...] = ()
    elsewhere: tuple[Trial, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def teaches(self) -> bool:
        """Whether a model can learn from it."""
        return bool(self.earlier or self.elsewhere)


def beginning(config: Config, base: Sequence[str], space: Space, dataset: Dataset) -> Beginning:
    """Read what `warm_start` names; raises ValueError for what cannot be found, read or placed in the space."""
    target, asked = _Target(config, tuple(base), space, dataset), config.warm_start
    study = _earlier_study(config) if asked.study else None
    left_out: dict[str, list[str]] = {}
    listed = _listed(target, asked.list) if asked.list else []
    members = _front_of(target, study, left_out) if study else []
    published = _published(target, asked.published, left_out)
    asked_for = [*listed, *members, *published]
    first: dict[str, Proposal] = {}
    for proposal in asked_for:
        first.setdefault(proposal.key, proposal)
    earlier, elsewhere = _teaching(target, study) if study else ([], [])
    if study and not members and not earlier and not elsewhere:
        reasons = "".join(f"\n  {reason}: {', '.join(names)}" for reason, names in left_out.items())
        raise ValueError(
            f"warm_start.study must have complete trials that lie in this space, got none in {study.name}; let it go "
            f"on, or widen the space{reasons}"
        )
    return Beginning(
        first=tuple(first.values()),
        earlier=tuple(earlier),
        elsewhere=tuple(elsewhere),
        words=tuple(_words(config, asked_for, list(first.values()), len(earlier) + len(elsewhere), left_out)),
    )


@dataclass(frozen=True)
class _Target:
    """The search that begins: it finds the place of a network in its space."""

    config: Config
    base: tuple[str, ...]
    space: Space
    dataset: Dataset

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a configuration, by key."""
        return _flat(_described(vary(self.base, to_overrides(values))))

    def place(self, wanted: Mapping[str, Any], otherwise: Mapping[str, Any]) -> Values:
        """The configuration nearest to wanted settings; `otherwise` has those of other dimensions.

        Raises ValueError for a name that is not in the space, or other than it is for all candidates there.
        """
        values = self.space.nearest({**otherwise, **wanted})
        found = self.settings(values)
        for key, value in wanted.items():
            here = found.get(key)
            if key not in values and value != here and not (is_number(value) and is_number(here)):
                raise ValueError(f"{key} is {_short(value)}, and {_short(here)} in the whole space")
        return values

    def proposal(self, values: Mapping[str, Any], origin: str) -> Proposal:
        """Raises ValueError for a configuration that breaks a rule on these images."""
        proposal = self.space.proposal(values, origin=origin)
        vary(self.base, proposal.overrides).candidate.check(self.dataset)
        return proposal


def _listed(target: _Target, file: str) -> list[Proposal]:
    """The candidates of a file; raises ValueError for those that cannot be, all at once."""

    def is_key(name: str) -> bool:
        return "." in name or name in CATALOGS or name in target.space.dimensions

    found, refused = [], []
    for number, entry in enumerate(read_entries(file, is_key), 1):
        try:
            values = _exact(target, entry.overrides)
            found.append(target.proposal(values, f"{Path(file).name}, {entry.place}"))
        except ValueError as error:
            refused.append(f"{entry.place} (candidate {number}): {error}")
    if refused:
        more = len(refused) - _MOST_REFUSALS
        shown = [*refused[:_MOST_REFUSALS], *([f"and {more} more"] if more > 0 else [])]
        raise ValueError(f"warm_start.list must hold candidates of this search, got {file}:\n  " + "\n  ".join(shown))
    return found


def _exact(target: _Target, overrides: Sequence[str]) -> Values:
    """The configuration that overrides ask for; what they leave out is as near as may be to the default."""
    composed = _flat(_described(compose([*target.base, *overrides])))
    shared = _flat(_described(target.config))
    given = {key: composed.get(key, text) for key, _, text in (one.lstrip("+").partition("=") for one in overrides)}
    for key, value in given.items():
        if key not in target.space.dimensions and (key not in composed or value != shared.get(key)):
            raise ValueError(
                f"{key} must be a dimension of the space, which has {', '.join(target.space.dimensions)}, got "
                f"{key}={_short(value)}; leave it out, or add 'space.{key}=choice(...)'"
            )
    values = target.space.nearest({**composed, **given})
    for key, value in given.items():
        if key in values and values[key] != value:
            raise ValueError(
                f"{key} must be in the space, {target.config.space[key]}, got {value}; "
                f"the nearest is {values[key]}, or widen it with 'space.{key}=...'"
            )
    return values


def _published(target: _Target, names: Sequence[str], left_out: dict[str, list[str]]) -> list[Proposal]:
    """Networks of the space with the mixings of published ones and the numbers nearest to theirs.

    Raises ValueError for one that is named and has no place there.
    """
    for name in names:
        one_of("warm_start.published", name, (*PUBLISHED, ALL))
    everyone, shared = ALL in names, _flat(_described(target.config))
    found, reasons = [], dict[str, list[str]]()
    for name in PUBLISHED if everyone else names:
        try:
            settings = {**shared, **_settings_of(name, target.dataset.image_size)}
            kind = {key: settings[key] for key in (*CATALOGS, "model.stages")}
            values = target.place(kind, otherwise=settings)
            found.append(target.proposal(values, f"published, {name}"))
        except ValueError as error:
            reasons.setdefault(str(error), []).append(name)
    if reasons and not (everyone and found):
        shown = "".join(f"\n  {', '.join(names)}: {reason}" for reason, names in reasons.items())
        raise ValueError(f"warm_start.published must be networks of the space; leave out or widen the space for{shown}")
    for reason, names in reasons.items():
        left_out.setdefault(reason, []).extend(names)
    return found


def _settings_of(name: str, image_size: int) -> dict[str, Any]:
    """What makes a published network, for images of so many pixels."""
    settings = _flat({"model": asdict(adapted_model(name, image_size))})
    for group in CATALOGS:
        mixing = Mixing.of(getattr(PUBLISHED[name], group))
        settings |= _of_mixing(group, mixing.name, mixing.options)
    return settings


def _earlier_study(config: Config) -> Study:
    """The study that `warm_start` names; raises ValueError with those there are."""
    asked, name = config.warm_start, config.warm_start.study or ""
    own = config.storage.address(Path(config.outputs))
    own = None if own == f"sqlite:///{Path(config.outputs) / 'study.db'}" else own  # every study has a file of its own
    url = asked.url or own
    if name == config.study and url == own:
        raise ValueError(f"warm_start.study must be another study, got {name}, which goes on by itself")
    try:
        if study := find_study(url or f"sqlite:///{Path(config.outputs) / name / 'study.db'}", name):
            return study
        names = studies_at(url) if url else []
    except ValueError as error:
        raise ValueError(str(error).replace("storage.url", "warm_start.url" if asked.url else "storage.url")) from error
    if not url:
        names = sorted(file.parent.name for file in Path(config.outputs).glob("*/study.db"))
    place, there = hidden(url) if url else config.outputs, ", ".join(names) or "none"
    raise ValueError(f"warm_start.study must be a study in {place}, got {name!r}; there are: {there}")


def _front_of(target: _Target, study: Study, left_out: dict[str, list[str]]) -> list[Proposal]:
    """The front of an earlier study, as far as the space has it; fastest first.

    Larger images get larger patches, so that there are as many.
    """
    scale = target.dataset.image_size / study.notes.get("data", {}).get("image_size", target.dataset.image_size)
    found = []
    for trial in front(results(study)):
        settings = _settings_then(study.definition, trial.proposal.values)
        wanted = dict(trial.proposal.values)
        if "model.patch_size" in wanted:
            wanted["model.patch_size"] *= scale
        try:
            values = target.place(wanted, otherwise=settings)
            found.append(target.proposal(values, f"{study.name}, trial {trial.number}"))
        except ValueError as error:
            left_out.setdefault(str(error), []).append(f"{study.name}, trial {trial.number}")
    return found


def _teaching(target: _Target, study: Study) -> tuple[list[Trial], list[Trial]]:
    """The trials of an earlier study whose accuracies are those that they would have had here, and which speeds are."""
    here, there = definition(target.config), study.definition
    same_images = target.dataset.fingerprint == there.get("images") and here["pretrained"] == there.get("pretrained")
    if target.config.sampler != SPEED_AWARE or not same_images:
        return [], []
    machine, earlier, elsewhere = this_machine(target.config.candidate), list[Trial](), list[Trial]()
    scale = cache(partial(reference_ms, target.config.cost, output_folder(target.config)))
    for trial in results(study):
        if not trial.throughput or (values := _same(target, _settings_then(there, trial.proposal.values))) is None:
            continue
        proposal = target.space.proposal(values, origin=f"{study.name}, trial {trial.number}")
        taught = teaching(trial, proposal, target.config.training.epochs)
        if here["cost"] == there.get("cost") and measured_on(trial) == machine:
            earlier.append(_on_scale(taught, scale))
        else:
            elsewhere.append(taught)
    return earlier, elsewhere


def _on_scale(trial: Trial, scale: Callable[[], float]) -> Trial:
    """A measured trial with the speed that it has where a pass of the reference network takes so many milliseconds."""
    cost = trial.evaluation.cost
    known = cost.throughput.reference_ms if cost and cost.throughput else None
    return times_as_fast(trial, known / scale()) if known else trial


def _same(target: _Target, settings: Mapping[str, Any]) -> Values | None:
    """The configuration of the space whose training is the same as with these settings."""
    try:
        values = target.space.nearest(settings)
    except ValueError:
        return None
    found = target.settings(values)
    keys = {key for key in (*settings, *found) if key.startswith(_DECIDES)}
    if found["training.schedule"] == "constant":  # an epoch is worth the same however many follow it
        keys.discard("training.epochs")
    return values if all(key in settings and settings[key] == found.get(key) for key in keys) else None


def _settings_then(shared: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a trial of a study with this definition, by key."""
    settings = _flat({key: value for key, value in shared.items() if key != "space"})
    for group in CATALOGS:
        if group in values:
            settings = {key: value for key, value in settings.items() if not key.startswith(f"{group}.")}
            settings |= _of_mixing(group, values[group], {})
    return {**settings, **values}


def _of_mixing(group: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    known = hyperparameters(CATALOGS[group][name]) if name in CATALOGS[group] else {}
    return {group: name, **{f"{group}.{key}": options.get(key, one.default) for key, one in known.items()}}


def _described(config: Config) -> dict[str, Any]:
    return described(replace(config, pretrained=None))  # it is compared once, and not read for each candidate


def _flat(nested: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Settings by their key, `model.depth`; the name of a mixing is that of its group."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}{key}.")
        else:
            found[path[:-1] if key == "name" and path[:-1] in CATALOGS else f"{path}{key}"] = value
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _words(
    config: Config,
    asked_for: Sequence[Proposal],
    first: Sequence[Proposal],
    teachers: int,
    left_out: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """What people read before the search begins."""
    if first:
        more = ["..."] if len(first) > _MOST_SHOWN else []
        shown = [*(one.origin for one in first[:_MOST_SHOWN]), *more]
        yield f"candidates that come first, {len(first)}: {'; '.join(shown)}"
    if alike := len(asked_for) - len(first):
        are, them = ("are", "them") if alike > 1 else ("is", "it")
        yield f"of {len(asked_for)} candidates {alike} {are} the same in this space as one before {them}"
    if (beyond := len(first) - config.trials) > 0:
        last = f"the last {beyond} of them find" if beyond > 1 else "the last of them finds"
        yield f"{last} no room among trials={config.trials}"
    if config.warm_start.study and config.sampler == SPEED_AWARE:
        who = f"{counted(teachers, 'trial')} of {config.warm_start.study}"
        what = f"{who} teach{'es' * (teachers == 1)}" if teachers else "it teaches nothing"
        why = "" if teachers else f": {config.warm_start.study} has other images, or was trained in another way"
        yield what + why
    for reason, names in left_out.items():
        yield f"left out: {', '.join(names)}: {reason}"
