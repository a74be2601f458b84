"""Reads the trials of a study from an Optuna storage again and again, and what has ended only once."""

import gc
import threading
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from explore.evaluation import RUNNING, STOPPED
from explore.search.remembered import trials_from
from explore.search.trial import Trial, read

WITHDRAWN = "withdrawn"  # what became of a claim that somebody else was before
_MANY = 1000  # trials, among which to look for garbage takes a tenth of a second


class Rows:
    """Reading costs next to nothing more in a long study than in a short one.

    One that has ended is the same object each time. A trial that went on has several rows, one for each stretch.
    """

    def __init__(self, storage: BaseStorage, study: int) -> None:
        self._storage, self._study = storage, study
        self._lock = threading.Lock()
        # What has ended stays as it is: the rows up to the first that has not, those behind it, and of the first their
        # latest stretches by number.
        self._settled = 0
        self._history: list[Trial] = []
        self._ended: dict[int, Trial] = {}
        self._latest: list[Trial] = []
        self._alike: dict[str, list[Trial]] = defaultdict(list)  # the latest, by configuration
        self._unsettled: list[Trial] = []
        self._claims: dict[str | None, int] = {}  # the first row of each
        self._without_checkpoint: dict[int, Trial] = {}
        self.any_stopped = False  # of all that were ever read

    def stretches(self) -> list[Trial]:
        """Every row, in their order."""
        with self._lock:
            unsettled = self._read_on()
            return [*self._history, *unsettled]

    def latest(self) -> tuple[list[Trial], list[Trial]]:
        """The last stretch of every trial, by number, and those of them that are running, by row."""
        with self._lock:
            self._read_on()
            last, continued = self._last()
            trials = [trial for trial in self._latest if trial.row not in continued] if continued else [*self._latest]
            for row in last:
                insort(trials, row, key=_number)
            return trials, [row for row in last if row.status == RUNNING]

    def alike(self, key: str) -> list[Trial]:
        """Of the trials, as they were last read, those of one configuration."""
        with self._lock:
            last, continued = self._last()
            settled = [trial for trial in self._alike.get(key, ()) if trial.row not in continued]
            return settled + [trial for trial in last if trial.proposal.key == key]

    def twins(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those whose claim stands in an earlier row, too."""
        with self._lock:
            return [trial for trial in trials if self._claims.get(trial.owner.get("claim"), trial.row) < trial.row]

    def _last(self) -> tuple[list[Trial], set[int]]:
        """The last stretches of those that have not settled, and what was gone on with since."""
        continued = {row.continues for row in self._unsettled if row.continues is not None}
        return [row for row in self._unsettled if row.row not in continued], continued

    def given_up(self, trial: Trial) -> Trial:
        """The same trial without a checkpoint."""
        known = self._without_checkpoint.get(trial.row)
        if known is None:
            known = self._without_checkpoint[trial.row] = replace(trial, given_up=True)
        return known

    def _read_on(self) -> list[Trial]:
        """Read what is new, and return what has not settled."""
        with _no_garbage():
            unread = trials_from(self._storage, self._study, self._settled)
            # What takes long comes first: whoever ends it, by Ctrl-C, leaves all as it was.
            records = [self._record(frozen) for frozen in unread]
        ended = sum(1 for _ in takewhile(lambda frozen: frozen.state.is_finished(), unread))
        for record in records[:ended]:
            if record.status != WITHDRAWN:
                self._settle(record)
            self._ended.pop(record.row, None)
            self._settled += 1
        if ended >= _MANY:
            gc.freeze()  # it lasts as long as the process, and need not be looked through
        self._unsettled = [record for record in records[ended:] if record.status != WITHDRAWN]
        return self._unsettled

    def _settle(self, record: Trial) -> None:
        self._history.append(record)
        place = bisect_left(self._latest, record.number, key=_number)
        for earlier in range(place, len(self._latest)):
            if self._latest[earlier].row == record.continues:
                before = self._latest.pop(earlier)
                self._alike[before.proposal.key].remove(before)
                break
            if self._latest[earlier].number != record.number:
                break
        insort(self._latest, record, key=_number)
        self._alike[record.proposal.key].append(record)

    def _record(self, frozen: FrozenTrial) -> Trial:
        record = self._ended.get(frozen.number) or self._read(frozen)
        if frozen.state.is_finished():
            self._ended[frozen.number] = record
        return record

    def _read(self, frozen: FrozenTrial) -> Trial:
        record = read(frozen)
        if claim := record.owner.get("claim"):
            self._claims.setdefault(claim, record.row)
        self.any_stopped |= record.status == STOPPED
        return record


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Of a long study almost all that is read stays, and to look for garbage in it as it grows takes nearly as long as
    reading it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _number(trial: Trial) -> int:
    return trial.number
