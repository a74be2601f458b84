"""What a container is given is found in its control groups, of both versions, wherever it stands.

python -m pytest tests/test_control_groups.py
"""

from pathlib import Path

import pytest

from explore.control_groups import memory_limit, quota


def written(folder: Path, files: dict[str, str], own: str | None) -> tuple[Path, Path]:
    """Groups with these files, and what says which is that of the process."""
    for name, text in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(f"{text}\n")
    if own is not None:
        (folder / "own").write_text(f"{own}\n")
    return folder / "groups", folder / "own"


V1 = {"cpu/cpu.cfs_quota_us": "{}", "cpu/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({}, None, None),
        ({"cpu.max": "400000 100000"}, "0::/", 4),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"cpu.max": "250000 100000"}, None, 3),
        ({"cpu.max": "5000 100000"}, None, 1),
        ({"cpu.max": "nonsense"}, None, None),
        ({"cpu.max": ""}, None, None),
        ({"cpu.max": "max 100000", "pods/one/cpu.max": "200000 100000"}, "0::/pods/one", 2),
        ({"pods/cpu.max": "150000 50000", "pods/one/cpu.max": "max 100000"}, "0::/pods/one", 3),
        ({"pods/cpu.max": "100000 100000", "pods/one/cpu.max": "900000 100000"}, "0::/pods/one", 1),
        ({"pods/other/cpu.max": "100000 100000"}, "0::/pods/one", None),
        ({name: text.format(350000) for name, text in V1.items()}, "4:memory:/x\n1:cpu,cpuacct:/x", 4),
        ({name: text.format(-1) for name, text in V1.items()}, "1:cpu:/", None),
        (
            {f"cpu,cpuacct/job/{name.partition('/')[2]}": text.format(200000) for name, text in V1.items()},
            "9:name=systemd:/\n1:cpu,cpuacct:/job",
            2,
        ),
        ({"cpu/cpu.cfs_quota_us": "400000"}, "1:cpu:/", None),
    ],
)
def test_the_quota_of_a_container_is_its_number_of_cores(
    tmp_path: Path, files: dict[str, str], own: str | None, expected: int | None
) -> None:
    assert quota(*written(tmp_path, files, own)) == expected


UNLIMITED = "9223372036854771712"


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({}, None, None),
        ({"memory.max": "4096"}, "0::/", 4096),
        ({"memory.max": "max"}, "0::/", None),
        ({"cpu.max": "400000 100000"}, "0::/", None),
        ({"pods/memory.max": "8192", "pods/one/memory.max": "max"}, "0::/pods/one", 8192),
        ({"pods/other/memory.max": "8192"}, "0::/pods/one", None),
        ({"memory/memory.limit_in_bytes": "4096"}, "4:memory:/x\n1:cpu,cpuacct:/x", 4096),
        ({"memory/x/memory.limit_in_bytes": "4096", "memory/memory.limit_in_bytes": UNLIMITED}, "4:memory:/x", 4096),
        ({"memory/memory.limit_in_bytes": UNLIMITED}, "4:memory:/", int(UNLIMITED)),
    ],
)
def test_the_memory_of_a_container_is_its_limit(
    tmp_path: Path, files: dict[str, str], own: str | None, expected: int | None
) -> None:
    assert memory_limit(*written(tmp_path, files, own)) == expected
