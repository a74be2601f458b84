"""Weights & Biases: a run per trial and one for the study. The only file that knows it.

Offline unless told otherwise, and never a prompt: `wandb sync` sends an offline study later.
"""

import functools
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from explore.cost.record import Cost
from explore.evaluation import FAILED, INTERRUPTED, STOPPED, Epoch, Evaluation
from explore.search.trial import Trial

Rows = Sequence[Mapping[str, Any]]
MODES = ("offline", "online", "disabled")
_VARIANTS = ("token_mixing", "channel_mixing", "data", "model")  # have options beside their name


@dataclass(kw_only=True)
class Tracking:
    """Schema of the config group `tracking`."""

    mode: str = "offline"  # offline | online | disabled
    project: str = "explore"
    entity: str | None = None  # team or user; null = the default of the account

    def check(self) -> None:
        """Raise ValueError for an unknown mode, and for `online` without a key: nobody is ever asked for one."""
        if self.mode not in MODES:
            raise ValueError(f"tracking.mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.mode == "online":
            require_key("tracking.mode=online", ", or stay offline and run `wandb sync` later")


def require_key(what: str, otherwise: str = "") -> None:
    """Raise ValueError where nobody is logged in to W&B, which `what` needs: nobody is ever asked for a key."""
    import wandb

    # It warns that this will go; what it names instead asks the server, and talks where there is a key.
    with redirect_stderr(io.StringIO()):
        known = wandb.api.api_key
    if not known:
        raise ValueError(f"{what} needs an API key, got none; set WANDB_API_KEY or run `wandb login`{otherwise}")


def default_entity() -> str:
    """The team or user that runs go to where none is named; asks the server."""
    import wandb

    return str(wandb.Api().default_entity)


def config_path(dimension: str) -> str:
    """Where the configuration of a run holds a dimension of the space: mixings are dictionaries with a name."""
    return f"{dimension}.name" if dimension in _VARIANTS else dimension


def _forgiving(method: Callable[..., None]) -> Callable[..., None]:
    """A tracker that fails says so once and is silent from then on: no trial is lost for its sake."""

    @functools.wraps(method)
    def attempt(self: "Tracker", *arguments: Any, **named: Any) -> None:
        if self.broken or self.options.mode == "disabled":
            return
        try:
            method(self, *arguments, **named)
        except Exception as error:
            self.broken = True
            print(f"explore: W&B failed and is left out from here on: {error}", file=sys.stderr)

    return attempt


class Tracker:
    """Writes the trials of a study as runs of one group, below `folder`/wandb.

    A run offline cannot be gone on with: where trials are stopped and go on, each is written `whole`, at its end.
    """

    def __init__(self, options: Tracking, study: str, folder: Path, *, whole: bool = False) -> None:
        self.options = options
        self.study = study
        self.folder = folder
        self.whole = whole
        self.broken = False
        self._run: Any = None

    def begin(self, trial: Trial) -> None:
        """Open the run of a trial, with its sampled values as configuration; `close` adds the others."""
        if not self.whole:
            self._open(trial)

    def write(self, trial: Trial, evaluation: Evaluation) -> None:
        """Write the run of a trial that has ended."""
        self._open(trial)
        for item in (*([evaluation.cost] if evaluation.cost else []), *evaluation.curve):
            self._log(item)
        self.close(evaluation, self.folder / trial.folder / "config.yaml")

    def _open(self, trial: Trial) -> None:
        values = trial.proposal.values
        notes = f"{_described(values)}\n{trial.command}"
        self.open(f"trial-{trial.number:04d}", "trial", _nested(values), _tags(values), notes)

    @_forgiving
    def open(self, name: str, job_type: str, config: Mapping[str, Any], tags: Sequence[str], notes: str) -> None:
        """Open a run; `notes` are what people read of it, the command among them."""
        self._run = self._init(name, job_type, config, tags, notes)

    def report(self, item: Cost | Epoch) -> None:
        """Log the cost once, or an epoch of the learning curve."""
        if not self.whole:
            self._log(item)

    @_forgiving
    def _log(self, item: Cost | Epoch) -> None:
        if isinstance(item, Cost):
            self._run.summary.update({"cost": item.to_dict()})
        else:
            self._run.log({key: value for key, value in asdict(item).items() if key != "epoch"}, step=item.epoch)

    def end(self, trial: Trial, evaluation: Evaluation) -> None:
        """Close the run of a trial."""
        if self.whole:
            if evaluation.status not in (STOPPED, INTERRUPTED):
                self.write(trial, evaluation)
            return
        self.close(evaluation, self.folder / trial.folder / "config.yaml")

    @_forgiving
    def close(self, evaluation: Evaluation, configuration: Path) -> None:
        """Write status, accuracy, throughput and the full configuration into the open run, and close it."""
        throughput = evaluation.cost.throughput if evaluation.cost else None
        self._run.summary.update(
            {
                "status": evaluation.status,
                "reason": evaluation.reason,
                "val_accuracy": evaluation.accuracy,
                "throughput": throughput.images_per_second if throughput else None,
                "seconds": dict(evaluation.seconds),
            }
        )
        if configuration.exists():
            whole = yaml.safe_load(configuration.read_text())
            # A published model keeps the name that was sampled, which the file does not have.
            sampled = dict(self._run.config)
            named = {key: {**whole[key], **sampled[key]} for key in sampled if isinstance(whole.get(key), dict)}
            self._run.config.update({**whole, **named}, allow_val_change=True)
        self._run.tags = (*self._run.tags, evaluation.status)
        self._run.finish(exit_code=int(evaluation.status == FAILED))

    @_forgiving
    def study_run(self, tables: Mapping[str, Rows], pictures: Mapping[str, Path], progress: Rows) -> None:
        """Write the run of the study: hypervolume after each trial, tables, and those pictures that there are.

        A row of `progress` has the `hypervolume`, and the `epochs` and `seconds` that had been spent by then.
        """
        import wandb

        run = self._init(self.study, "study", {"trials": max(map(len, tables.values()), default=0)}, ("study",), "")
        run.define_metric("hypervolume", step_metric="epochs")
        for step, row in enumerate(progress, start=1):
            run.log({name: row[name] for name in ("hypervolume", "epochs", "seconds")}, step=step)
        content: dict[str, Any] = {name: wandb.Image(str(file)) for name, file in pictures.items() if file.exists()}
        for name, rows in tables.items():
            columns: list[str | int] = list(rows[0]) if rows else []
            content[name] = wandb.Table(columns=columns, data=[list(row.values()) for row in rows])
        with _data_in(self.folder / "wandb"):
            run.log(content, step=len(progress) + 1)
            run.finish()

    def _init(self, name: str, job_type: str, config: Mapping[str, Any], tags: Sequence[str], notes: str) -> Any:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        settings = wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            symlink=False,  # to the latest run: several are open at a time
            disable_git=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            # Reading what is installed takes 0.1 s; for all trials of a study the study's own run says it once.
            x_save_requirements=job_type != "trial",
        )
        return wandb.init(
            project=self.options.project,
            entity=self.options.entity,
            mode=self.options.mode,  # type: ignore[arg-type]
            dir=self.folder,
            group=self.study,
            job_type=job_type,
            name=name,
            tags=list(tags),
            notes=notes,
            config=dict(config),
            settings=settings,
            reinit="create_new",
        )


@contextmanager
def _data_in(folder: Path) -> Iterator[None]:
    """Where tables lie until they are sent: with the runs, not in the home of a user, which is another one elsewhere.

    Unless the user has named a place.
    """
    name = "WANDB_DATA_DIR"
    named = os.environ.get(name)
    os.environ[name] = named or str(folder.absolute())
    try:
        yield
    finally:
        if named is None:
            del os.environ[name]


def _tags(values: Mapping[str, Any]) -> list[str]:
    return [f"{group}={values[group]}" for group in _VARIANTS if group in values]


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dimensions as dictionaries: W&B takes a dot in a key for one, and could not find `model.depth` again."""
    found: dict[str, Any] = {}
    for dimension, value in values.items():
        *path, last = config_path(dimension).split(".")
        place = found
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return found


def _described(values: Mapping[str, Any]) -> str:
    """A configuration in a line: `s2 + swiglu, patch size 7, depth 2, lr 0.00123`."""
    variants = [str(values[group]) for group in _VARIANTS if group in values]
    options = [f"{_spoken(key)} {_written(value)}" for key, value in values.items() if key not in _VARIANTS]
    return ", ".join([*([" + ".join(variants)] if variants else []), *options])


def _spoken(key: str) -> str:
    return key.removeprefix("model.").removeprefix("training.").replace("_", " ").replace(".", " ")


def _written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
