"""How long this process has waited for its turn on a device: whoever allots its time must not count that.

Without torch, because a process says whom it tells before it knows what it will do.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


def _nobody(seconds: float) -> None: ...


@dataclass
class Waiting:
    """Adds up seconds of waiting, and tells them as soon as they are half a second."""

    tell: Callable[[float], None] = _nobody
    _untold: float = field(default=0.0, init=False)

    def add(self, seconds: float) -> None:
        """Count a part of a wait, which may go on."""
        self._untold += seconds
        if self._untold >= 0.5:
            told, self._untold = self._untold, 0.0
            self.tell(told)


WAITING = Waiting()  # of this process
