"""python -m explore.train [KEY=VALUE ...]

Trains one candidate: counts its cost, measures its speed, trains it, and goes on from its last checkpoint when it was
stopped. Every trial of a search is such a line.

  python -m explore.train
  python -m explore.train token_mixing=attention channel_mixing=swiglu model.depth=8 training.epochs=50
  python -m explore.train model=mixer_s16 data=folder data.path=~/shoes data.image_size=224

Often set:
  token_mixing=NAME, channel_mixing=NAME   how patches and channels are mixed; options behind a dot
  model.patch_size=N, model.depth=N, model.width=N
  pretrained=FILE                          official checkpoint (.npz, .pth) to begin with
  training.epochs=N, training.lr=X, training.batch_size=N, training.seed=N
  outputs=DIR                              results go to DIR/train/ID, one folder per configuration
  format=json                              the result for machines
"""

import os
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from explore.command import make_folder, print_json, refusing_bad_input, run

if TYPE_CHECKING:
    from explore.cost.record import Cost
    from explore.evaluation import Epoch, Evaluation
    from explore.schema import Config

# Where the machines of a run meet, as Lightning and torch look for it.
_MEETING = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def main(config: "Config", overrides: list[str]) -> int:
    """Train one candidate and print its learning curve and cost."""
    import torch

    from explore.candidate import local_rank
    from explore.cluster.local import threads_each
    from explore.data.dataset import load
    from explore.definition import alone
    from explore.evaluation import COMPLETE, INTERRUPTED, Evaluation
    from explore.evaluator import TrainingEvaluator
    from explore.tracking import Tracker

    with refusing_bad_input():
        config.tracking.check()
        config.candidate.check_machine()
        dataset = load(config.data)
        config.candidate.check(dataset)
        begins = config.candidate.begins_with(dataset)
        machine = _machine(config.training.num_nodes)
    folder = alone(config)
    make_folder(folder)
    # Where a container has a quota, torch would take a thread for each core of the machine around it.
    threads = config.training.threads or min(torch.get_num_threads(), threads_each(config.training.devices))
    evaluator = TrainingEvaluator((*overrides, f"training.threads={threads}"))
    if local_rank():
        evaluator([], folder, lambda item: None)
        return 0
    if begins:
        print(f"explore: {config.pretrained}: {begins.words}", file=sys.stderr)
    if machine:
        print(f"explore: machine {machine} of the run; machine 0 shows what comes of it", file=sys.stderr)
        evaluation = evaluator([], folder, lambda item: None)
        print(f"explore: {evaluation.status}{_because(evaluation)}", file=sys.stderr)
        return 0 if evaluation.status == COMPLETE else 1
    tracker = Tracker(config.tracking, "train", folder)
    stream = sys.stderr if config.format == "json" else sys.stdout

    def report(item: "Cost | Epoch") -> None:
        tracker.report(item)
        print(_line(item), file=stream, flush=True)

    command = shlex.join(["python", "-m", "explore.train", *overrides])
    tracker.open(folder.name, "train", {}, (), command)
    try:
        evaluation = evaluator([], folder, report)
    except KeyboardInterrupt:
        tracker.close(Evaluation(status=INTERRUPTED), folder / "config.yaml")
        print(f"explore: stopped; the same command goes on from the last checkpoint: {command}", file=sys.stderr)
        raise
    tracker.close(evaluation, folder / "config.yaml")
    if config.format == "json":
        print_json(evaluation.to_dict() | {"folder": str(folder), "command": command})
    else:
        accuracy = "" if evaluation.accuracy is None else f", validation accuracy {100 * evaluation.accuracy:.2f} %"
        tracked = config.tracking.mode != "disabled" and not tracker.broken
        kept = "checkpoint, configuration and W&B run" if tracked else "checkpoint and configuration"
        print(f"{evaluation.status}{_because(evaluation)}{accuracy}; {kept} in {folder}")
    return 0 if evaluation.status == COMPLETE else 1


def _because(evaluation: "Evaluation") -> str:
    return f": {evaluation.reason}" if evaluation.reason else ""


def _machine(count: int) -> int:
    """Which of the machines of a run this one is; raises ValueError where they would wait for one another in vain."""
    if count == 1:
        return 0
    if "SLURM_NTASKS" in os.environ:  # of srun, by which Lightning knows where they meet
        return int(os.environ.get("SLURM_NODEID", 0))
    if missing := [name for name in _MEETING if not os.environ.get(name)]:
        raise ValueError(
            f"training.num_nodes={count} needs {', '.join(_MEETING)} in the environment on every machine, got no "
            f"{missing[0]}; set NODE_RANK=0 on the first, 1 on the next, and for all the address of the first and a "
            "free port there"
        )
    known = [str(place) for place in range(count)]
    if (place := os.environ["NODE_RANK"]) not in known:
        raise ValueError(f"NODE_RANK must be one of {', '.join(known)} with training.num_nodes={count}, got {place}")
    return int(place)


def _line(item: "Cost | Epoch") -> str:
    record = asdict(item)
    if "epoch" in record:
        return (
            f"epoch {record['epoch']:>3}  train loss {record['train_loss']:.4f}  val loss {record['val_loss']:.4f}  "
            f"val accuracy {100 * record['val_accuracy']:6.2f} %  {record['seconds']:.1f} s"
        )
    speed = f", {record['throughput']['images_per_second']:,.0f} images/s" if record["throughput"] else ""
    return f"{record['params']:,} parameters, {record['macs'] / 1e6:,.2f} M multiply-adds{speed}"


if __name__ == "__main__":
    run(main, __doc__ or "")
