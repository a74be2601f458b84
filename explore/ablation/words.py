"""What an ablation found, in sentences: nothing is said to be better without the interval that says by how much."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log10

from explore.ablation.records import Difference, Effect, Findings

MATCHED = {
    "macs": "matched MACs",
    "params": "matched parameters",
    "throughput": "matched throughput",
    "none": "nothing matched",
}


def sentences(findings: Findings, *, matched: str, margin: float) -> list[str]:
    """What was found of each factor, of interactions, and of whole arms where the factors do not tell all.

    Args:
        findings: what is said.
        matched: what is the same for all arms, one of `MATCHED`.
        margin: accuracy, as a fraction: of smaller differences it is only said that they are.
    """
    voice = _Voice(level=findings.level, seeds=findings.seeds, matched=MATCHED[matched], margin=margin)
    factors = list(dict.fromkeys(one.of for one in findings.levels))
    said = [line for factor in factors for line in voice.factor([one for one in findings.levels if one.of == factor])]
    interactions = [one for one in findings.effects if len(one.of) > 1]
    told = [one for one in interactions if one.p <= findings.level]
    said += [voice.interaction(one) for one in told]
    if interactions and not told:
        said.append(f"no interaction that {findings.seeds} seeds can show")
    if told or not findings.effects:
        said += voice.arms(findings.arms)
    return said


@dataclass(frozen=True, kw_only=True)
class _Voice:
    """Says one thing after the other of the same seeds."""

    level: float
    seeds: int
    matched: str
    margin: float

    def factor(self, differences: Sequence[Difference]) -> list[str]:
        """A sentence for each level, or one for all where nothing is known of any."""
        if any(one.different or one.negligible for one in differences):
            return [f"{_spoken(one.of)} {self._compared(one, len(differences))}" for one in differences]
        intervals = "; ".join(f"{one.name} against {one.against} {self._interval(one)}" for one in differences)
        corrected = _corrected(differences, len(differences))
        return [
            f"{_spoken(differences[0].of)} makes no difference that {self.seeds} seeds can show{corrected}"
            f" ({intervals}, {self._basis})"
        ]

    def arms(self, differences: Sequence[Difference]) -> list[str]:
        """A sentence for each arm that differs from the reference; the others are many."""
        told = [one for one in differences if one.different and not one.negligible]
        if differences and not told:
            return [f"no arm differs from {differences[0].against} by what {self.seeds} seeds can show"]
        return [f"{one.of} {self._compared(one, len(differences))}" for one in told]

    def interaction(self, effect: Effect) -> str:
        """One that the analysis of variance tells."""
        *names, last = (_spoken(factor) for factor in effect.of)
        degrees = f"{effect.epsilon * effect.df:.3g}, {effect.epsilon * effect.df_error:.3g}"
        test = f"F({degrees}) = {effect.f:.2f}, p {_probability(effect.p)}"
        who = f"{', '.join(names)} and {last}"
        return f"{who} interact, each is worth more beside some than others ({test}, {self._basis})"

    def _compared(self, one: Difference, family: int) -> str:
        behind = f"({self._interval(one)}, {self._basis})"
        if one.negligible:
            margin = f"{100 * self.margin:g} {'point' if self.margin == 0.01 else 'points'}"
            return f"{one.name} and {one.against} differ by less than {margin} {behind}"
        if one.different:
            better, worse = (one.name, one.against) if one.mean > 0 else (one.against, one.name)
            size = f"{_points(abs(one.mean))} points ({self._interval(one, positive=True)}, {self._basis})"
            return f"{better} beats {worse} by {size}"
        corrected = _corrected([one], family)
        return f"{one.name} and {one.against} show no difference that {self.seeds} seeds can tell{corrected} {behind}"

    def _interval(self, one: Difference, positive: bool = False) -> str:
        low, high = (one.low, one.high) if one.mean > 0 or not positive else (-one.high, -one.low)
        return f"{coverage(self.level, digits=1)} CI {_points(low)} to {_points(high)}"

    @property
    def _basis(self) -> str:
        return f"{self.seeds} seeds, {self.matched}"


def _corrected(differences: Sequence[Difference], family: int) -> str:
    """Why nothing is said although an interval is clear of zero: it is that of one comparison."""
    clear = any(one.low > 0 or one.high < 0 for one in differences)
    return f" once it is corrected for {family} comparisons" if clear else ""


def _spoken(key: str) -> str:
    """A config key as people say it: of the model and of training the last word is enough."""
    return key.removeprefix("model.").removeprefix("training.").replace(".", " ").replace("_", " ")


def _points(fraction: float) -> str:
    """Points of accuracy with one digit behind the dot, or the first that is not zero: only zero looks like it."""
    points = 100 * fraction
    return f"{points:.1f}" if abs(points) >= 0.05 or not points else f"{points:.1g}"


def coverage(level: float, *, digits: int) -> str:
    """What an interval of `1 - level` covers, as `95 %`: `digits` behind the dot, or as many as tell it from all."""
    text = f"{100 * (1 - level):.{max(digits, ceil(-log10(level)) - 2)}f}"
    return text.rstrip("0").removesuffix(".") + " %"


def _probability(p: float) -> str:
    return f"= {p:.2g}" if p >= 0.001 else "< 0.001"
