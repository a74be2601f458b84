"""What is known of a candidate: its learning curve, its cost and how its evaluation ended.

Plain records without torch, so that the search, the report and the dashboards can read them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from explore.cost.record import Cost

COMPLETE = "complete"  # trained to its last epoch
REFUSED = "refused"  # a limit was exceeded, that of memory among them
DIVERGED = "diverged"  # the loss became infinite or not a number
FAILED = "failed"  # an exception, a process that was killed repeatedly or took too long; `reason` says which
RUNNING = "running"
STOPPED = "stopped"  # waits at a rung with its checkpoint kept, and may go on
INTERRUPTED = "interrupted"  # stopped from outside; its successor goes on from its last rung
# Parts of the seconds of a seed: its share of a block, in which it was trained at once with others,
IN_BLOCK = "block"
BLOCK_STOPPED = "block_stopped"  # of one that was stopped or killed before its end, and
BLOCK_LOST = "block_lost"  # of one that came to nothing.
# Times as fast as alone, for seeds to be trained together: by so much may a network that is compiled alone be faster.
WORTH_IT = 1.25
MEMORY = "memory"  # the constraint of those that were refused because memory ran out


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of training: losses in nats, accuracy as a fraction of 1, learning rate at its end, seconds."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """From JSON types."""
        return cls(**record)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a step of training took for each of so many `seeds` of a candidate, in seconds: medians of steps in turn.

    `together` is the share of each in a step of all at once. `refusal` says why they cannot be trained so; the figures
    are None then, and `seeds` is 0 where it did not even come to a measurement.
    """

    seeds: int = 0
    alone: float | None = None
    together: float | None = None
    refusal: str = ""

    @property
    def speedup(self) -> float:
        """How many times as fast each seed is together as alone; 0 where that cannot be."""
        return self.alone / self.together if self.alone and self.together else 0.0

    @property
    def pays(self) -> bool:
        """Whether seeds are trained together."""
        return self.speedup >= WORTH_IT


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The end of an evaluation: `status` is one of the words above, `reason` tells people why.

    `seconds` names the parts of the time spent (build, cost, train, ...); together they are the whole.
    `constraints` says how far the candidate is beyond each limit, as a fraction of it; zero or less is within. `pace`
    says whether it pays to train several seeds of it together, where that was measured.
    """

    status: str
    reason: str = ""
    cost: Cost | None = None
    curve: Sequence[Epoch] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)
    pace: Pace | None = None

    @property
    def alone(self) -> bool:
        """Whether no part of it was trained at once with others."""
        return not {IN_BLOCK, BLOCK_STOPPED, BLOCK_LOST}.intersection(self.seconds)

    @property
    def epochs(self) -> int:
        """How many epochs it was trained."""
        return self.curve[-1].epoch if self.curve else 0

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy after the last epoch, as a fraction; None before the first.

        The last, not the best: picking the best epoch on the validation set would flatter noisy candidates.
        """
        return self.curve[-1].val_accuracy if self.curve else None

    def to_dict(self) -> dict[str, Any]:
        """Write as JSON types."""
        return asdict(self) | {"cost": self.cost.to_dict() if self.cost else None}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Evaluation":
        """Read what `to_dict` wrote."""
        cost = Cost.from_dict(record["cost"]) if record["cost"] else None
        curve = tuple(map(Epoch.read, record["curve"]))
        pace = Pace(**record["pace"]) if record.get("pace") else None
        return cls(**{**record, "cost": cost, "curve": curve, "pace": pace})


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """A candidate that was trained once more, with another seed: accuracies as fractions, and what it took."""

    seed: int
    accuracy: float  # validation, after the last epoch
    test_accuracy: float | None  # None where its checkpoint is gone
    epochs: int
    seconds: float
    command: str


Report = Callable[[Cost | Epoch], None]
ReportOf = Callable[[tuple[int, Epoch]], None]  # the place of one of several, and an epoch of it


class Evaluator(Protocol):
    """Evaluates overrides, keeps its files in `folder`, and reports the cost and each epoch as soon as it is known.

    It ends as stopped after epoch `until`, where that is not the last; 0 measures and does not train. Called again with
    the same folder it goes on from what it finds there. May be real training or a table.
    """

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int) -> Evaluation:
        """Return how it ended; an exception is an end too, and the caller records it."""
