"""Regret is what is missing after what was spent, a paired test sees what all seeds agree on and nothing else, and
its correction is that of Holm's paper."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_search_replay import TABLE

from benchmarks import search, search_real, search_statistics
from benchmarks.search_judge import SCALES, Finish
from benchmarks.search_picture import draw
from benchmarks.search_statistics import BUDGETS, corrected, paired, regrets, shares_at, spread

ALL = [Finish(row, 27 * (row + 1), float(row + 1)) for row in range(len(TABLE.overrides))]


def test_a_share_counts_from_the_epoch_at_which_it_was_reached() -> None:
    for scale in SCALES:
        [before, at, later, last] = shares_at(TABLE, [ALL], scale, "epochs", [26, 27, 53, 1e9])[0]
        first = TABLE.progress([0], scale)[0]
        assert (before, at, later) == (0.0, first, first)
        assert last == pytest.approx(1)
        by_seconds = shares_at(TABLE, [ALL], scale, "seconds", [0.5, 1.0])[0]
        assert list(by_seconds) == [0.0, first]


def test_a_search_that_has_ended_keeps_what_it_had() -> None:
    found = regrets(TABLE, [ALL, ALL[:3], []], "plain")
    assert list(found) == [*(f"{budget:,} epochs" for budget in BUDGETS), "the end"]
    assert found["the end"][0] == 0.0
    assert found["2,430 epochs"][1] == found["the end"][1] > 0
    assert found["the end"][2] == 1.0
    assert found["270 epochs"][0] == pytest.approx(1 - TABLE.progress(range(10), "plain")[-1])


def test_quartiles_of_who_never_arrived() -> None:
    assert spread([1.0, np.inf, 3.0, np.inf]) == {"median": 3.0, "low": 1.0, "high": np.inf}


def test_what_all_seeds_agree_on_is_significant() -> None:
    ours = np.arange(10.0)
    assert paired(ours, ours + np.linspace(1, 2, 10)) == pytest.approx(2 / 2**10)
    assert paired(ours, ours + np.array([1, -2, 3, -4, 5, -6, 7, -8, 9, -10])) > 0.5
    assert paired(ours, ours) == 1.0


def test_the_correction_is_that_of_holm() -> None:
    lines = corrected([{"p": p} for p in (0.01, 0.04, 0.03, 0.005)])
    assert [line["p_holm"] for line in lines] == pytest.approx([3 * 0.01, 2 * 0.03, 2 * 0.03, 4 * 0.005])
    assert corrected([]) == []


def test_the_others_are_compared_with_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    of_method = {search.OURS: [ALL] * 6, "tpe": [ALL[:2]] * 6, "random": [ALL] * 6}
    monkeypatch.setattr(search, "SCALES", ("plain",))
    monkeypatch.setattr(search_statistics, "BUDGETS", ())
    monkeypatch.setattr(search, "load_table", lambda data: TABLE)
    monkeypatch.setattr(search, "results", lambda data, method, seeds, workers: of_method[method])
    rows = search.regret_rows("digits", list(of_method), 6, 1)
    ended = [row for row in rows if row["after"] == "the end"]
    ours, tpe, random = ended
    assert [row["method"] for row in ended] == list(of_method)
    assert "p" not in ours
    assert (ours["median"], random["p_holm"]) == (0.0, 1.0)
    assert tpe["median"] > 0
    assert tpe["p"] < tpe["p_holm"] < 0.1
    assert not any("p" in row for row in search.regret_rows("digits", ["tpe", "random"], 6, 1))


def test_the_picture_has_a_row_for_each_table_and_scale(tmp_path: Path) -> None:
    runs = {"digits": {"speed_aware": [ALL, ALL[:5]], "random": [ALL[::-1], []]}}
    runs["digits"]["random"][0] = [Finish(one.configuration, 27 * n, float(n)) for n, one in enumerate(ALL[::-1], 1)]
    draw({"digits": TABLE}, runs, 8, tmp_path / "replays.png")
    with Image.open(tmp_path / "replays.png") as picture:
        assert picture.size == (1800, 1220)


def test_real_searches_are_weighed_against_all_that_was_found() -> None:
    fronts = {"ours": [[(0.9, 1000.0), (0.95, 100.0)], []], "other": [[(0.9, 1000.0)], [(0.95, 100.0)]]}
    for shares in search_real.volumes(fronts, smallest=1e-3, chance=0.1).values():
        assert shares["ours"] == [pytest.approx(1), 0.0]
        assert all(0 < share < 1 for share in shares["other"])
    with pytest.raises(ValueError, match="must train a candidate to its end, got none"):
        search_real.volumes({"ours": [[]]}, smallest=1e-3, chance=0.1)


def test_real_searches_are_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, speed in (("speed_aware", 2000.0), ("tpe", 1000.0)):
        for seed in range(5):
            (tmp_path / f"{method}-{seed}.json").write_text(
                json.dumps({"points": [(0.9 + seed / 100, speed)], "reference_ms": 2.0})
            )
    search_real.main(["methods=tpe", "seeds=5", f"outputs={tmp_path}", "format=json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["plain: p of speed_aware and tpe"]["value"] == pytest.approx(0.0625)
    assert rows["plain: hypervolume by speed_aware"]["value"] > rows["plain: hypervolume by tpe"]["value"] > 0
