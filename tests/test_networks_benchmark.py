"""The benchmark of networks compares turn by turn, judges what it prints, and says what it did with how many images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import network_sides, networks
from benchmarks.apart import Apart
from benchmarks.network_sides import KEPT, MEDIUM, PEAK_SIDE, S16, SMALL, allocating, prepared, sides
from benchmarks.networks import memory_row, speed_rows

CPU = torch.device("cpu")


def test_ratios_and_shares_are_taken_turn_by_turn() -> None:
    # All sides are twice as slow in the second turn and four times in the third.
    seconds = {"timm": [3.0, 6.0, 12.0], "ours": [2.0, 4.0, 8.0], "peak": [1.0, 2.0, 4.0]}
    rows = {row["name"]: row for row in speed_rows(S16, "inference", "float32", seconds, PEAK_SIDE["cpu"] ** 3, "cpu")}
    ratio = rows["mixer_s16 float32 inference: ours to timm"]
    assert [ratio[key] for key in ("value", "low", "high", "bar", "holds")] == [1.5, 1.5, 1.5, 1.3, True]
    assert rows["mixer_s16 float32 inference: share of the peak, ours"]["value"] == pytest.approx(0.5)
    assert rows["mixer_s16 float32 inference: share of the peak, timm"]["value"] == pytest.approx(1 / 3)


def test_the_gain_of_the_network_is_told_from_that_of_memory() -> None:
    seconds = {side: [1.0, 1.0] for side in sides("inference", "float32", "cpu")} | {"timm": [2.0, 2.0]}
    rows = {
        row["name"].partition(": ")[2]: row["value"]
        for row in speed_rows(SMALL, "inference", "float32", seconds, 1, "cpu")
    }
    assert rows["ours to timm"] == rows[f"timm{KEPT} to timm"] == 2.0
    assert rows[f"ours to timm{KEPT}"] == 1.0


def test_on_a_gpu_the_bar_is_held_against_what_is_compiled() -> None:
    seconds = {side: [1.0, 1.0] for side in sides("inference", "float32", "cuda")}
    rows = speed_rows(SMALL, "inference", "float32", seconds, 1.0, "cuda")
    barred = [row["name"] for row in rows if row["bar"]]
    assert barred == ["mixer_28px float32 inference: ours compiled to timm compiled"]


@pytest.mark.parametrize(("fast", "images"), [(True, 256), (False, 32)])
def test_bfloat16_without_instructions_takes_fewer_images(
    fast: bool, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_sides, "multiplies_bfloat16", lambda device: fast)
    assert MEDIUM.images("inference", "bfloat16", CPU) == images
    assert MEDIUM.images("inference", "float32", CPU) == 256


@pytest.mark.parametrize("step", ["inference", "training step"])
def test_a_side_tells_the_seconds_of_its_own_passes(step: str) -> None:
    assert 0 < prepared("ours", SMALL, step, "float32", "cpu", 1)(2) < 10


def test_memory_on_a_gpu_is_what_steps_allocate_once_the_optimizer_has_its_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = list[str]()
    turn = network_sides.turn
    monkeypatch.setattr(network_sides, "turn", lambda one, *rest: done.append("steps") or turn(one, *rest))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: done.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: done.append("read") or 7)
    assert allocating("ours", SMALL, "float32", "cpu")(3) == 7
    assert done == ["steps", "reset", "steps", "read"]


def test_memory_on_a_gpu_is_compared_with_one_optimizer_each_side_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        def __init__(self, prepare: Any, side: str, *arguments: Any, preload: Any) -> None:
            assert (prepare, arguments) == (allocating, (SMALL, "float32", "cuda"))
            self.bytes = {"ours": 30, "timm with fused AdamW": 40}[side]

        def __class_getitem__(cls, types: Any) -> Any:
            return cls

        def __enter__(self) -> Callable[[int], int]:
            return lambda steps: self.bytes

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(networks, "Apart", Told)
    found = memory_row(SMALL, "float32", "cuda")
    assert (found["value"], found["bar"]) == (0.75, None)


def _counting(start: int) -> Callable[[int], int]:
    total = start

    def add(number: int) -> int:
        nonlocal total
        total += number
        if total > 100:
            raise ValueError("more than a hundred")
        return total

    return add


def test_a_side_stays_in_its_process_and_says_what_went_wrong_there() -> None:
    with Apart[int, int](_counting, 10) as one, Apart[int, int](_counting, 20) as other:
        assert [one(1), other(1), one(1)] == [11, 21, 12]
        with pytest.raises(RuntimeError, match="ValueError: more than a hundred"):
            one(100)
    with Apart[int, int](_counting) as broken, pytest.raises(RuntimeError, match="TypeError"):
        broken.wait()
    with Apart[int, int](_counting) as broken, pytest.raises(RuntimeError, match="TypeError"):
        broken(1)
