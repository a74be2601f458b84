"""The evaluator of real searches: overrides → configuration → candidate → training."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from explore.candidate import COSTS, Candidate, evaluate
from explore.config import import_extensions, vary
from explore.definition import described
from explore.evaluation import COMPLETE, Evaluation, Report, ReportOf

# PyYAML's own in C takes a tenth of the time, where it was built.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A candidate that can be sent to another process, with the modules that extend the catalogs.

    `costs` is the folder of measured costs that it shares with others; None for one of its own. `until` is the epoch
    after which it stops for now; None for the last.
    """

    candidate: Candidate
    imports: tuple[str, ...]
    costs: Path | None
    until: int | None


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """A candidate of which it is to be measured in another process whether it pays to train so many `seeds` at once."""

    candidate: Candidate
    imports: tuple[str, ...]
    costs: Path | None
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Block:
    """Candidates that differ in their seed, to be trained together in another process, each in its folder."""

    candidates: tuple[Candidate, ...]
    folders: tuple[Path, ...]
    imports: tuple[str, ...]


def train(job: Job, folder: Path, report: Report) -> Evaluation:
    """Evaluate the candidate of a job in this process."""
    import_extensions(job.imports)
    return evaluate(job.candidate, folder, report, job.costs, job.until)


def measure_pace(job: Pacing, folder: Path, report: Report) -> Evaluation:
    """Measure the pace of the candidate of a job in this process; no more of the evaluation is known."""
    from explore.together import pace  # with Lightning, as in `candidate`

    import_extensions(job.imports)
    return Evaluation(status=COMPLETE, pace=pace(job.candidate, job.seeds, job.costs or folder / COSTS))


def train_block(block: Block, folder: Path, report: ReportOf) -> Evaluation:
    """Train the candidates of a block in this process; `folder` is that of the first."""
    from explore.together import train_together

    import_extensions(block.imports)
    return train_together(block.candidates, block.folders, report)


@dataclass(frozen=True)
class TrainingEvaluator:
    """Evaluates overrides on top of `base`.

    They are composed here, in the process that asks; `run` does the rest, in this process or in another. All share the
    measured costs in the folder `costs`, if there is one. Overrides of what is not among `keys` are refused.
    """

    base: tuple[str, ...]
    costs: Path | None = None
    keys: Collection[str] | None = None
    run: Callable[[Job, Path, Report], Evaluation] = train

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report, until: int | None = None) -> Evaluation:
        """Keep the configuration in `folder`, and have the candidate trained there."""
        config = vary(self.base, overrides, self.keys)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.dump(described(config), Dumper=_DUMPER, sort_keys=False))
        job = Job(candidate=config.candidate, imports=self._imports(), costs=self.costs, until=until)
        return self.run(job, folder, report)

    def pacing(self, overrides: Sequence[str], seeds: int) -> Pacing:
        """What measures whether it pays to train so many seeds of a candidate at once."""
        candidate = vary(self.base, overrides, self.keys).candidate
        return Pacing(candidate=candidate, imports=self._imports(), costs=self.costs, seeds=seeds)

    def block(self, each: Sequence[Sequence[str]], folders: Sequence[Path]) -> Block:
        """Candidates that differ in their seed, by their overrides."""
        candidates = tuple(vary(self.base, overrides, self.keys).candidate for overrides in each)
        return Block(candidates=candidates, folders=tuple(folders), imports=self._imports())

    def _imports(self) -> tuple[str, ...]:
        return tuple(override for override in self.base if override.startswith("imports="))
