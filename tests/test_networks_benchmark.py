"""The benchmark of networks compares turn by turn, judges what it prints, and says what it did with how many images."""

import pytest
import torch

from benchmarks import networks
from benchmarks.networks import MEDIUM, S16, SMALL, Row, speed_rows

CPU = torch.device("cpu")


def test_a_figure_holds_when_its_median_reaches_the_bar() -> None:
    values = [1.0, 1.3, 9.0]
    assert Row.of("name", values, "×", 1.3).holds
    assert not Row.of("name", values, "×", 1.31).holds
    assert Row.of("name", values, "×").holds is None
    assert "bar 1.31: MISSED" in str(Row.of("name", values, "×", 1.31))


def test_memory_holds_when_it_stays_below_the_bar() -> None:
    assert Row.of("name", [0.9], "×", 1.0, at_most=True).holds
    assert not Row.of("name", [1.1], "×", 1.0, at_most=True).holds


def test_ratios_and_shares_are_taken_turn_by_turn() -> None:
    # All sides are twice as slow in the second turn and four times in the third.
    seconds = {"timm": [3.0, 6.0, 12.0], "ours": [2.0, 4.0, 8.0], "peak": [1.0, 2.0, 4.0]}
    rows = {
        row.name: row for row in speed_rows(S16, "inference", "float32", seconds, networks.PEAK_SIDE["cpu"] ** 3, "cpu")
    }
    ratio = rows["mixer_s16 float32 inference: ours to timm"]
    assert (ratio.value, ratio.low, ratio.high, ratio.bar, ratio.holds) == (1.5, 1.5, 1.5, 1.3, True)
    assert rows["mixer_s16 float32 inference: share of the peak, ours"].value == pytest.approx(0.5)
    assert rows["mixer_s16 float32 inference: share of the peak, timm"].value == pytest.approx(1 / 3)


def test_on_a_gpu_the_bar_is_held_against_what_is_compiled() -> None:
    sides = ("timm", "timm compiled", "ours, captured", "timm compiled, captured", "ours compiled", "ours", "peak")
    seconds = {name: [1.0, 1.0] for name in sides}
    rows = speed_rows(SMALL, "inference", "float32", seconds, 1.0, "cuda")
    assert [row.name for row in rows if row.bar] == ["mixer_28px float32 inference: ours compiled to timm compiled"]


@pytest.mark.parametrize(("fast", "images"), [(True, 256), (False, 32)])
def test_bfloat16_without_instructions_takes_fewer_images(
    fast: bool, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "multiplies_bfloat16", lambda device: fast)
    assert MEDIUM.images("inference", "bfloat16", CPU) == images
    assert MEDIUM.images("inference", "float32", CPU) == 256
