"""python -m explore.sweep +sweep=pareto [KEY=VALUE ...]

Searches networks for the front of accuracy against throughput: proposes candidates, trains them on your images,
measures their speed on this machine, and writes a report. The same command goes on where it stopped.

  python -m explore.sweep +sweep=pareto
  python -m explore.sweep +sweep=pareto data=folder data.path=~/shoes data.image_size=56 trials=200 workers=4
  python -m explore.sweep +sweep=pareto study=tiny limits.params=100000 'space.model.width=choice(16, 32)'

Often set:
  study=NAME               name of the study and of its folder (default: the sweep's)
  trials=N                 candidates trained in the whole study, however often it is restarted
  workers=N                trials evaluated at a time (default: one per GPU, or up to 4 for images of up to 64 pixels;
                           up to 4 on a processor)
  cluster=slurm            workers=N jobs of an array: cluster.partition, gpus, cpus, memory, time; also cluster=ray
  sampler=NAME             what proposes candidates (default: speed_aware, which knows speed and ends by itself)
  warm_start.study=NAME    begin with the front of an earlier study, and learn from it where its results are comparable
  warm_start.list=FILE     begin with your own candidates; warm_start.published=[mixer_s16, ...] with published networks
  stopping.rule=off        train every candidate to its last epoch
  outputs=DIR              where results go (default: outputs)
  storage.url=URL          where the study is kept (default: an SQLite file among the results); for many machines
                           storage=postgres storage.url=postgresql://USER@HOST/DATABASE
  training.epochs=N        length of each training; also training.lr, training.batch_size, training.seed, ...
  limits.params=N          refuse larger candidates; also limits.macs, limits.throughput (at least, images/s)
  space.KEY='choice(...)'  a dimension: choice(a, b), range(1, 7), interval(0.1, 0.3), tag(log, interval(1e-4, 1e-2))
  '~space.KEY' KEY=VALUE   keeps it fixed
  tracking.mode=online     send runs to Weights & Biases at once (default: offline)
  format=json              the result for machines
"""

import sys
from typing import TYPE_CHECKING

from explore.cluster.isolation import start_server
from explore.command import refusing_bad_input, run

if TYPE_CHECKING:
    from explore.schema import Config


def main(config: "Config", overrides: list[str]) -> int:
    """Prepare and run the search."""
    from explore.driver import search, submit
    from explore.plan import begin, prepare
    from explore.view import make_view

    with refusing_bad_input():
        plan = prepare(config, overrides)
        study = begin(plan)
        jobs = submit(plan, study)
    if skipped := plan.notes["data"]["skipped"]:
        what, are = ("images", "are") if skipped > 1 else ("image", "is")
        print(f"explore: {skipped} {what} could not be decoded and {are} left out", file=sys.stderr)
    if before := plan.sampler_before:
        print(
            f"explore: the study was searched by {before} until now, and goes on with {plan.sampler}", file=sys.stderr
        )
    for words in plan.beginning.words:
        print(f"explore: warm start: {words}", file=sys.stderr)
    return search(plan, study, make_view(plan.study, plan.trials, config.format, plan.design), jobs)


def _warm_up() -> None:
    """Have the trials' imports begin, unless workers elsewhere train them."""
    if not any(word.startswith("cluster=") and word != "cluster=local" for word in sys.argv[1:]):
        start_server()


if __name__ == "__main__":
    run(main, __doc__ or "", meanwhile=_warm_up)
