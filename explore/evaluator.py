"""The evaluator of real searches: overrides → configuration → candidate → training."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from explore.candidate import Candidate, evaluate
from explore.config import import_extensions, vary
from explore.definition import described
from explore.evaluation import Evaluation, Report

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


def train(job: Job, folder: Path, report: Report) -> Evaluation:
    """Evaluate the candidate of a job in this process."""
    import_extensions(job.imports)
    return evaluate(job.candidate, folder, report, job.costs, job.until)


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
        imports = tuple(override for override in self.base if override.startswith("imports="))
        job = Job(candidate=config.candidate, imports=imports, costs=self.costs, until=until)
        return self.run(job, folder, report)
