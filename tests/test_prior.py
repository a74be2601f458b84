"""What recorded searches taught is what is shipped, says something of images it has not seen, and is careful outside of
what was seen."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import search_prior
from benchmarks.search_rows import Rows
from explore.search.prior import FILE, PATCHES, Prior, unbiased
from explore.search.surrogate import clipped_logit

PRIOR = Prior.load()
USUAL = {
    "model.patch_size": 7,
    "model.depth": 2,
    "model.width": 32,
    "token_mixing": "mlp",
    "token_mixing.expansion": 1.0,
    "channel_mixing": "mlp",
    "training.lr": 5e-3,
}


def expected(epoch: int = 27, image_size: int = 28, **changes: Any) -> float:
    values = USUAL | {key.replace("__", "."): value for key, value in changes.items()}
    return float(PRIOR([values], np.array([epoch]), image_size)[0])


def test_what_is_shipped_is_what_the_command_fits(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_prior, "FILE", tmp_path / "prior.json")
    search_prior.save(search_prior.fitted(list(search_prior.BASES)))
    shipped, again = (json.loads(file.read_text()) for file in (FILE, tmp_path / "prior.json"))
    np.testing.assert_allclose(again.pop("weights"), shipped.pop("weights"), atol=2e-4)
    assert again == shipped


@pytest.mark.parametrize("data", search_prior.BASES)
def test_it_foretells_images_it_has_not_seen(data: str) -> None:
    """And configurations that it has not seen."""
    assert search_prior.foretold(data, 27) > 0.8


@pytest.mark.parametrize("data", search_prior.BASES)
def test_it_foretells_how_far_accuracy_rises_on_images_it_has_not_seen(data: str) -> None:
    known = search_prior.load_table(data)
    logits = clipped_logit(known.validation, known.smallest_error)
    rows = Rows(known)
    values = [rows.values_of(row) for row in range(0, len(logits), 10)]
    said = [search_prior.unseen(data)(values, np.full(len(values), epoch)).mean() for epoch in (1, 27)]
    assert said[1] - said[0] == pytest.approx(np.nanmean(logits[::10, 26] - logits[::10, 0]), abs=0.5)


def test_it_knows_what_everybody_knows() -> None:
    assert expected(model__width=96) > expected(model__width=8)
    assert expected(token_mixing="convolution", token_mixing__kernel=3) > expected(token_mixing="pooling")
    assert expected(model__patch_size=14) != expected(model__patch_size=7)


@given(st.sampled_from([key for key in PRIOR.numbers if key != PATCHES]), st.floats(1, 1e6), st.integers(1, 500))
def test_outside_of_what_was_seen_it_says_what_it_says_at_the_end(key: str, factor: float, epoch: int) -> None:
    low, high = np.exp(PRIOR.numbers[key])
    for end, beyond in ((high, high * factor), (low, low / factor)):
        at_end, out_there = (float(PRIOR([USUAL | {key: value}], np.array([epoch]), 28)[0]) for value in (end, beyond))
        assert out_there == pytest.approx(at_end, abs=1e-6)


def test_what_it_has_never_heard_of_changes_nothing() -> None:
    assert expected(data__anything=3) == expected()
    assert np.isfinite(expected(token_mixing="new"))
    assert expected(token_mixing="new") == expected(token_mixing="newer")


def test_more_epochs_than_were_seen_are_as_good_as_the_last() -> None:
    assert expected(epoch=300) == expected(epoch=PRIOR.epochs)


def test_none_of_no_configurations() -> None:
    assert PRIOR([], np.zeros(0), 28).shape == unbiased([], np.zeros(0)).shape == (0,)
