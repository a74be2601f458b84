"""Storages of Optuna that hand out what is behind a trial without going through all those before it."""

from collections.abc import Collection, Mapping
from typing import Protocol, cast, runtime_checkable

from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial


@runtime_checkable
class _Remembering(Protocol):
    def trials_from(self, study: int, number: int) -> list[FrozenTrial]: ...


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
            earlier = sorted(numbers[one][1] for one in unfinished if one <= last)
            return [trials[one] for one in earlier] + behind(trials, numbers[last][1] + 1 if last in numbers else 0)


def behind(trials: Mapping[int, FrozenTrial], number: int) -> list[FrozenTrial]:
    """Those from a number on, of all by number."""
    return [trials[one] for one in range(number, len(trials))]


def trials_from(storage: BaseStorage, study: int, number: int) -> list[FrozenTrial]:
    """The trials from this number on, as they stand now, of any storage."""
    if isinstance(storage, _Remembering):
        return cast(_Remembering, storage).trials_from(study, number)
    return storage.get_all_trials(study, deepcopy=False)[number:]
