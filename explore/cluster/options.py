"""Where workers run: one class of options for each way to start them, and the catalog that lists them.

This module is the schema of the command line as well, so it imports nothing heavy. What starts workers elsewhere has
the methods of `Elsewhere`; they know jobs by the names that `submit` returned.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker elsewhere is: a command, the folder that it is run in, what it finds in its environment, and the
    folder where its output goes.

    `secrets` belongs to the environment too, and must not be seen by others.
    """

    name: str
    command: Sequence[str]
    folder: Path
    secrets: Mapping[str, str]
    logs: Path


class Elsewhere(Protocol):
    """Starts workers on other machines."""

    @property
    def follow(self) -> bool:
        """Whether the command shows the search until it ends."""

    def check(self) -> None:
        """Raise ValueError where no worker could be started from here."""

    def submit(self, job: Job, count: int) -> list[str]:
        """Start so many workers; their names, for the other methods."""

    def active(self, names: Sequence[str]) -> int | None:
        """How many workers are at work, or wait for their turn; None when nobody tells."""

    def cancel(self, names: Sequence[str], *, waiting: bool) -> None:
        """End them; only those that have not begun, if `waiting`."""


@dataclass(kw_only=True)
class Cluster:
    """What all ways have."""

    grace: float = 600.0  # seconds that explore.stop waits for workers to come to their next rung


@dataclass(kw_only=True)
class Local(Cluster):
    """On this machine: `workers` at a time, each trial in a process of its own."""


@dataclass(kw_only=True)
class Manual(Cluster):
    """Wherever `python -m explore.worker` is run, by people or by what they use; the sweep begins the study."""

    follow: bool = True  # show the search until it ends; false = return when the study was begun

    def check(self) -> None:
        """As `Elsewhere`."""

    def submit(self, job: Job, count: int) -> list[str]:
        """Say how a worker is started."""
        print(f"Start workers, on as many machines as you like: {shlex.join(job.command)}", file=sys.stderr)
        return []

    def active(self, names: Sequence[str]) -> int | None:
        """Nobody tells."""
        return None

    def cancel(self, names: Sequence[str], *, waiting: bool) -> None:
        """That is for those who have started them."""


@dataclass(kw_only=True)
class Slurm(Cluster):
    """`workers` jobs of an array, each a worker; resources are those of one job."""

    partition: str | None = None
    gpus: int = 0  # a job with several works on as many trials at a time
    cpus: int = 1
    memory: str | None = None  # as Slurm writes it, such as 16G
    time: str = "4h"  # of one job, which begins again until the study is full; as 30m, 4h, 2d or what Slurm takes
    options: list[str] = field(default_factory=list)  # further ones of sbatch, such as --constraint=a100
    setup: list[str] = field(default_factory=list)  # lines of shell before the worker, such as module load cuda
    follow: bool = True  # show the search until it ends; false = return when the jobs are in the queue

    def check(self) -> None:
        """As `Elsewhere`."""
        from explore.cluster.slurm import check

        check(self)

    def submit(self, job: Job, count: int) -> list[str]:
        """As `Elsewhere`."""
        from explore.cluster.slurm import submit

        return submit(self, job, count)

    def active(self, names: Sequence[str]) -> int | None:
        """As `Elsewhere`."""
        from explore.cluster.slurm import active

        return active(names)

    def cancel(self, names: Sequence[str], *, waiting: bool) -> None:
        """As `Elsewhere`."""
        from explore.cluster.slurm import cancel

        cancel(names, waiting=waiting)


@dataclass(kw_only=True)
class Ray(Cluster):
    """`workers` actors of a Ray cluster, each a worker; resources are those of one."""

    address: str = "auto"  # of the cluster, such as ray://HOST:10001 or HOST:6379; auto = the one of this machine
    gpus: float = 0.0  # 0.5 = two workers share a GPU; one with several works on as many trials at a time
    cpus: float = 1.0
    resources: dict[str, float] = field(default_factory=dict)  # further ones, as the cluster names them
    follow: bool = True  # show the search until it ends; false = return when the workers were started

    def check(self) -> None:
        """As `Elsewhere`."""
        from explore.cluster.ray import check

        check(self)

    def submit(self, job: Job, count: int) -> list[str]:
        """As `Elsewhere`."""
        from explore.cluster.ray import submit

        return submit(self, job, count)

    def active(self, names: Sequence[str]) -> int | None:
        """As `Elsewhere`."""
        from explore.cluster.ray import active

        return active(self, names)

    def cancel(self, names: Sequence[str], *, waiting: bool) -> None:
        """As `Elsewhere`; Ray does not tell who waits, and workers that begin after the end leave by themselves."""
        from explore.cluster.ray import cancel

        if not waiting:
            cancel(self, names)


CLUSTERS: dict[str, type[Local | Slurm | Ray | Manual]] = {
    "local": Local,
    "slurm": Slurm,
    "ray": Ray,
    "manual": Manual,
}
