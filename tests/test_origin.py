"""What a benchmark prints for machines says where it comes from.

python -m pytest tests/test_origin.py
"""

import json
from datetime import date

import pytest

from benchmarks.origin import print_json
from benchmarks.result_rows import row, shown


@pytest.mark.parametrize("figures", [[{"value": 1}], {"rows": [{"value": 1}], "bars": []}])
def test_figures_have_their_command_commit_date_and_device(figures, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark.py", "only=one part", "format=json"])
    print_json(figures)
    printed = json.loads(capsys.readouterr().out)
    origin = printed.pop("origin")
    assert printed == (figures if isinstance(figures, dict) else {"rows": figures})
    assert origin.pop("command").endswith(" 'only=one part' format=json")
    assert origin.pop("date") == date.today().isoformat()
    assert len(origin.pop("commit").removesuffix("-dirty")) == 12
    assert {*origin} == {"device", "cores", "torch", "python"}
    assert all(origin.values())


def test_a_line_has_the_median_its_quartiles_and_whether_the_bar_holds() -> None:
    assert "1.2 × [1.1 to 1.3]   bar 1.2: holds" in shown(row("speed", [1.0, 1.1, 1.2, 1.3, 1.4], "×", at_least=1.2))
    assert "bar 1: MISSED" in shown(row("memory", 1.1, "times as much", at_most=1))
