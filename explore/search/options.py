"""What can be set about a search; needs nothing heavy to be read."""

import os
from dataclasses import dataclass, field
from pathlib import Path

URL_VARIABLE = "EXPLORE_STORAGE_URL"
GRPC_PORT = 13000

RULES, STOPS, PRIORS = ("rungs", "off"), ("auto", "off"), ("learned", "off")


@dataclass(kw_only=True)
class Search:
    """Schema of the config group `search`."""

    seed: int = 0  # of the sampler
    startup: int = 8  # trials drawn at random before the sampler has a model; population size of nsga2 and nsga3
    prior: str = "learned"  # learned | off: what sampler=speed_aware knows before its first trial
    stop: str = "auto"  # auto | off: with sampler=speed_aware, end before `trials` when the front no longer moves
    fewest: int = 20  # trials before that
    tolerance: float = 0.002  # expected gain of hypervolume, as a share of it, that is worth no training

    def check(self) -> None:
        """Raise ValueError for a search that breaks a rule."""
        for name, words in (("prior", PRIORS), ("stop", STOPS)):
            if getattr(self, name) not in words:
                raise ValueError(f"search.{name} must be one of {', '.join(words)}, got {getattr(self, name)!r}")
        for name, least in (("startup", 2), ("fewest", 1), ("tolerance", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"search.{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(kw_only=True)
class Stopping:
    """Schema of the config group `stopping`."""

    rule: str = "rungs"  # rungs | off, which trains every candidate to its last epoch
    eta: int = 3  # one in so many goes on, and each rung is so many times the epochs of the one before
    min_epochs: int = 1  # the first rung
    disk: float = 10.0  # GB of checkpoints of stopped candidates; the least promising go first, and are given up
    veto: float | None = None  # nobody goes on who comes to the front with less than this probability; null = no veto
    max_minutes: float | None = None  # of a trial from one rung to the next, its measuring included; null = no limit

    def check(self) -> None:
        """Raise ValueError for a rule that breaks a rule."""
        if self.rule not in RULES:
            raise ValueError(f"stopping.rule must be one of {', '.join(RULES)}, got {self.rule!r}")
        for name, least in (("eta", 2), ("min_epochs", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"stopping.{name} must be at least {least}, got {getattr(self, name)}")
        if not self.disk > 0:
            raise ValueError(f"stopping.disk must be above 0 GB, or inf for no limit, got {self.disk:g}")
        if self.veto is not None and not 0 < self.veto < 1:
            words = "a probability below 1" if self.veto > 0 else "a probability above 0, or null for no veto"
            raise ValueError(f"stopping.veto must be {words}, got {self.veto:g}; try 0.05")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ValueError(f"stopping.max_minutes must be above 0, or null for no limit, got {self.max_minutes}")

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs after which a candidate waits for its turn; the last is the end of its training."""
        found, rung = [], self.min_epochs
        while self.rule == "rungs" and rung < epochs:
            found.append(rung)
            rung *= self.eta
        return (*found, epochs)


@dataclass(kw_only=True)
class Front:
    """Schema of the config group `front`: what is found out about its members when the search has ended."""

    # 1 is the seed of the search alone; from 2 on, each member is trained with so many more seeds, for error bars.
    seeds: int = 1

    def check(self) -> None:
        """Raise ValueError for no seed at all."""
        if self.seeds < 1:
            raise ValueError(f"front.seeds must be at least 1, which is that of the search alone, got {self.seeds}")


@dataclass(kw_only=True)
class WarmStart:
    """Schema of the config group `warm_start`: what a search begins with, in this order: list, study, published."""

    published: list[str] = field(default_factory=list)  # published networks; [all] = those that the space has
    study: str | None = None  # an earlier study: its front comes first, and what is comparable teaches speed_aware
    url: str | None = None  # storage of that study; null = where this one is kept
    list: str | None = None  # file of candidates, YAML, JSON or CSV: see docs/warm_start.md


@dataclass(kw_only=True)
class Sqlite:
    """A file in the study's output folder: nothing to start, for the workers of one machine.

    Any other storage may be given by its address alone, here or as EXPLORE_STORAGE_URL.
    """

    url: str | None = None  # SQLAlchemy URL, or grpc://HOST:PORT; null = the file

    def address(self, output: Path) -> str:
        """The URL of the storage of the study in the folder `output`."""
        return self.url or os.environ.get(URL_VARIABLE) or f"sqlite:///{output / 'study.db'}"


@dataclass(kw_only=True)
class Postgres:
    """A PostgreSQL server, for workers on many machines.

    Passwords belong in ~/.pgpass or PGPASSWORD, which the driver reads, or in EXPLORE_STORAGE_URL.
    """

    url: str | None = None  # postgresql://USER@HOST/DATABASE; null = what EXPLORE_STORAGE_URL says

    def address(self, output: Path) -> str:
        """The URL of the storage; raises ValueError where there is none, or one of something else."""
        url = self.url or os.environ.get(URL_VARIABLE)
        if not url or not url.startswith("postgres"):
            found = f"one of {url.partition(':')[0]}" if url else "none"
            raise ValueError(
                f"storage=postgres needs a URL, got {found}; add storage.url=postgresql://USER@HOST/DATABASE"
            )
        return url


@dataclass(kw_only=True)
class Grpc:
    """Optuna's proxy before a database, for hundreds of workers; `python -m explore.proxy` starts one."""

    host: str = "localhost"
    port: int = GRPC_PORT
    database: str | None = None  # what a proxy stands before; of no concern to those who ask it

    def address(self, output: Path) -> str:
        """The URL of the storage; raises ValueError for a port that there cannot be."""
        if not 0 < self.port < 2**16:
            raise ValueError(f"storage.port must be from 1 to {2**16 - 1}, got {self.port}")
        return f"grpc://{self.host}:{self.port}"


STORAGES: dict[str, type[Sqlite | Postgres | Grpc]] = {"sqlite": Sqlite, "postgres": Postgres, "grpc": Grpc}
