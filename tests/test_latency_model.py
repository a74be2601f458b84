"""A latency model finds the rates that measurements were made of, also where some went wrong; it never says that more
work takes less time, says how far off it is, and refuses to guess from a handful of networks."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explore.cost.features import COUNTS, Features, Work
from explore.cost.latency_model import FEWEST, LatencyModel, cross_validated, fit

TRUE = LatencyModel(
    constant=1e-5,
    common=dict.fromkeys(COUNTS, 0.0),
    own={
        "product": {"calls": 3e-6, "macs": 1e-11, "bytes": 1e-10},
        "normalisation": {"calls": 5e-6, "rows": 2e-8},
        "activation": {"bytes": 3e-10},
        "view": {"calls": 1e-6},
    },
)
COUNT = st.integers(0, 10**9)
WORK = st.builds(Work, **dict.fromkeys(COUNTS, COUNT))
FEATURES = st.builds(Features, st.dictionaries(st.sampled_from([*TRUE.own, "fourier"]), WORK))


def networks(count: int, seed: int = 0) -> list[Features]:
    """Stacks of layers of random depth, width and rows."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        depth, width, rows = chance.randint(1, 8), 2 ** chance.randint(3, 8), 2 ** chance.randint(6, 12)
        size = 4 * rows * width
        layer = {
            "product": Work(calls=2, macs=2 * rows * width**2, bytes=4 * size + 8 * width**2, rows=2 * rows),
            "normalisation": Work(calls=1, bytes=2 * size, rows=rows),
            "activation": Work(calls=1, bytes=2 * size * chance.randint(1, 4), rows=rows),
            "view": Work(calls=chance.randint(1, 9)),
        }
        found.append(Features({kind: _times(work, depth) for kind, work in layer.items()}))
    return found


def _times(work: Work, depth: int) -> Work:
    return Work(**{name: depth * getattr(work, name) for name in COUNTS})


def measured(features: Sequence[Features], spread: float = 0.0) -> list[float]:
    chance = random.Random(1)
    return [TRUE.predict(one) * (1 + chance.uniform(-spread, spread)) for one in features]


def test_it_predicts_networks_that_it_has_not_seen() -> None:
    known, unknown = networks(60), networks(60, seed=1)
    model = fit(known, measured(known, spread=0.03))
    assert [model.predict(one) for one in unknown] == pytest.approx(measured(unknown), rel=0.1)
    errors = cross_validated(known, measured(known, spread=0.03))
    assert errors.networks == 60
    assert errors.median < 0.03
    assert errors.rank_correlation > 0.99


def test_a_few_measurements_that_went_wrong_do_not_matter() -> None:
    known, unknown = networks(60), networks(60, seed=1)
    seconds = measured(known, spread=0.03)
    for place in (3, 20, 41):
        seconds[place] *= 5
    assert [fit(known, seconds).predict(one) for one in unknown] == pytest.approx(measured(unknown), rel=0.15)


def test_the_error_is_that_of_networks_that_were_left_out() -> None:
    """Seconds that have nothing to do with the work cannot be predicted, however well they are fitted."""
    chance = random.Random(0)
    known = networks(40)
    errors = cross_validated(known, [chance.uniform(0.001, 0.1) for _ in known])
    assert errors.median > 0.2
    assert abs(errors.rank_correlation) < 0.6


MODEL = fit(networks(40), measured(networks(40)))


@given(FEATURES, st.sampled_from([*TRUE.own, "fourier"]), WORK)
def test_more_work_never_takes_less_time(features: Features, kind: str, more: Work) -> None:
    larger = Features({**features.work, kind: features.work.get(kind, Work()) + more})
    assert 0 < MODEL.predict(features) <= MODEL.predict(larger)


def test_a_kind_that_no_measured_network_had_costs_what_others_do() -> None:
    (one,) = networks(1)
    other = Features({**one.work, "fourier": replace(one.work["product"], calls=1000)})
    assert MODEL.predict(other) > 1.05 * MODEL.predict(one)


def test_the_fastest_unit_of_time_does_not_matter() -> None:
    known = networks(40)
    slow = fit(known, [1000 * one for one in measured(known)])
    assert [slow.predict(one) for one in known] == pytest.approx([1000 * MODEL.predict(one) for one in known])


def test_what_says_nothing_is_refused() -> None:
    few = networks(FEWEST - 1)
    with pytest.raises(ValueError, match=f"at least {FEWEST} measured networks, got {FEWEST - 1}"):
        cross_validated(few, measured(few))
    known = networks(FEWEST)
    with pytest.raises(ValueError, match="each network must have its seconds, got 20 networks and 19 seconds"):
        fit(known, measured(few))
    with pytest.raises(ValueError, match=r"measured seconds must be above 0, got 0\.0 to 1\.0"):
        fit(known, [1.0] * (FEWEST - 1) + [0.0])
