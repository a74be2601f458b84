"""What it brought to train seeds of an arm at once, in words: what was saved, or how fast it would have been."""

from collections.abc import Mapping, Sequence

from explore.ablation.design import Design
from explore.counted import counted
from explore.evaluation import BLOCK_LOST, COMPLETE, IN_BLOCK, WORTH_IT, Pace
from explore.search.trial import Trial

Runs = Mapping[str, Sequence[Trial]]  # the complete runs of each arm, by its name


def said_of_together(design: Design, trials: Sequence[Trial]) -> str:
    """A sentence or some; empty where nothing is known yet, or nobody wants to know."""
    if not design.tried_together:
        return ""
    arms: dict[str, list[Trial]] = {arm.name: [] for arm in design.arms}
    for arm, _, run in design.runs(trials, design.looks[-1]):
        if run and run.status == COMPLETE:
            arms[arm.name].append(run)
    together = any(IN_BLOCK in run.evaluation.seconds for runs in arms.values() for run in runs)
    paces = {name: found for name, runs in arms.items() if (found := _pace(runs))}
    said = [_saved(arms, paces)] if together else []
    said += [_tried(paces, together=together)] if any(one.speedup for one in paces.values()) else []
    said += _lost(arms)
    refused: dict[str, list[str]] = {}
    for name, found in paces.items():
        if found.refusal:
            refused.setdefault(found.refusal, []).append(name)
    said += [f"Not together: {', '.join(names)} ({refusal})." for refusal, names in refused.items()]
    return " ".join(said)


def _pace(runs: Sequence[Trial]) -> Pace | None:
    """That of an arm: what was measured, or why it was not."""
    found = [run.evaluation.pace for run in runs if run.evaluation.pace]
    return max(found, key=lambda pace: pace.speedup, default=None)


def _saved(arms: Runs, paces: Mapping[str, Pace]) -> str:
    """By the steps that were timed in turn, of the same arm on the same machine.

    Epochs of the runs that were trained alone would not do: these begin an ablation, when the machine measures speeds
    beside them, and wait for that.
    """
    count, took, would = 0, 0.0, 0.0
    for name, runs in arms.items():
        faster = max(1.0, paces[name].speedup) if name in paces else 1.0
        for run in runs:
            if IN_BLOCK in run.evaluation.seconds:
                count += 1
                took += run.evaluation.seconds[IN_BLOCK]
                would += run.evaluation.seconds[IN_BLOCK] * faster
    were, their = ("were", "their") if count != 1 else ("was", "its")
    return (
        f"{count} of {sum(map(len, arms.values()))} runs {were} trained together with others of {their} arm, in "
        f"{took:,.0f} s where one after the other would have taken about {would:,.0f} s: {would - took:,.0f} s saved."
    )


def _lost(arms: Runs) -> list[str]:
    """What came to nothing, if anything did."""
    spent = {
        name: [run.evaluation.seconds[BLOCK_LOST] for run in runs if BLOCK_LOST in run.evaluation.seconds]
        for name, runs in arms.items()
    }
    names = [name for name, seconds in spent.items() if seconds]
    count, total = sum(map(len, spent.values())), sum(map(sum, spent.values()))
    words = f"went on alone after {total:,.0f} s in blocks that failed; their reasons are in the table of runs"
    return [f"{counted(count, 'run')} of {', '.join(names)} {words}."] if names else []


def _tried(paces: dict[str, Pace], *, together: bool) -> str:
    speedups = sorted(one.speedup for one in paces.values() if one.speedup)
    seeds = next(one.seeds for one in paces.values() if one.speedup)
    low, high = f"{speedups[0]:.2f}", f"{speedups[-1]:.2f}"
    between = low if low == high else f"{low} to {high}"
    timed = f"{seeds} at once were {between} times as fast as alone, in steps timed in turn"
    if together:
        return f"Of each arm {timed}."
    if speedups[-1] >= WORTH_IT:
        return f"No complete run was trained together with others: {timed}."
    return f"Seeds were trained one by one: {timed} ({WORTH_IT} is worth it)."
