"""What all ways to start workers elsewhere have in common.

They know jobs by the names that `submit` returned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    def unable(self, names: Sequence[str]) -> list[str]:
        """Why workers could not begin, each reason once, as far as that is known beside their logs."""

    def cancel(self, names: Sequence[str], *, waiting: bool) -> None:
        """End them; only those that have not begun, if `waiting`."""


@dataclass(kw_only=True)
class Cluster:
    """What all ways have."""

    grace: float = 600.0  # seconds that explore.stop waits for workers to come to their next rung

    def unable(self, names: Sequence[str]) -> list[str]:
        """Where the logs say it all."""
        return []
