"""The schema of the configuration, from the dataclasses beside their owners, and what Hydra is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore

from explore.ablation.options import Ablation
from explore.architecture.catalog import Mixing, schema
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.published import PUBLISHED
from explore.architecture.spec import Model
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.candidate import Candidate, Limits
from explore.cluster.options import CLUSTERS
from explore.cost.options import Measuring
from explore.data.options import SOURCES
from explore.search.options import STORAGES, Front, Search, Stopping, WarmStart
from explore.tracking import Tracking
from explore.training.options import Training

CATALOGS: Mapping[str, Mapping[str, type]] = {"token_mixing": TOKEN_MIXINGS, "channel_mixing": CHANNEL_MIXINGS}
# Groups whose options are classes that hold their own settings.
KINDS: Mapping[str, Mapping[str, type]] = {"data": SOURCES, "storage": STORAGES, "cluster": CLUSTERS}
STUDY_NAMES = "a name of letters, digits, dots, dashes and underscores, at most 100 in all"


@dataclass(kw_only=True)
class Config:
    """The whole configuration; every command reads the part that concerns it."""

    study: str | None = None  # name of the study; a sweep brings its own
    outputs: str = "outputs"  # folder of all results
    trials: int = 24  # finished trials of the whole study, however often it is restarted
    workers: int | None = None  # trials evaluated at a time; null = one or up to 4 per GPU; up to 4 on a processor
    sampler: str = "speed_aware"  # speed_aware | tpe | gp | nsga2 | nsga3 | random | grid | paired, for an ablation
    format: str = "text"  # text for people, json for machines
    throughput: bool = True  # measure speed; off = count only
    references: list[str] = field(default_factory=lambda: ["vit_ti16", "mixer_s16"])  # published, timed for the report
    token_mixing: Any = None
    channel_mixing: Any = None
    pretrained: str | None = None  # checkpoint with the weights to begin with (.npz, .pth); null = random ones
    data: Any = None
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    cost: Measuring = field(default_factory=Measuring)
    limits: Limits = field(default_factory=Limits)
    search: Search = field(default_factory=Search)
    stopping: Stopping = field(default_factory=Stopping)
    front: Front = field(default_factory=Front)
    warm_start: WarmStart = field(default_factory=WarmStart)
    ablation: Ablation = field(default_factory=Ablation)
    storage: Any = None
    cluster: Any = None
    tracking: Tracking = field(default_factory=Tracking)
    space: dict[str, str] = field(default_factory=dict)

    @property
    def candidate(self) -> Candidate:
        """The candidate that this configuration describes."""
        return Candidate(
            model=self.model,
            token_mixing=chosen(self.token_mixing),
            channel_mixing=chosen(self.channel_mixing),
            data=self.data,
            pretrained=self.pretrained,
            training=self.training,
            cost=self.cost,
            limits=self.limits,
            timed=self.throughput,
        )


def chosen(node: Any) -> Mixing:
    """The variant and options of a config group."""
    options = {item.name: getattr(node, item.name) for item in fields(node) if item.name != "name"}
    return Mixing(name=node.name, options=options)


def register(*, published: bool = True) -> None:
    """Tell Hydra the schema and every option of the catalogs, with or without those of published models."""
    _register_owners()
    if published:
        _register_published()
    for group, catalog in CATALOGS.items():
        for name, mixing in catalog.items():
            _register_mixing(group, name, mixing)


@cache
def _register_mixing(group: str, name: str, mixing: type) -> None:
    ConfigStore.instance().store(group=group, name=name, node=schema(name, mixing))


@cache
def _register_owners() -> None:
    store = ConfigStore.instance()
    # Hydra copies its sources whenever it composes, and with them this store, of which it copies again what it loads.
    store.__deepcopy__ = lambda memo: store  # type: ignore[attr-defined]
    store.store(name="schema", node=Config)
    store.store(group="model", name="isotropic", node=Model)
    for group, kinds in KINDS.items():
        for name, kind in kinds.items():
            store.store(group=group, name=name, node=kind)


@cache
def _register_published() -> None:
    """They take a fifth of a second, so they are told when one is asked for."""
    for name, row in PUBLISHED.items():
        mixings = [{f"override /{group}": _published_mixing(group, name, getattr(row, group))} for group in CATALOGS]
        node = {"defaults": [*mixings, "_self_"], "model": dict(row.model)}
        ConfigStore.instance().store(group="model", name=name, node=node, package="_global_")


def _published_mixing(group: str, model: str, given: str | Mapping[str, Any]) -> str:
    """The option of the group that is the mixing of a published model: a variant, or one of its own for its options.

    As an option of its own the mixing can be replaced as a whole by another variant, which has other options.
    """
    mixing = Mixing.of(given)
    if not mixing.options:
        return mixing.name
    node = schema(mixing.name, CATALOGS[group][mixing.name])(**mixing.options)
    ConfigStore.instance().store(group=group, name=model, node=node)
    return model
