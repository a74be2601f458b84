"""What a worker does, on this machine or another one: it takes trials of a study, trains them, and leaves."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import torch

from explore.candidate import COSTS
from explore.cluster.isolation import Isolated
from explore.cluster.local import Crew, in_turn
from explore.config import compose, has_option
from explore.data.dataset import load
from explore.evaluation import Evaluation, ReportOf
from explore.evaluator import TrainingEvaluator, measure_pace, train, train_block
from explore.faults import Unwritable, unwritable
from explore.joining import check_folder, check_machine
from explore.plan import SNAPSHOT, Plan, scheduler
from explore.search.owner import HEARTBEAT_SECONDS
from explore.search.space import parse_space
from explore.search.storage import of_one_machine
from explore.search.study import Study
from explore.search.worker import Pacer, Stopped, Together, Worker
from explore.tracking import Tracker

# What explore.stop writes into a study.
AFTER_THE_RUNG, AT_ONCE = "after the rung", "at once"
_POLL_SECONDS = 0.5
_REPLACEMENTS = 3


def work(plan: Plan, study: Study, faults: list[Unwritable], place: int, stop: Callable[[], bool]) -> None:
    """Work on a study until nothing is left to do, or `stop()`.

    The workers of a process have places 0, 1, ..., and share `study`, because reading a long one takes seconds. All
    leave when one finds that nothing can be kept, and says so in `faults`.
    """
    config = compose(plan.base)
    space = parse_space(plan.space, lambda key, values: has_option(key, values, config))
    decides = scheduler(plan, space, load(config.data))
    orders = Orders(study)
    pause = _POLL_SECONDS if of_one_machine(plan.url) else 4 * _POLL_SECONDS
    processes = config.training.devices
    gpus = _gpus(place, processes, torch.cuda.device_count())
    isolated = Isolated(train, lambda: worker.check_in(), processes, plan.max_minutes, gpus)
    evaluator = TrainingEvaluator(plan.base, plan.costs or plan.output / COSTS, plan.keys, isolated)

    def proposing() -> AbstractContextManager[None]:
        try:  # two may have begun or joined at the same moment
            check_folder(study, plan.output)
            check_machine(study, plan.url)
        except ValueError as error:
            raise Unwritable(str(error)) from error
        return in_turn(plan.output / ".turn")

    pace, together = at_once(plan, evaluator, lambda: worker.check_in(), gpus)
    worker = Worker(
        study=study,
        scheduler=decides,
        evaluate=evaluator,
        target=plan.trials,
        output=plan.output,
        disk=plan.disk,
        command_line=lambda overrides: command_line(plan.base, overrides),
        observer=Tracker(plan.tracking, plan.study, plan.output, whole=plan.stops),
        pace=pace,
        together=together,
        turn=proposing,
        stop=lambda: bool(faults) or stop() or orders.at_once(),
        leave=orders.after_the_rung,
        wait=lambda: time.sleep(pause),
    )
    try:
        with suppress(Stopped):
            worker.run()
        if worker.ended:
            study.note("ended", worker.ended)
    except Exception as error:
        if not (fault := unwritable(error)):
            raise
        faults.append(fault)


def at_once(
    plan: Plan, evaluator: TrainingEvaluator, tick: Callable[[], None], environment: Mapping[str, str]
) -> tuple[Pacer, Together]:
    """What measures whether it pays to train several seeds at once, and what trains them, in processes of their own.

    A block has the time that its seeds have one after the other. A measurement that fails is not worth another try.
    """
    isolated_pace = Isolated(measure_pace, tick, 1, plan.max_minutes, environment, lives=1)

    def pace(overrides: Sequence[str], folder: Path) -> Evaluation:
        assert plan.design
        return isolated_pace(evaluator.pacing(overrides, plan.design.tried_together), folder, lambda item: None)

    def together(each: Sequence[Sequence[str]], folders: Sequence[Path], report: ReportOf) -> Evaluation:
        isolated_block = Isolated(train_block, tick, 1, plan.max_minutes * len(folders), environment)
        return isolated_block(evaluator.block(each, folders), folders[0], report)

    return pace, together


def keep_working(plan: Plan, study: Study, watch: Callable[[], None], stop: Callable[[], bool]) -> bool:
    """Keep the workers of this machine at work until nothing is left to do, or `stop()`.

    Those that died are replaced a few times; False when even that did not help. `watch` is called now and then.

    Raises Unwritable where what they find cannot be kept.
    """
    replacements, faults = _REPLACEMENTS * plan.workers, list[Unwritable]()
    while True:
        crew = Crew(partial(work, plan, study, faults), plan.workers)
        try:
            while crew.working() and not stop():
                watch()
                time.sleep(_POLL_SECONDS)
        finally:
            crew.stop()
            watch()
        if faults:
            raise faults[0]
        for report in crew.lost:
            print(report, file=sys.stderr)
        if not crew.lost or stop():
            return True
        if (replacements := replacements - len(crew.lost)) < 0:
            return False


def command_line(base: Sequence[str], overrides: Sequence[str]) -> str:
    """The command that trains one candidate of a search again."""
    chosen = {SNAPSHOT, *(override.partition("=")[0] for override in overrides)}
    kept = [override for override in base if override.partition("=")[0] not in chosen]
    return shlex.join(["python", "-m", "explore.train", *kept, *overrides])


class Orders:
    """What explore.stop has said; asked of the study not more often than trials beat."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._asked = time.monotonic()
        self._order: str | None = None

    def after_the_rung(self) -> bool:
        """Whether there is any order; asks."""
        self._asked, self._order = time.monotonic(), self._study.notes.get("stop")
        return bool(self._order)

    def at_once(self) -> bool:
        """Whether there is the order to leave whatever one does."""
        return self.any() and self._order == AT_ONCE

    def any(self) -> bool:
        """Whether there is any order."""
        if time.monotonic() - self._asked > HEARTBEAT_SECONDS:
            self.after_the_rung()
        return bool(self._order)


def _gpus(place: int, devices: int, count: int) -> Mapping[str, str]:
    """What shows the worker at a place its own GPUs, where a machine has more than those of one trial."""
    if count <= devices:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    own = [names[(place * devices + index) % count] for index in range(devices)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(own)}
