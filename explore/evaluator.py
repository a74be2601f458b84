"""The evaluator of real searches: overrides → configuration → candidate → training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from explore.candidate import evaluate
from explore.config import compose, definition
from explore.evaluation import Evaluation, Report


@dataclass(frozen=True)
class TrainingEvaluator:
    """Evaluates overrides on top of `base`; can be sent to another process."""

    base: tuple[str, ...]

    def __call__(self, overrides: Sequence[str], folder: Path, report: Report) -> Evaluation:
        """Train the candidate and keep its configuration beside its checkpoint."""
        everything = [*self.base, *overrides]
        candidate = compose(everything).candidate
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(definition(everything), sort_keys=False))
        return evaluate(candidate, folder, report)
