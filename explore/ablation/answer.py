"""What the runs of an ablation answer so far."""

from collections.abc import Sequence
from dataclasses import replace

from explore.ablation.design import Design
from explore.ablation.records import Findings, Scores
from explore.ablation.statistics import analyse
from explore.ablation.words import sentences
from explore.search.trial import Trial

_FEWEST = 2  # seeds, and arms: one has nothing to be compared with


def answer(design: Design, trials: Sequence[Trial]) -> tuple[Scores, Findings | None]:
    """The scores of the seeds that all arms have, and what they say; None where they are too few to say anything."""
    asked, scores = design.options, design.scores(trials, design.looks[-1])
    if len(scores.accuracies) < _FEWEST or len(scores.arms) < _FEWEST:
        return scores, None
    found = analyse(scores, looks=design.looks, error=asked.error, margin=asked.margin)
    said = sentences(found, matched=asked.match, margin=asked.margin)
    return scores, replace(found, words=tuple(f"{one[:1].upper()}{one[1:]}." for one in said))
