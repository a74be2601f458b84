"""What can be said of workers of Ray without Ray: which addresses are refused before it is asked.

python -m pytest tests/test_ray.py             # the real one: tests/test_cluster_ray.py
"""

import socket
import sys

import pytest

from explore.cluster.ray import Ray

NAMELESS = "cluster.address must be auto, HOST:PORT or ray://HOST:PORT, got"


class FakeRay:
    """A cluster that nobody has asked yet."""

    def is_initialized(self) -> bool:
        return False


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)  # type: ignore[arg-type]
    return fake


@pytest.mark.parametrize("address", ["", "head", "local", "ray://head", "http://head:80", "head:99999", "[::1"])
def test_what_is_no_address_is_refused(address: str, ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=NAMELESS):
        Ray(address=address).check()


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nobody_listens_is_refused_at_once(
    form: str, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explore.cluster.ray.find_spec", lambda name: name)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listening
        address = form.format(taken.getsockname()[1])
        with pytest.raises(ValueError, match=r"must be a Ray cluster that answers, got .*: Connection refused") as no:
            Ray(address=address).check()
    assert f"got {address}:" in str(no.value)


def test_a_cluster_elsewhere_needs_more_than_ray(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explore.cluster.ray.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"cluster.address=ray://head:10001 needs grpcio.*pip install 'explore\[ray\]'"
    ):
        Ray(address="ray://head:10001").check()
