"""What it brought to train seeds of an arm at once, in words: what was saved, or why they were trained one by one."""

from collections.abc import Sequence
from statistics import median

from explore.ablation.design import Design
from explore.evaluation import COMPLETE, TOGETHER, WORTH_IT, Pace
from explore.search.trial import Trial


def said_of_together(design: Design, trials: Sequence[Trial]) -> str:
    """A sentence or two; empty where nothing is known yet, or nobody asked."""
    arms: dict[str, list[Trial]] = {arm.name: [] for arm in design.arms}
    for arm, _, run in design.runs(trials, design.looks[-1]):
        if run and run.status == COMPLETE:
            arms[arm.name].append(run)
    together = sum(TOGETHER in run.evaluation.seconds for runs in arms.values() for run in runs)
    paces = {name: found for name, runs in arms.items() if (found := _pace(runs))}
    said = [_saved(list(arms.values()), together)] if together else []
    said += [_tried(paces, together=bool(together))] if any(one.speedup for one in paces.values()) else []
    refused: dict[str, list[str]] = {}
    for name, found in paces.items():
        if found.refusal:
            refused.setdefault(found.refusal, []).append(name)
    said += [f"Not together: {', '.join(names)} ({refusal})." for refusal, names in refused.items()]
    return " ".join(said)


def _pace(runs: Sequence[Trial]) -> Pace | None:
    return next((run.evaluation.pace for run in runs if run.evaluation.pace), None)


def _saved(arms: Sequence[Sequence[Trial]], count: int) -> str:
    """By the epochs of runs of the same arm that were trained alone; there is always one, which found the pace."""
    took = would = 0.0
    for runs in arms:
        alone = [one.seconds for run in runs if TOGETHER not in run.evaluation.seconds for one in run.evaluation.curve]
        for run in runs if alone else ():
            if TOGETHER in run.evaluation.seconds:
                took += run.evaluation.seconds[TOGETHER]
                would += median(alone) * run.evaluation.epochs
    change = f"{would - took:,.0f} s saved" if would >= took else f"{took - would:,.0f} s lost"
    return (
        f"{count} of {sum(map(len, arms))} runs were trained together with others of their arm, in {took:,.0f} s where "
        f"one after the other would have taken about {would:,.0f} s: {change}."
    )


def _tried(paces: dict[str, Pace], *, together: bool) -> str:
    speedups = sorted(one.speedup for one in paces.values() if one.speedup)
    seeds = next(one.seeds for one in paces.values() if one.speedup)
    low, high = f"{speedups[0]:.2f}", f"{speedups[-1]:.2f}"
    between = low if low == high else f"{low} to {high}"
    timed = f"{seeds} at once were {between} times as fast as alone, in steps timed in turn"
    if together:
        return f"Of each arm {timed}."
    if speedups[-1] >= WORTH_IT:
        return f"Seeds were trained one by one, as several workers shared them, or after a stop: {timed}."
    return f"Seeds were trained one by one: {timed} ({WORTH_IT} is worth it)."
