"""A cost is found again under the same network, protocol and device, and under no other.

python -m pytest tests/test_cost_store.py
"""

import importlib
import os
import stat
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from explore.cost.record import Cost
from explore.cost.reference import calibrated
from explore.cost.store import find, identity, keep, keep_record
from explore.cost.whole import write_whole

COST = Cost(params=1, macs=2, memory_bytes=3, throughput=None)
CPU = torch.device("cpu")


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "costs"
    assert find(folder, "a") is None
    keep(folder, "a", COST)
    assert find(folder, "a") == COST
    assert find(folder, "b") is None
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError):
        keep_record(tmp_path, "a", {"device": CPU})

    def full(*paths: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("explore.cost.store.write_whole", partial(write_whole, put=full))
    with pytest.raises(OSError, match="no space left"):
        keep(tmp_path, "a", COST)
    assert not list(tmp_path.iterdir())


def test_other_users_may_read_it_as_far_as_the_umask_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = os.umask(0o022)
    try:
        keep(tmp_path, "a", COST)
        calibrated({"device": "shared"}, lambda: 0.25, tmp_path / "study")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o644] * 3


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"params": 1, "throughput": {"images_per_second": 1}}'])
def test_what_cannot_be_read_is_measured_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert find(tmp_path, "a") is None


def test_identity_follows_what_a_module_from_outside_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    own = "from torch import nn\nfrom {} import helped\nclass Own(nn.Module):\n    pass\n"
    files = {
        "a_package_of_a_test/__init__.py": "",
        "a_package_of_a_test/helping.py": "helped = 1\n",
        "a_package_of_a_test/own.py": own.format("a_package_of_a_test.helping"),
        "a_helper_of_a_test.py": "helped = 1\n",
        "a_module_of_a_test.py": own.format("a_helper_of_a_test"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for module, helper in (
        ("a_package_of_a_test.own", "a_package_of_a_test/helping.py"),
        ("a_module_of_a_test", "a_helper_of_a_test.py"),
    ):
        network = importlib.import_module(module).Own()
        before = identity(network, {}, CPU)
        (tmp_path / "never_imported.py").write_text("slower = 1\n")
        assert identity(network, {}, CPU) == before
        (tmp_path / helper).write_text("helped = 2\n")
        assert identity(network, {}, CPU) != before
    for name in [one for one in sys.modules if "_of_a_test" in one]:
        del sys.modules[name]


def test_identity_follows_description_device_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tmp_path / "own_mixing_of_a_test.py"
    source.write_text("from torch import nn\nclass Own(nn.Module):\n    pass\n")
    from own_mixing_of_a_test import Own  # type: ignore[import-not-found]

    network = nn.Sequential(nn.Linear(2, 2), Own())
    first = identity(network, {"depth": 1}, CPU)
    assert identity(nn.Sequential(nn.Linear(2, 2), Own()), {"depth": 1}, CPU) == first
    others = {identity(network, {"depth": 2}, CPU), identity(nn.Linear(2, 2), {"depth": 1}, CPU)}
    monkeypatch.setattr("explore.cost.store.device_name", lambda device: "another one")
    others.add(identity(network, {"depth": 1}, CPU))
    monkeypatch.undo()
    source.write_text(source.read_text() + "# mended\n")
    others.add(identity(network, {"depth": 1}, CPU))
    assert len(others - {first}) == 4
    del sys.modules["own_mixing_of_a_test"]
