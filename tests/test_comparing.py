"""The last comparison of speeds is made once for the same trials, also where it leaves some of them out.

python -m pytest tests/test_comparing.py
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from filled_studies import add, new_study

from explore import conclusion
from explore.search.rivals import compared, results


@pytest.mark.parametrize("cannot_be_compiled", [(), (1,), (0, 1, 2)])
def test_a_comparison_is_not_repeated(
    cannot_be_compiled: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = new_study()
    for accuracy, speed in ((0.9, 300.0), (0.8, 600.0), (0.7, 900.0), (0.6, 100.0)):
        add(study, accuracy, speed)
    made: list[list[int]] = []

    def time_together(
        candidates: Mapping[int, object],
        batch_sizes: Mapping[int, int],
        study: Path,
        dispatches: Mapping[int, str],
        report: Callable[[str], None],
    ) -> dict[int, list[float]]:
        assert study == plan.output
        assert dispatches == dict.fromkeys(candidates, "eager"), "as each was launched in its own trial"
        report("not alone: python (7) used the GPU meanwhile")
        made.append(sorted(candidates))
        return {number: [0.5] * 10 for number in candidates if number not in cannot_be_compiled}

    monkeypatch.setattr(conclusion, "time_together", time_together)
    monkeypatch.setattr(conclusion, "this_machine", lambda candidate: ("AMD EPYC", None, "2.13.0"))
    plan = SimpleNamespace(base=("+sweep=pareto",), keys={"model.depth"}, design=None, output=Path())
    for _ in range(2):
        conclusion.compare_speeds(plan, study)  # type: ignore[arg-type]
    assert made == [[0, 1, 2]]
    assert "Comparing speeds: not alone: python (7) used the GPU meanwhile\n" in capsys.readouterr().err
    assert compared(study).keys() == {0, 1, 2} - {*cannot_be_compiled}
    assert [one.throughput for one in results(study) if one.number in cannot_be_compiled] == [
        one.throughput for one in study.trials() if one.number in cannot_be_compiled
    ]
    add(study, 0.95, 200.0)
    conclusion.compare_speeds(plan, study)  # type: ignore[arg-type]
    assert made == [[0, 1, 2], [0, 1, 2, 4]], "with another one that competes it is"


def test_a_comparison_that_fails_is_told_of_until_one_succeeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = new_study()
    add(study, 0.9, 300.0)
    add(study, 0.8, 600.0)
    faults: list[Exception] = [RuntimeError("the GPU ran out of memory\nand so on"), MemoryError()]

    def time_together(candidates: Mapping[int, object], *others: object) -> dict[int, list[float]]:
        if faults:
            raise faults.pop(0)
        return {number: [0.5] * 10 for number in candidates}

    monkeypatch.setattr(conclusion, "time_together", time_together)
    monkeypatch.setattr(conclusion, "this_machine", lambda candidate: ("AMD EPYC", None, "2.13.0"))
    plan = SimpleNamespace(base=("+sweep=pareto",), keys={"model.depth"}, design=None, output=Path())
    for reason in ("the GPU ran out of memory", "MemoryError", None):
        conclusion.compare_speeds(plan, study)  # type: ignore[arg-type]
        assert study.notes["not_compared"] == reason
        assert capsys.readouterr().err == (f"explore: speeds are not compared: {reason}\n" if reason else "")
    assert compared(study).keys() == {0, 1}
