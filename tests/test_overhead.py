"""The studies that the fixed cost is measured in are read as if a search had filled them, and the sums are sums."""

from pathlib import Path

import pytest

from benchmarks.filled_study import evaluation, fill, proposals
from benchmarks.overhead import rows
from explore.evaluation import COMPLETE
from explore.search.space import parse_space
from explore.search.storage import open_storage
from explore.search.study import Study, create_study

SPACE = parse_space({"model.depth": "range(1, 5)", "model.width": "choice(8, 16)", "lr": "interval(0, 1)"})


def test_a_filled_study_is_read_as_if_a_search_had_filled_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    create_study(open_storage(url), "some", {"space": {}})
    for count in (5, 12):
        fill(url, "some", SPACE, count)
        trials = Study(open_storage(url), "some").trials()
        assert [trial.number for trial in trials] == list(range(count))
    expected = [proposal for proposal, _ in zip(proposals(SPACE), range(12), strict=False)]
    assert [trial.proposal for trial in trials] == expected
    assert [trial.evaluation for trial in trials] == [evaluation(proposal) for proposal in expected]
    assert {trial.status for trial in trials} == {COMPLETE}
    claimed = Study(open_storage(url), "some").claim(next(proposals(SPACE, seed=7)), command="", target=20)
    assert claimed is not None
    assert claimed.number == 12


def test_the_sum_has_every_part_of_a_trial_once_and_says_whether_its_bar_holds() -> None:
    alone = {"build": [0.1, 0.2, 0.3], "count": [0.15], "measure": [9.0], "between epochs": [8.0]}
    once = {"read the study": [1.0], "report": [2.0], "propose with gp": [7.0], "look at the study": [3.0]}
    after = {10: {**once, "ask": [0.05]}, 1000: {**once, "report": [2e4], "read the study": [100.0], "ask": [0.07]}}
    found = {str(row["name"]): row for row in rows({"--help": [0.6]}, alone, after)}
    each = "a trial without measuring and training, after"
    assert found[f"{each} 10 trials"]["value"] == pytest.approx(0.25)
    assert found[f"{each} 1,000 trials, with count"]["value"] == pytest.approx(0.42)
    assert found["read the study, growth from 10 to 1,000 trials"]["value"] == pytest.approx(1)
    assert found["report, growth from 10 to 1,000 trials"]["value"] == pytest.approx(2)
    holds = {name: row["holds"] for name, row in found.items() if row["bar"] is not None}
    assert [name for name, kept in holds.items() if kept] == [
        f"{each} 10 trials",
        f"{each} 1,000 trials",
        "read the study, growth from 10 to 1,000 trials",
    ]
