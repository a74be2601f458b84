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

import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from explore.command import make_folder, print_json, refusing_bad_input, run

if TYPE_CHECKING:
    from explore.cost.record import Cost
    from explore.evaluation import Epoch
    from explore.schema import Config


def main(config: "Config", overrides: list[str]) -> int:
    """Train one candidate and print its learning curve and cost."""
    from explore.candidate import local_rank
    from explore.data.dataset import load
    from explore.definition import alone
    from explore.evaluation import COMPLETE, INTERRUPTED, Evaluation
    from explore.evaluator import TrainingEvaluator
    from explore.tracking import Tracker

    with refusing_bad_input():
        config.tracking.check()
        config.candidate.check(load(config.data))
    folder = alone(config)
    make_folder(folder)
    evaluator = TrainingEvaluator(tuple(overrides))
    if local_rank():
        evaluator([], folder, lambda item: None)
        return 0
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
        reason = f": {evaluation.reason}" if evaluation.reason else ""
        print(f"{evaluation.status}{reason}{accuracy}; checkpoint, configuration and W&B run in {folder}")
    return 0 if evaluation.status == COMPLETE else 1


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
