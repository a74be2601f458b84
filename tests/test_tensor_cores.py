"""Three products in TF32 are one in float32; a processor plays the tensor cores by rounding what they would.

What real ones do is in tests/test_gpu.py.

python -m pytest tests/test_tensor_cores.py
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from explore.architecture import layers, tensor_cores
from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.tensor_cores import halves, product, suits_tensor_cores

BITS = 11


def rounded(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """The sum of products of numbers cut to 11 bits, which is the worst that a tensor core does to them."""
    cut = [[(one.view(torch.int32) & -(1 << 13)).view(torch.float32) for one in side] for side in (left, right)]
    return sum((a @ b for a, b in zip(*cut, strict=True)), torch.zeros(()))


@given(number=st.floats(-(2.0**126), 2.0**126, width=32, allow_subnormal=False))
def test_halves_have_the_bits_of_tensor_cores_and_add_up(number: float) -> None:
    x = torch.tensor([number])
    upper, lower = halves(x)
    assert torch.equal(upper + lower, x)
    assert not upper.view(torch.int32) & 0x1FFF
    assert lower.abs() <= x.abs() * 2.0**-BITS


SHAPES = [
    *[
        ((40, 30), (30, 50)),
        ((5, 300), (300, 6)),
        ((40, 1300), (1300, 50)),
        ((5, 6000), (6000, 6)),
        ((5, 4099), (4099, 6)),
    ],
    *[((40, 30), (3, 30, 50)), ((4, 300), (3, 300, 5)), ((9, 1100), (3, 1100, 5))],
]


@pytest.mark.parametrize(("of_a", "of_b"), SHAPES)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own compiler does
def test_products_and_gradients_are_as_near_as_those_of_float32(
    monkeypatch: pytest.MonkeyPatch, of_a: tuple[int, ...], of_b: tuple[int, ...], compiled: bool
) -> None:
    if not compiled:
        monkeypatch.setattr(tensor_cores, "tf32_products", rounded)
    torch.manual_seed(0)
    torch._dynamo.reset()
    a, b = torch.randn(of_a), torch.randn(of_b)

    def found(multiply: Callable[[Tensor, Tensor], Tensor], *factors: Tensor) -> list[Tensor]:
        leaves = [one.clone().requires_grad_() for one in factors]
        result = multiply(*leaves)
        weights = torch.ones_like(result).cumsum(-1).cos()
        return [result.detach(), *torch.autograd.grad(result, leaves, weights)]

    form = torch.compile(product, backend="aot_eager", dynamic=False, fullgraph=True) if compiled else product
    true = found(torch.matmul, a.double(), b.double())
    for exact, theirs, own in zip(true, found(torch.matmul, a, b), found(form, a, b), strict=True):
        error, least = ((one - exact).norm() / exact.norm() for one in (own, theirs))
        assert error < 10 * least
    assert (rounded([a], [b]) - true[0]).norm() > 100 * (found(form, a, b)[0] - true[0]).norm()


def test_only_what_is_needed_has_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(tensor_cores, "tf32_products", lambda a, b: calls.append(a) or rounded(a, b))
    x, weight = torch.randn(4, 3), torch.randn(3, 5, requires_grad=True)
    product(x, weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert len(calls) == 2


def mixer() -> Network:
    torch.manual_seed(0)
    model, mlp = Model.of({"patch_size": 4, "depth": 1, "width": 64}), Mixing(name="mlp")
    return Network(architecture(model, mlp, mlp, image_size=32, channels=3, classes=10))


def test_a_network_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[nn.Linear] = []
    network, images = mixer(), torch.rand(4, 3, 32, 32)

    def gradients() -> list[Tensor]:
        network.zero_grad()
        logits = network(images)
        (logits * torch.arange(10)).sum().backward()
        return [logits.detach(), *(one.grad.clone() for one in network.parameters() if one.grad is not None)]

    expected = gradients()
    monkeypatch.setattr(layers, "suits_tensor_cores", lambda linear, x: used.append(linear) or True)
    monkeypatch.setattr("explore.architecture.mlp.takes_parts", lambda *_: False)
    found = gradients()
    assert len(used) == 4  # of two MLPs
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("nothing is compiled", {"compiling": False}),
        ("exported", {"exporting": True}),
        ("on a processor", {"device": "cpu"}),
        ("another GPU", {"capability": (8, 9)}),
        ("in double precision", {"dtype": torch.float64}),
        ("few channels", {"inputs": 64}),
        ("", {}),
    ],
)
def test_where_three_products_take_the_place_of_one(
    monkeypatch: pytest.MonkeyPatch, reason: str, change: dict[str, Any]
) -> None:
    given = {"compiling": True, "exporting": False, "device": "cuda", "capability": (9, 0), "dtype": torch.float32}
    given |= {"inputs": 128} | change
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: given["compiling"])
    monkeypatch.setattr(tensor_cores, "exporting", lambda: given["exporting"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: given["capability"])

    class OnGpu(Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device(str(given["device"]), 0)

    linear = nn.Linear(given["inputs"], 256, dtype=given["dtype"])
    x = torch.zeros(1, dtype=given["dtype"]).as_subclass(OnGpu)
    assert suits_tensor_cores(linear, x) is (reason == "")
