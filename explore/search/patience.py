"""A storage that is waited for: a server may be started again, or a network be down for a while."""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from optuna.storages import BaseStorage

from explore.faults import Unwritable, unwritable

_PATIENCE_SECONDS = 600.0
_LONGEST_PAUSE_SECONDS = 5.0
# What is over sooner is not worth a word.
_PASSING_SECONDS = 0.5
_SILENT = "the storage does not answer: {}; what was found so far is kept, and the same command goes on"


def patient(
    storage: BaseStorage,
    passing: Sequence[type[Exception]],
    reason: Callable[[Exception], str],
    seconds: float | None = None,
) -> BaseStorage:
    """The storage, each call of which is tried again while it ends with an error that may pass, for ten minutes.

    A call that was lost on the way back is then made twice. Values are only written again, a trial ends only once, and
    whoever makes a trial has to look for a twin. After that it raises Unwritable, with what `reason` says for people,
    without passwords.
    """
    return cast(BaseStorage, _Patient(storage, tuple(passing), reason, seconds))


def reason_of(text: str) -> str:
    """Why a storage does not answer, of a text in which somebody who waited for it says so."""
    begin, _, end = _SILENT.partition("{}")
    return text.partition(begin)[2].partition(end)[0] or text


class _Patient:
    def __init__(
        self,
        storage: BaseStorage,
        passing: tuple[type[Exception], ...],
        reason: Callable[[Exception], str],
        seconds: float | None,
    ) -> None:
        self._seconds = seconds
        self._storage = storage
        self._passing = passing
        self._reason = reason
        self._given_up = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)

        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            began, pause, told = time.monotonic(), 0.1, False
            while True:
                try:
                    answer = method(*arguments, **named)
                    self._given_up = False
                    return answer
                except self._passing as error:
                    why = unwritable(error) or Unwritable(_SILENT.format(self._reason(error)))
                    # Who has waited in vain leaves, and does not wait as long again for its last words.
                    if self._given_up or time.monotonic() - began > (self._seconds or _PATIENCE_SECONDS):
                        self._given_up = True
                        raise why from None
                    if not told and time.monotonic() - began > _PASSING_SECONDS:
                        told = True
                        print(f"explore: waiting for the storage: {why}", file=sys.stderr, flush=True)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

        return call
