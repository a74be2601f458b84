"""Where workers run: the catalog of ways to start them, each a class of options, and the ways that need no cluster.

Part of the schema of the command line, so nothing heavy is imported here.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from explore.cluster.job import Cluster, Job
from explore.cluster.ray import Ray
from explore.cluster.slurm import Slurm


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


CLUSTERS: dict[str, type[Local | Slurm | Ray | Manual]] = {
    "local": Local,
    "slurm": Slurm,
    "ray": Ray,
    "manual": Manual,
}
