"""What can be set about an ablation; needs nothing heavy to be read."""

from dataclasses import dataclass

PAIRED = "paired"  # the sampler that makes a sweep an ablation
TOGETHER_VALUES = ("auto", "off")
MATCHES = ("macs", "params", "throughput", "none")


@dataclass(kw_only=True)
class Ablation:
    """Schema of the config group `ablation`, for sampler=paired: the dimensions of `space` are its factors.

    Every combination of them is an arm.

    Nothing of it but `together` can be changed once the study has begun: whoever adds seeds after having looked finds
    what is not there.
    """

    match: str = "macs"  # macs | params | throughput | none: what is the same for all arms
    by: str = "channel_mixing.expansion"  # what is set for each arm to make it so
    tolerance: float = 0.02  # by how much arms may differ from the first in what is matched, as a fraction
    seeds: int = 5  # that every arm is trained with before it is looked at for the first time
    max_seeds: int = 20  # more are added until every difference is told or negligible, or there are so many
    margin: float = 0.005  # accuracy, as a fraction: smaller differences are of no interest
    error: float = 0.05  # probability of telling a difference of levels where there is none, all looks together
    together: str = "auto"  # auto | off: seeds of an arm are trained at once where that was measured to be faster

    def check(self) -> None:
        """Raise ValueError for an ablation that breaks a rule."""
        if self.match not in MATCHES:
            raise ValueError(f"ablation.match must be one of {', '.join(MATCHES)}, got {self.match!r}")
        if self.together not in TOGETHER_VALUES:
            raise ValueError(f"ablation.together must be one of {', '.join(TOGETHER_VALUES)}, got {self.together!r}")
        for name in ("tolerance", "margin", "error"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"ablation.{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.seeds < 2:
            raise ValueError(f"ablation.seeds must be at least 2, got {self.seeds}: one seed has no spread")
        if self.max_seeds < self.seeds:
            raise ValueError(f"ablation.max_seeds must be at least ablation.seeds, {self.seeds}, got {self.max_seeds}")
