"""Storages of Optuna that hand out what is behind a trial without going through all those before it."""

from collections.abc import Callable, Collection, Mapping
from itertools import count, takewhile

from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial


class Database(_CachedStorage):
    """Optuna's database, which remembers what has ended; by itself it sorts all trials each time."""

    def trials_from(self, study: int, number: int) -> list[FrozenTrial]:
        """The trials from this number on, as they stand now."""
        self._read_trials_from_remote_storage(study)
        with self._lock:
            return behind(self._studies[study].trials, number)

    def news(self, study: int, last: int, unfinished: Collection[int]) -> list[FrozenTrial]:
        """What somebody lacks who knows the trials up to the one with the id `last`, but for the `unfinished`, by ids.

        Raises KeyError where there is no such study.
        """
        self._read_trials_from_remote_storage(study)
        with self._lock:
            trials, numbers = self._studies[study].trials, self._trial_id_to_study_id_and_number
            earlier = sorted(numbers[one][1] for one in unfinished if one <= last and one in numbers)
            return [trials[one] for one in earlier] + behind(trials, numbers[last][1] + 1 if last in numbers else 0)


def behind(trials: Mapping[int, FrozenTrial], number: int) -> list[FrozenTrial]:
    """Those from a number on, of all by number.

    One that another thread has just made may be known before those below it were read; it is left for the next time.
    """
    return [trials[one] for one in takewhile(trials.__contains__, count(number))]


def trials_from(storage: BaseStorage, study: int, number: int) -> list[FrozenTrial]:
    """The trials from this number on, as they stand now, of any storage."""
    own: Callable[[int, int], list[FrozenTrial]] | None = getattr(storage, "trials_from", None)
    return own(study, number) if own else storage.get_all_trials(study, deepcopy=False)[number:]
