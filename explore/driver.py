"""One search from its configuration to its report: check everything, start workers, follow them, conclude."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from explore.architecture.catalog import one_of
from explore.architecture.network import Network
from explore.architecture.published import PUBLISHED, adapted
from explore.architecture.spec import Architecture
from explore.candidate import test_accuracy
from explore.cluster.isolation import Isolated
from explore.cluster.local import Crew, cores, in_turn
from explore.config import Config, compose, definition, has_option, vary, without_operation
from explore.cost.options import Measuring
from explore.cost.throughput import measure_throughput
from explore.data.dataset import Dataset, load
from explore.evaluation import COMPLETE
from explore.evaluator import TrainingEvaluator, train
from explore.reporting.page import write_report
from explore.reporting.tables import hypervolume_history, trial_rows
from explore.search.proposals import Proposer
from explore.search.space import Space, parse_space, to_overrides
from explore.search.storage import find_study, open_storage
from explore.search.study import Study, Trial, create_study, finished, front, refuse_other_settings
from explore.search.worker import Stopped, Worker
from explore.tracking import Tracker, Tracking
from explore.view import View

_POLL_SECONDS = 0.5
_MAX_AUTOMATIC_WORKERS = 4
_REPLACEMENTS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search that was checked and can be sent to its workers.

    `base` are the overrides that every candidate shares, `command` is the line that goes on with the search, `notes`
    are kept with the study for its report.
    """

    study: str
    url: str
    output: Path
    base: tuple[str, ...]
    space: dict[str, str]
    sampler: str
    seed: int
    startup: int
    trials: int
    workers: int
    references: tuple[str, ...]
    tracking: Tracking
    definition: dict[str, Any]
    command: str
    notes: dict[str, Any]


def prepare(config: Config, overrides: Sequence[str]) -> Plan:
    """Check all that can be checked before any work; raises ValueError and leaves the disk as it was."""
    if not config.space:
        raise ValueError("a search needs a space, got none; add +sweep=pareto, or one of your own in conf/sweep")
    for name in ("trials", "workers"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if not config.throughput:
        raise ValueError("a search needs throughput=on, got off: speed is one of its objectives")
    config.tracking.check()
    for name in config.references:
        one_of("references", name, PUBLISHED)
    output = output_folder(config)
    url = study_url(config)
    _refuse_unwritable(output)
    dataset = load(config.data)
    workers = config.workers or torch.cuda.device_count() or min(cores(), _MAX_AUTOMATIC_WORKERS)
    threads = config.training.threads or max(1, cores() // workers)
    base = [*without_operation(overrides), f"training.threads={threads}"]
    space = _checked_space(config, base)
    command = shlex.join(["python", "-m", "explore.sweep", *overrides])
    plan = Plan(
        study=config.study or "sweep",
        url=url,
        output=output,
        base=tuple(base),
        space=dict(config.space),
        sampler=config.sampler,
        seed=config.search.seed,
        startup=config.search.startup,
        trials=config.trials,
        workers=workers,
        references=tuple(config.references),
        tracking=config.tracking,
        definition=json.loads(json.dumps({**definition(config), "images": dataset.fingerprint})),
        command=command,
        notes={"command": command, "commit": _commit(), "data": _facts(dataset)},
    )
    first = proposer(plan, space, dataset)
    if first.propose([]) is None:
        raise ValueError(f"space must hold a configuration that passes the rules, got none; {first.refusal}")
    if study := find_study(plan.url, plan.study):
        refuse_other_settings(study, plan.definition)
    return plan


def begin(plan: Plan) -> Study:
    """Make the output folder and open or make the study; raises ValueError where that cannot be done."""
    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"outputs must be a folder that can be written to, got {plan.output}: {error}") from error
    study = open_study(plan)
    for key, value in plan.notes.items():
        study.note(key, value)
    return study


def search(plan: Plan, study: Study, view: View) -> int:
    """Search until the study is full; goes on where it stopped. Returns the exit status for the shell."""
    interrupted = False
    with view:
        try:
            _follow(plan, study, view)
        except KeyboardInterrupt:
            interrupted = True
    return _conclude(plan, study, view, interrupted=interrupted)


def open_study(plan: Plan) -> Study:
    """The study of a plan; raises ValueError when it exists with other settings."""
    return create_study(open_storage(plan.url), plan.study, plan.definition)


def output_folder(config: Config) -> Path:
    """Where the results of the configured study lie."""
    name = config.study or "sweep"
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"study must be a name of letters, digits, dots, dashes and underscores, got {name!r}")
    return Path(config.outputs) / name


def study_url(config: Config) -> str:
    """The storage of the configured study; by default an SQLite file among its results."""
    return config.storage.url or f"sqlite:///{output_folder(config) / 'study.db'}"


def proposer(plan: Plan, space: Space, dataset: Dataset) -> Proposer:
    """What proposes candidates: none that breaks a rule on these images."""

    def check(overrides: Sequence[str]) -> None:
        vary(plan.base, overrides).candidate.check(dataset)

    return Proposer(space=space, sampler=plan.sampler, seed=plan.seed, startup=plan.startup, check=check)


def _work(plan: Plan, stop: Callable[[], bool]) -> None:
    """What a worker does."""
    config = compose(plan.base)
    tracker = Tracker(plan.tracking, plan.study, plan.output)
    space = parse_space(plan.space, lambda key, values: has_option(key, values, config))

    worker = Worker(
        study=open_study(plan),
        proposer=proposer(plan, space, load(config.data)),
        evaluate=TrainingEvaluator(plan.base, Isolated(train, lambda: worker.check_in())),
        target=plan.trials,
        output=plan.output,
        command_line=lambda overrides: command_line(plan.base, overrides),
        observer=tracker,
        turn=lambda: in_turn(plan.output / ".turn"),
        stop=stop,
    )
    with suppress(Stopped):
        worker.run()


def command_line(base: Sequence[str], overrides: Sequence[str]) -> str:
    """The command that trains one candidate of a search again."""
    chosen = {override.partition("=")[0] for override in overrides}
    kept = [override for override in base if override.partition("=")[0] not in chosen]
    return shlex.join(["python", "-m", "explore.train", *kept, *overrides])


def _follow(plan: Plan, study: Study, view: View) -> None:
    """Keep workers at work until the study is full; those that died are replaced a few times."""
    replacements = _REPLACEMENTS * plan.workers
    while True:
        missing = plan.trials - len(finished(study.trials()))
        if missing <= 0:
            return
        crew = Crew(partial(_work, plan), min(plan.workers, missing))
        try:
            while crew.working():
                view.update(study.trials())
                time.sleep(_POLL_SECONDS)
        finally:
            crew.stop()
            view.update(study.trials())
        for report in crew.lost:
            print(report, file=sys.stderr)
        if not crew.lost or (replacements := replacements - len(crew.lost)) < 0:
            return


def _conclude(plan: Plan, study: Study, view: View, *, interrupted: bool) -> int:
    trials = study.trials()
    if not interrupted:
        _measure_test_accuracy(plan, study, front(trials))
        study.note("references", _references(plan, study))
    report = write_report(study, plan.output)
    if not interrupted:
        rows = trial_rows(trials, tests(study)).astype(object).where(lambda frame: frame.notna(), None)
        tracker = Tracker(plan.tracking, plan.study, plan.output)
        tracker.study_run(rows.to_dict("records"), plan.output / "front.png", hypervolume_history(trials))
    view.conclude(trials, tests(study), report, go_on=plan.command if len(finished(trials)) < plan.trials else None)
    if interrupted:
        return 130
    return 0 if any(trial.status == COMPLETE for trial in trials) else 1


def tests(study: Study) -> dict[int, float]:
    """Test accuracy, as a fraction, of the trials for which it was measured."""
    return {int(number): value for number, value in study.notes.get("test_accuracy", {}).items()}


def _measure_test_accuracy(plan: Plan, study: Study, members: Sequence[Trial]) -> None:
    """Touch the test images once, for those members of the front that have no figure yet."""
    known = tests(study)
    for trial in members:
        if trial.number not in known:
            candidate = vary(plan.base, trial.proposal.overrides).candidate
            known[trial.number] = test_accuracy(candidate, plan.output / trial.folder)
    study.note("test_accuracy", {str(number): value for number, value in known.items()})


def _references(plan: Plan, study: Study) -> list[dict[str, Any]]:
    """The speed of published networks on these images and this device, to compare the front with."""
    known = {reference["name"]: reference for reference in study.notes.get("references", [])}
    config = compose(plan.base)
    dataset = load(config.data)
    found = []
    for name in plan.references:
        classes = len(dataset.classes)
        network = adapted(name, image_size=dataset.image_size, channels=dataset.channels, classes=classes)
        label = f"{name}, patch {network.patch_size}"
        found.append(known.get(label) or {"name": label, **_reference(network, config.cost)})
    return found


def _reference(network: Architecture, options: Measuring) -> dict[str, Any]:
    shape = (network.channels, network.image_size, network.image_size)
    speed = measure_throughput(Network(network), shape, options)
    note = "published depth and width, largest patch that divides these images; not trained here"
    return {"throughput": speed.images_per_second, "accuracy": None, "note": note}


def _checked_space(config: Config, base: Sequence[str]) -> Space:
    """The space, every dimension of which exists and takes its values; raises ValueError otherwise."""
    space = parse_space(config.space, lambda key, values: has_option(key, values, config))
    for key, values in space.examples():
        group = key.partition(".")[0]
        variants = getattr(space.dimensions.get(group), "choices", None)
        if group != key and variants:
            fitting = [name for name in variants if has_option(key, {group: name}, config)]
            if not fitting:
                raise ValueError(f"space.{key}: none of {group}={', '.join(map(str, variants))} has this option")
            values = {group: fitting[0], **values}
        try:
            compose([*base, *to_overrides(values)])
        except ValueError as error:
            raise ValueError(f"space.{key}: {error}") from error
    return space


def _refuse_unwritable(output: Path) -> None:
    existing = next(folder for folder in (output, *output.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"outputs must be a folder that can be written to, got {existing}; set outputs=FOLDER")


def _facts(dataset: Dataset) -> dict[str, Any]:
    """What a reader of the report wants to know of the images."""
    return {
        "name": dataset.name,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "classes": len(dataset.classes),
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "skipped": dataset.skipped,
        "fingerprint": dataset.fingerprint,
    }


def _commit() -> str | None:
    """The commit of the source tree this runs from; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
