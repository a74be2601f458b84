"""What is known of a network without running it, in numbers that its time depends on; needs no torch to be read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

VIEW = "view"  # the kind of operators that only look at their input in another way
COUNTS = ("calls", "macs", "filled_macs", "bytes", "far_bytes", "rows")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the operators of one kind do together in one pass.

    Args:
        calls: operators.
        macs: multiply-adds.
        filled_macs: the same with the last axis of what comes out filled up to a multiple of 16, as vector units do.
        bytes: read and written, each tensor once for each operator that it goes into or comes out of.
        far_bytes: those of them in tensors above 4 MiB, which do not stay in a cache near a core.
        rows: vectors along the last axis of what comes out; short ones cost more than their bytes.
    """

    calls: int = 0
    macs: int = 0
    filled_macs: int = 0
    bytes: int = 0
    far_bytes: int = 0
    rows: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(**{name: getattr(self, name) + getattr(other, name) for name in COUNTS})


@dataclass(frozen=True)
class Features:
    """The work of one pass, by kind of operator."""

    work: Mapping[str, Work]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and dictionaries, ready for JSON."""
        return {kind: asdict(work) for kind, work in self.work.items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Features":
        """The inverse of `to_dict`."""
        return cls({kind: Work(**work) for kind, work in record.items()})
