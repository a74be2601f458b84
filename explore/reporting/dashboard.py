"""optuna-dashboard on a study: its pages, with names for people, and nothing that they could delete."""

import errno
import importlib.util
import warnings
from collections.abc import Sequence
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from explore.evaluation import COMPLETE, REFUSED, RUNNING, STOPPED
from explore.reporting.tables import dimensions, trial_rows
from explore.search.rivals import results, tested
from explore.search.study import OBJECTIVES, Study
from explore.search.trial import Trial

_STATES = {COMPLETE: TrialState.COMPLETE, REFUSED: TrialState.PRUNED, STOPPED: TrialState.PRUNED}
_STATES |= {RUNNING: TrialState.RUNNING}
_NAMES = "study:metric_names"  # where Optuna keeps the names of objectives
_NOTES = ("data", "device", "commit", "command", "ended")  # of a study, for people
# What the pages may do besides reading: keep what somebody writes beside a study or a trial.
_WRITES = ("set_study_system_attr",)


class Shown:
    """A storage as the dashboard is shown it: one study, a trial for each number, and a column for each thing known.

    Columns are named as in `trials.csv`. Everything that would change a study is refused, but notes.
    """

    def __init__(self, storage: BaseStorage, name: str) -> None:
        self._storage = storage
        self._study = Study(storage, name)
        self.study_id = storage.get_study_id_from_name(name)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("get_") and name not in _WRITES:
            from bottle import HTTPError  # by which the library answers in words

            raise HTTPError(403, f"the dashboard shows a study and does not change it, got {name}")
        return getattr(self._storage, name)

    def get_all_studies(self) -> list[FrozenStudy]:
        """The study, with what was found out about it as a whole."""
        notes = self._study.notes
        return [
            FrozenStudy(
                study_name=self._study.name,
                direction=None,
                directions=[StudyDirection.MAXIMIZE] * len(OBJECTIVES),
                user_attrs={key: notes[key] for key in _NOTES if notes.get(key) is not None},
                system_attrs=self.get_study_system_attrs(self.study_id),
                study_id=self.study_id,
            )
        ]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Notes of the dashboard, and the names of the objectives."""
        return {**self._storage.get_study_system_attrs(study_id), _NAMES: list(OBJECTIVES)}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Sequence[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Every trial as it stands now."""
        trials = results(self._study)
        tests = tested(self._study)
        sampled = {"trial", *dimensions(trials)}
        rows = trial_rows(trials, tests).astype(object)
        records = rows.where(rows.notna(), None).to_dict("records")
        shown = [
            _frozen(trial, {str(key): value for key, value in row.items() if key not in sampled and value is not None})
            for trial, row in zip(trials, records, strict=True)
        ]
        return [trial for trial in shown if states is None or trial.state in states]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One of them."""
        return next(trial for trial in self.get_all_trials(self.study_id) if trial._trial_id == trial_id)


BaseStorage.register(Shown)  # the library asks what it is given


def _frozen(trial: Trial, columns: dict[str, Any]) -> FrozenTrial:
    state = _STATES.get(trial.status, TrialState.FAIL)
    values = [trial.accuracy or 0.0, trial.throughput or 0.0] if trial.status == COMPLETE else None
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.trial_id,
        state=state,
        value=None,
        values=values,
        datetime_start=trial.started,
        datetime_complete=trial.ended,
        params=dict(trial.proposal.values),
        distributions=dict(trial.proposal.distributions),
        user_attrs=columns,
        system_attrs={},
        intermediate_values={epoch.epoch: epoch.val_accuracy for epoch in trial.evaluation.curve},
    )


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """A page asks several times a second; nobody wants to read that."""


def make_dashboard(storage: BaseStorage, name: str, host: str, port: int) -> tuple[WSGIServer, str]:
    """A server that is ready to serve the pages of a study, and their address; port 0 takes any that is free.

    Raises ValueError where the library is not installed or the address cannot be taken.
    """
    check_installed()
    from optuna_dashboard import wsgi

    shown = Shown(storage, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library about itself
        application = wsgi(cast(BaseStorage, shown))
    try:
        server = make_server(host, port, application, server_class=_Threaded, handler_class=_Silent)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        advice = "which is in use; try port=0, which takes one that is free" if taken else f"where it failed: {error}"
        raise ValueError(f"host and port must be an address of this machine, got {host}:{port}, {advice}") from error
    return server, f"http://{host}:{server.server_port}/dashboard/studies/{shown.study_id}"


def check_installed() -> None:
    """Raise ValueError where the library is not installed."""
    if not importlib.util.find_spec("optuna_dashboard"):
        raise ValueError(
            "the dashboard needs optuna-dashboard, which is not installed; pip install 'explore[dashboard]'"
        )
