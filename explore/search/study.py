"""The study: every trial of one search, kept in an Optuna storage, the single source of truth.

Workers on any number of machines share it without a coordinator. A worker claims a trial by writing it as running and
then looking at what was written before: whoever finds an earlier trial of the same configuration, or that the study
was already full, withdraws. So no configuration is trained twice and no study grows beyond its size.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from explore.evaluation import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    Evaluation,
)
from explore.search.owner import Witness, is_here, is_running, this_process
from explore.search.rows import WITHDRAWN, Rows
from explore.search.trial import STATES, Proposal, Trial, candidates

OBJECTIVES = ("val_accuracy", "throughput")
_GIVEN_UP = "given_up:"
# Why a trial was interrupted: its worker may be alive behind a network that is down, and still write to its folder.
SILENT = "its worker went silent"
_DEFINING_SECONDS = 5.0
_PLACES_OF_IMAGES = ("path",)  # options of data: a folder may be moved, or spelled otherwise


class TakenOver(Exception):  # noqa: N818 - somebody else has the trial now, which is nobody's mistake
    """The trial was ended by others, because its worker was given up for dead."""


class Study:
    """One search in an Optuna storage. `definition` is what must stay the same for its trials to be comparable."""

    def __init__(self, storage: BaseStorage, name: str) -> None:
        self.name = name
        self._storage = storage
        self._id = storage.get_study_id_from_name(name)
        self._rows = Rows(storage, self._id)
        self._watching = threading.Lock()
        self._witness = Witness()

    @property
    def definition(self) -> dict[str, Any]:
        """Space, objectives and base configuration, as given when the study began."""
        return dict(self._storage.get_study_user_attrs(self._id).get("definition", {}))

    @property
    def notes(self) -> dict[str, Any]:
        """What was found out about the study as a whole, such as the test accuracy of its front."""
        attributes = self._storage.get_study_user_attrs(self._id)
        return {key: value for key, value in attributes.items() if key != "definition"}

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value with the study."""
        self._storage.set_study_user_attr(self._id, key, value)

    def trials(self) -> list[Trial]:
        """Every trial by number, as it stands now, without those that were withdrawn before they began.

        One that has ended is the same object each time. What has ended is read once, so that this costs next to nothing
        more in a long study than in a short one.
        """
        return self._now()[0]

    def _now(self) -> tuple[list[Trial], list[Trial]]:
        """All trials, and those of them that are running; in a long study these need not be looked for."""
        trials, running = self._rows.latest()
        if self._rows.any_stopped and (given_up := self._given_up()):
            trials = [self._rows.given_up(one) if one.row in given_up else one for one in trials]
        return trials, running

    def _given_up(self) -> set[int]:
        return {int(key.removeprefix(_GIVEN_UP)) for key in self.notes if key.startswith(_GIVEN_UP)}

    def stretches(self) -> list[Trial]:
        """What was done without a break, by row: a trial that went on has several, of which the last is in `trials`."""
        return self._rows.stretches()

    def claim(
        self,
        proposal: Proposal,
        *,
        command: str,
        target: int,
        continues: Trial | None = None,
        expected: float | None = None,
    ) -> Trial | None:
        """Begin a trial of the proposal; None when the study has `target` trials already or another worker was faster.

        A trial that `continues` an interrupted or a stopped one takes over its number and folder, and so its last rung.
        It has a folder of its own where the worker before went silent, who may still write to the other one.
        """
        silent = continues is not None and continues.evaluation.reason == SILENT
        owner = this_process()
        claimed = {
            "overrides": list(proposal.overrides),
            "sampler_state": dict(proposal.sampler_state),
            "origin": proposal.origin,
            "command": command,
            "owner": owner,
            "heartbeat": time.time(),
            "expected": expected,
            "continues": continues.row if continues else None,
            "number": continues.number if continues else None,
            "folder": continues.folder if continues and not silent else None,
        }
        # What was known stays known. No other attributes, because each takes the storage some milliseconds.
        known = {"so_far": replace(continues.evaluation, reason="").to_dict()} if continues else {}
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(proposal.values),
            distributions=dict(proposal.distributions),
            user_attrs={"claim": claimed, **known},
        )
        self._storage.create_new_trial(self._id, template_trial=template)
        everyone, running = self._now()
        # A storage that lost the connection in between may have written the claim twice.
        mine, *again = [trial for trial in running if trial.owner.get("claim") == owner["claim"]]
        for twin in again:
            self._end(twin, Evaluation(status=WITHDRAWN), TrialState.FAIL)
        same = self._rows.alike(proposal.key)
        first = not any(trial.row < mine.row and trial.status != INTERRUPTED for trial in same)
        if not first or (len(everyone) > target and _taken(everyone, mine) >= target):
            self._end(mine, Evaluation(status=WITHDRAWN), TrialState.FAIL)
            return None
        return mine

    def record(self, trial: Trial, so_far: Evaluation) -> None:
        """Keep what is known of a running trial; raises TakenOver."""
        self._write(trial, "so_far", so_far.to_dict())

    def beat(self, trial: Trial) -> None:
        """Say that the worker of a running trial is alive, and look for others that are not; raises TakenOver."""
        self._write(trial, "heartbeat", time.time())
        self._dead(self._now()[1])

    def _write(self, trial: Trial, key: str, value: Any) -> None:
        try:
            self._storage.set_trial_user_attr(trial.trial_id, key, value)
        except UpdateFinishedTrialError:
            raise TakenOver(f"trial {trial.number} was given up for dead and taken over") from None

    def finish(self, trial: Trial, evaluation: Evaluation) -> bool:
        """End a running trial; False when somebody else had ended it, because its worker was given up for dead."""
        values = None
        if evaluation.status == COMPLETE:
            throughput = evaluation.cost.throughput if evaluation.cost else None
            if throughput is None or evaluation.accuracy is None:
                lacking = replace(evaluation, status=FAILED, reason="it ended without an accuracy or a throughput")
                return self._end(trial, lacking, TrialState.FAIL)
            values = [evaluation.accuracy, throughput.images_per_second]
        return self._end(trial, evaluation, STATES.get(evaluation.status, TrialState.FAIL), values)

    def interrupted(self) -> list[Trial]:
        """Trials to go on with: stopped from outside, or left behind by a worker that died."""
        return [trial for trial in self.trials_without_dead() if trial.status == INTERRUPTED]

    def trials_without_dead(self) -> list[Trial]:
        """As `trials`, once those are ended as interrupted whose worker has died."""
        everyone, running = self._now()
        # Written by a claim that was given up and made again, when whoever made it had looked for twins already.
        late = self._rows.twins(running)
        for twin in late:
            self._end(twin, Evaluation(status=WITHDRAWN), TrialState.FAIL)
        dead = self._dead([trial for trial in running if trial not in late])
        for trial, reason in dead:
            self._end(trial, replace(trial.evaluation, status=INTERRUPTED, reason=reason), TrialState.FAIL)
        return self.trials() if dead or late else everyone

    def _dead(self, running: Sequence[Trial]) -> list[tuple[Trial, str]]:
        """Those whose worker has died, and how one knows."""
        elsewhere = [trial for trial in running if not is_here(trial.owner)]
        with self._watching:
            silent = self._witness.silent({trial.row: trial.heartbeat for trial in elsewhere})
        died = [(one, "its worker died") for one in running if is_here(one.owner) and not is_running(one.owner)]
        return died + [(trial, SILENT) for trial in elsewhere if trial.row in silent]

    def give_up(self, trial: Trial) -> None:
        """Say that the checkpoint of a stopped trial is gone."""
        self.note(f"{_GIVEN_UP}{trial.row}", True)

    def _end(
        self, trial: Trial, evaluation: Evaluation, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        try:
            self._storage.set_trial_user_attr(trial.trial_id, "evaluation", evaluation.to_dict())
            return self._storage.set_trial_state_values(trial.trial_id, state, values)
        except UpdateFinishedTrialError:
            return False


def create_study(storage: BaseStorage, name: str, definition: Mapping[str, Any]) -> Study:
    """Open the study of this name, or begin it.

    Raises ValueError when it exists with another definition, and says what differs.
    """
    end = time.monotonic()
    try:
        storage.create_new_study([StudyDirection.MAXIMIZE] * len(OBJECTIVES), name)
    except DuplicatedStudyError:
        end += _DEFINING_SECONDS
    study = Study(storage, name)
    while not study.definition and time.monotonic() < end:
        time.sleep(0.1)  # another one has just made it
    if not study.definition:  # made by this process, or by one that was stopped before it came to this line
        study.note("definition", dict(definition))
    refuse_other_settings(study, definition)
    return study


def _taken(trials: Sequence[Trial], mine: Trial) -> int:
    """The places that were taken before a claim, by configurations: who is about to withdraw takes none."""
    return len({trial.proposal.key for trial in candidates(trials) if trial.row < mine.row})


def refuse_other_settings(study: Study, definition: Mapping[str, Any]) -> None:
    """Raise ValueError when a study has another definition, and say what differs."""
    before, now = study.definition, definition
    if before.get("images") and before["images"] == now.get("images"):
        before, now = _wherever(before), _wherever(now)
    if differences := list(_differences(before, now)):
        raise ValueError(
            f"study {study.name} exists with other settings, and its trials would not be comparable:\n  "
            + "\n  ".join(differences)
            + "\ntake another name (study=NAME) or the old settings"
        )


def study_names(storage: BaseStorage) -> list[str]:
    """The studies of a storage."""
    return [study.study_name for study in storage.get_all_studies()]


def _wherever(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition without the places of its images: whether they are the same their fingerprint tells."""
    data = {key: value for key, value in definition.get("data", {}).items() if key not in _PLACES_OF_IMAGES}
    return {**definition, "data": data}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{path}{key}.")
        elif before != after:
            yield f"{path}{key}: the study has {before!r}, you ask for {after!r}"
