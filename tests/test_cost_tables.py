"""What a terminal says of figures that did not settle: never an interval where there is none.

python -m pytest tests/test_cost_tables.py
"""

from typing import Any

import pytest

from explore.cost_tables import print_network

PROTOCOL = {"batch_size": 8, "precision": "32-true", "device": "X", "driver": None, "threads": 1, "torch_version": "2"}
PROTOCOL |= {"interval": 0.02, "max_seconds": 3.0, "dispatch": "eager", "reference_ms": 1.0, "strangers": []}
RESULT = {"name": "network", "image_size": 8, "classes": 10, "params": 1, "macs": 2, "flops": 4, "memory_bytes": 8}
RESULT |= {"deployed_params": 1, "deployed_macs": 2, "throughput": 90.0, "throughput_low": 80.0}
RESULT |= {"throughput_high": 95.0, "latency_ms": 1.0, "latency_p90_ms": None, "latency_p99_ms": None}
RESULT |= {"settled": False, "predicted": None, "published": None}


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    def said(**protocol: Any) -> str:
        print_network(RESULT | {"protocol": PROTOCOL | protocol})
        return " ".join(capsys.readouterr().out.split())

    return said


def test_one_block_has_no_interval(printed: Any) -> None:
    words = printed(blocks=1)
    assert "90.0 images/s latency" in words
    assert "eager, 1 block, torch 2" in words
    assert "not settled: 1 block within 3 s, too few to tell how far off it is; give it more than cost." in words


def test_few_blocks_have_a_range_and_more_an_interval(printed: Any) -> None:
    few, more = printed(blocks=5), printed(blocks=6)
    assert "90.0 images/s [80.0 to 95.0]" in few
    assert "median and range of 5 blocks" in few
    assert "not settled: 5 blocks within 3 s" in few
    assert "median and 95 % interval of 6 blocks" in more
    assert "not settled: the interval is wider than ±2 %; give it more than cost.max_seconds=3" in more
    assert "threads" not in more.partition("not settled")[2]


def test_several_threads_need_their_cores(printed: Any) -> None:
    assert printed(blocks=2, threads=2).endswith("or cost.threads=1, which others disturb less")
