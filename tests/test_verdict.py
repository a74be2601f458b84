"""What a terminal, or a program that reads it, is told of an ablation."""

from ablations import invented

from explore.verdict import _record


def test_programs_find_the_same_keys_before_anything_is_found() -> None:
    found, nothing = _record(invented()["findings"], seeds=8), _record(None, seeds=1)
    assert nothing.keys() == found.keys()
    assert (nothing["seeds"], nothing["levels"], nothing["settled"], nothing["level"]) == (1, [], False, None)
    assert found["seeds"] == 8
    assert found["levels"]
