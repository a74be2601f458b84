"""A storage that is waited for: a server may be started again, or a network be down for a while."""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from optuna.storages import BaseStorage

_PATIENCE_SECONDS = 600.0
_LONGEST_PAUSE_SECONDS = 5.0


def patient(
    storage: BaseStorage, passing: Sequence[type[Exception]], reason: Callable[[Exception], str]
) -> BaseStorage:
    """The storage, each call of which is tried again for ten minutes while it ends with an error that may pass.

    A call that was lost on the way back is then made twice. Values are only written again, a trial ends only once, and
    whoever makes a trial has to look for a twin. `reason` says for people what happened, without passwords.
    """
    return cast(BaseStorage, _Patient(storage, tuple(passing), reason))


class _Patient:
    def __init__(
        self, storage: BaseStorage, passing: tuple[type[Exception], ...], reason: Callable[[Exception], str]
    ) -> None:
        self._storage = storage
        self._passing = passing
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)

        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            began, pause = time.monotonic(), 0.1
            while True:
                try:
                    return method(*arguments, **named)
                except self._passing as error:
                    if time.monotonic() - began > _PATIENCE_SECONDS:
                        raise ConnectionError(f"the storage does not answer: {self._reason(error)}") from None
                    if pause == 0.8:  # not for what is over within a second
                        print(f"explore: waiting for the storage: {self._reason(error)}", file=sys.stderr, flush=True)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

        return call
