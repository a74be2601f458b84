"""The look that all pictures and pages share: colours, axes and the way numbers are written for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from explore.evaluation import STOPPED
from explore.search.seeds import over_seeds
from explore.search.trial import Trial, front

Item = TypeVar("Item")

# Okabe & Ito (2008), "Color universal design", without yellow and black, which vanish on white and on dark pages;
# then two of Tol's muted scheme. Told apart with every common colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999933", "#882255")
GREY = "#8A929C"
# The same shapes in the pictures of a page (Plotly) and in printed ones (Matplotlib).
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon")
MARKERS = ("o", "D", "s", "^", "P", "X", "*", "p")
MEASURED = "measured"  # waits for its training, and does not count yet
_LABEL_WIDTH, _LABEL_HEIGHT = 0.06, 0.04  # of `#123`, as a fraction of the picture
_NARROW = 3  # how much wider it is on a phone
_TICKS_PER_DECADE: Sequence[Sequence[float]] = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 5, 6, 8),
    *(tuple(n / parts for n in range(parts, 10 * parts)) for parts in (2, 5, 10)),
)


def state(trial: Trial) -> str:
    """What has become of a trial, in a word."""
    return MEASURED if trial.status == STOPPED and not trial.evaluation.epochs else trial.status


def colours(names: Iterable[str]) -> Mapping[str, str]:
    """Give each name its colour, the same in every picture of a study; past eight names they repeat."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(sorted(set(names)))}


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high` for a log axis: as few kinds as give four or more."""
    ticks: list[float] = []
    for steps in _TICKS_PER_DECADE:
        decades = range(_exponent(low), _exponent(high) + 1)
        ticks = [tick for decade in decades for step in steps if low <= (tick := step * 10.0**decade) <= high]
        if len(ticks) >= 4:
            break
    return ticks


def speed_range(speeds: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a log axis that shows all these speeds with a margin."""
    low, high = min(speeds), max(speeds)
    margin = max(1.12, (high / low) ** 0.07)
    return low / margin, high * margin


def accuracy_range(complete: Sequence[Trial], others: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an accuracy axis in percent that show the front at a good size.

    A few hopeless trials must not squeeze the front into a line: what is far below it may fall outside.
    `others` are further accuracies, as fractions, that stay inside.
    """
    members = front(complete)
    wanted = [100 * (trial.accuracy or 0.0) for trial in members] + [100 * value for value in others]
    wanted += [100 * mean.mean for mean in map(over_seeds, members) if mean]
    spread = max(wanted) - min(wanted)
    # Intervals of two or three seeds may be wider than all that is to be seen.
    halves = [(100 * mean.mean, min(100 * mean.half, spread)) for mean in map(over_seeds, members) if mean]
    wanted += [end for mean, half in halves for end in (mean - half, min(100.0, mean + half))]
    low = max(min(wanted) - max(2.0, 0.6 * spread), min(100 * (trial.accuracy or 0.0) for trial in complete))
    low = min(low, min(wanted))
    margin = max(0.2, 0.07 * (max(wanted) - low))
    return low - margin, max(wanted) + margin


def spaced(points: Sequence[tuple[float, float]], *, narrow: bool = False) -> list[int]:
    """Return which points can carry a label without covering another's: the first, the last, and what fits between.

    Points are in the unit square of the picture, which may be as `narrow` as a phone.
    """
    wide = _LABEL_WIDTH * (_NARROW if narrow else 1)
    order = [0, len(points) - 1, *range(1, len(points) - 1)] if len(points) > 1 else list(range(len(points)))
    kept: list[int] = []
    for index in order:
        x, y = points[index]
        beside = (points[other] for other in kept)
        if all(abs(x - right) >= wide or abs(y - above) >= _LABEL_HEIGHT for right, above in beside):
            kept.append(index)
    return sorted(kept)


def spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Return at most `most` of the items in their order, evenly spread: more than a person can see helps nobody."""
    if len(items) <= most:
        return items
    return [items[index * len(items) // most] for index in range(most)]


def percent(fraction: float) -> str:
    """Write 0.9731 as `97.3 %`."""
    return f"{100 * fraction:.1f} %"


def plus_minus(mean: float, half: float) -> str:
    """Write 0.9731 and 0.0042 as `97.3 ± 0.4 %`."""
    return f"{100 * mean:.1f} ± {100 * half:.1f} %"


def speed(images_per_second: float) -> str:
    """Write images per second as `21,565`, with digits after the point only below ten."""
    return f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


def short(number: float, unit: str = "") -> str:
    """Write a large number with three digits: `12.3 M`, `54.1 k`."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g} {letter}{unit}"
    return f"{number:.3g} {unit}".strip()


def tick(number: float) -> str:
    """Write a tick of a speed axis without a space: `20k`, `1.5M`."""
    return short(number).replace(" ", "")


def value(sampled: object) -> str:
    """Write a sampled value; long fractions are cut to three digits."""
    return f"{sampled:.3g}" if isinstance(sampled, float) else str(sampled)


def protocols(trials: Iterable[Trial]) -> list[str]:
    """Say how the throughput of these trials was measured; more than one line means that they are not comparable."""
    seen: dict[str, None] = {}
    for trial in trials:
        cost = trial.evaluation.cost
        if cost and (timed := cost.throughput):
            threads = f"{timed.threads} thread{'s' if timed.threads != 1 else ''}, "
            seen[
                f"{timed.device}, batch size {timed.batch_size}, {timed.precision}, {timed.dispatch}, "
                f"{'' if timed.memory_bytes is not None else threads}PyTorch {timed.torch_version}"
            ] = None
    return list(seen)


def _exponent(number: float) -> int:
    return int(f"{number:e}".partition("e")[2])
