"""Public searches on recorded curves: a proposal is taken to the nearest row that was not tried, and the clock counts
what all workers did. Whether the searches themselves run needs their projects, and is skipped without them.
"""

from dataclasses import dataclass, field
from functools import cache
from math import log

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import search_public
from benchmarks.search_judge import Finish, Table
from benchmarks.search_public import moasha, ranks, simulate, with_pruner
from benchmarks.search_rows import Rows
from benchmarks.search_table import space_of
from explore.search.space import Values, to_overrides

ROWS, EPOCHS = 40, 27


@cache
def table() -> Table:
    """Random configurations of the real space; made-up curves that end the higher, the slower the network is."""
    space, random = space_of("digits"), np.random.default_rng(0)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    overrides = [tuple(to_overrides(space.sample(study.ask()))) for _ in range(ROWS)]
    throughput = np.exp(random.uniform(9, 12, ROWS))
    end = 0.95 - 0.1 * (np.log(throughput) - 9) - random.uniform(0, 0.4, ROWS)
    validation = end[:, None] * (1 - np.exp(-np.arange(1, EPOCHS + 1) / 3))
    validation[3, 1:] = np.nan
    seconds = random.uniform(1, 2, (2, ROWS))
    return Table("digits", overrides, throughput, *seconds, validation, validation[:, -1], 0.001)


@cache
def rows() -> Rows:
    return Rows(table())


@cache
def sampled(seed: int) -> Values:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return rows().space.sample(study.ask())


def gower(one: Values, other: Values) -> float:
    """Written out for the space of the table, one dimension after the other."""
    names, logarithmic = {"token_mixing", "channel_mixing"}, {"training.lr"}
    total = 0.0
    for key, distribution in rows().space.dimensions.items():
        if (key in one) != (key in other):
            total += 1
        elif key in one and key in names:
            total += one[key] != other[key]
        elif key in one and key in logarithmic:
            total += abs(log(one[key] / other[key])) / log(distribution.high / distribution.low)
        elif key in one:
            choices = list(getattr(distribution, "choices", range(1, 5)))
            total += abs(choices.index(one[key]) - choices.index(other[key])) / (len(choices) - 1)
    return total


def test_a_row_is_read_back_as_what_was_sampled() -> None:
    assert [tuple(to_overrides(rows().values_of(row))) for row in range(ROWS)] == table().overrides


@given(st.sets(st.integers(0, ROWS - 1), min_size=1), st.data())
def test_a_rows_own_values_give_that_row_while_it_is_free(free: set[int], data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(sorted(free)))
    assert rows().nearest(rows().values_of(row), free) == row


@given(st.integers(0, 20), st.sets(st.integers(0, ROWS - 1), min_size=1))
def test_no_free_row_is_nearer(seed: int, free: set[int]) -> None:
    row = rows().nearest(sampled(seed), free)
    assert row in free
    distances = {one: gower(sampled(seed), rows().values_of(one)) for one in free}
    assert distances[row] == pytest.approx(min(distances.values()))


def test_a_table_without_free_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="free must have a row, got none"):
        rows().nearest(rows().values_of(0), set())


@dataclass
class Listed:
    """Proposes rows in their order and stops them behind an epoch."""

    left: list[int]
    stops: dict[int, int] = field(default_factory=dict)
    told: list[tuple[int, int]] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)

    def propose(self) -> int | None:
        return self.left.pop(0) if self.left else None

    def report(self, row: int, epoch: int) -> bool:
        self.told.append((row, epoch))
        return self.stops.get(row) != epoch

    def failed(self, row: int) -> None:
        self.diverged.append(row)


def small(epoch_seconds: list[float], last: int = 3) -> Table:
    count = len(epoch_seconds)
    curves = np.full((count, last), 0.5)
    return Table("", [()] * count, np.ones(count), np.ones(count), np.array(epoch_seconds), curves, curves[:, -1], 0.01)


def test_the_clock_counts_the_epochs_of_all_workers() -> None:
    """Row 0 ends its epochs at 3, 5 and 7, row 1 at 6, 11 and 16; row 2 follows row 0 and ends them at 9, 10 and 11."""
    assert simulate(small([2, 5, 1]), Listed([0, 1, 2]), 2) == [Finish(0, 4, 7), Finish(2, 8, 11), Finish(1, 9, 16)]


def test_a_stopped_training_makes_room_and_does_not_count() -> None:
    search = Listed([0, 1], stops={0: 2})
    assert simulate(small([1, 1]), search, 1) == [Finish(1, 5, 7)]
    assert search.told == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]


def test_a_diverged_training_costs_the_epoch_in_which_it_did() -> None:
    one = small([1, 1])
    one.validation[0, 1:] = np.nan
    search = Listed([0, 1])
    assert simulate(one, search, 1) == [Finish(1, 5, 7)]
    assert search.diverged == [0]
    assert (0, 2) not in search.told


def test_projects_that_are_not_there_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_public, "syne_tune", None)
    monkeypatch.setattr(search_public, "multi_metric_pruner", None)
    with pytest.raises(ValueError, match=r"syne_tune must be importable, and is not; pip install .* PYTHONPATH=FOLDER"):
        moasha(table(), 0, 2)
    with pytest.raises(
        ValueError, match=r"multi_metric_pruner must be importable, and is not; git clone .* PYTHONPATH"
    ):
        with_pruner(table(), "tpe", 0, 2, startup=5)


@pytest.mark.slow
@pytest.mark.skipif(search_public.syne_tune is None, reason="needs Syne Tune")
def test_moasha_stops_most_and_keeps_the_best() -> None:
    finishes = moasha(table(), 0, 2, ranked=True)
    assert 2 <= len(finishes) < ROWS / 2
    assert finishes == moasha(table(), 0, 2, ranked=True)
    places = ranks(np.array([[0.5, 0.5], [0.9, 0.9], [0.1, 0.9], [0.9, 0.1], [0.95, 0.95], [0.3, 0.3]]))
    assert places.tolist() == [3, 4, 0, 1, 5, 2]


@pytest.mark.slow
@pytest.mark.skipif(search_public.multi_metric_pruner is None, reason="needs OptunaHub's pruner")
@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_a_pruned_search_stops_some_and_repeats_itself(sampler: str) -> None:
    finishes = with_pruner(table(), sampler, 0, 2, startup=5)
    assert 5 <= len(finishes) < ROWS - 1
    assert finishes == with_pruner(table(), sampler, 0, 2, startup=5)
