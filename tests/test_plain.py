"""A form stands in only for modules that are what their class says, and nothing is overwritten that somebody looks at.

Layers that were exchanged, parametrized, pruned or hooked are called as they are, whatever the size; what a hook keeps
stays as it was; `torch.func` and tensors with tangents go through networks as they go through any other.

python -m pytest tests/test_plain.py
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import images, network
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations, prune

from explore.architecture import mlp, mlp_gradient, products
from explore.architecture import network as network_module
from explore.architecture.catalog import Grid, Mixing, construct
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.layers import across_tokens
from explore.architecture.mlp import channel_mlp, token_mlp
from explore.architecture.network import Network
from explore.architecture.plain import hooked_inside
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

Form = Callable[[nn.Linear, nn.Module, nn.Linear, Tensor], Tensor]
BATCH, TOKENS, CHANNELS, HIDDEN = 5, 6, 4, 7
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
every_axis = pytest.mark.parametrize(("form", "size"), [(channel_mlp, CHANNELS), (token_mlp, TOKENS)])
ENTRIES = [("token_mixing", name) for name in TOKEN_MIXINGS] + [("channel_mixing", name) for name in CHANNEL_MIXINGS]
every_mixing = pytest.mark.parametrize(("kind", "name"), ENTRIES)
both_modes = pytest.mark.parametrize("learning", [False, True])
HOOKS = ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")
WITHOUT_TANGENTS = {"moe", "attention"}
MATRICES = {("repmlp", "channel")}  # the matrices of several layers, which itself is none


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors get the forms of large ones."""
    monkeypatch.setattr(mlp_gradient, "fit_into_cache", lambda *size: False)
    monkeypatch.setattr(products, "_LARGE", 1)
    monkeypatch.setattr(products, "_LARGE_WITH_GELU", 1)
    monkeypatch.setattr(products, "_has_avx512", lambda: True)
    monkeypatch.setattr(products, "fused_is_faster", lambda *size: True)
    monkeypatch.setattr(network_module, "images_at_once", lambda *sizes: 2)


def mixer(kind: str = "token_mixing", name: str = "mlp") -> Network:
    torch.manual_seed(0)
    chosen = {"token_mixing": Mixing(name="mlp"), "channel_mixing": Mixing(name="mlp"), kind: Mixing(name=name)}
    model = Model(patch_size=4, depth=1, width=32)
    return Network(architecture(model, **chosen, image_size=16, channels=3, classes=10)).eval()


class Shifted(nn.Linear):
    """A layer with a `forward` of its own, which counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + 1


def shift(layer: nn.Linear) -> Shifted:
    result = Shifted(layer.in_features, layer.out_features, bias=layer.bias is not None)
    result.load_state_dict(layer.state_dict())
    return result


# Layers that are more than their class says


@both_modes
@every_mixing
def test_a_layer_that_was_exchanged_is_called(kind: str, name: str, learning: bool) -> None:
    module = construct(kind, {**TOKEN_MIXINGS, **CHANNEL_MIXINGS}, Mixing(name=name), Grid(4, 4), 32)  # type: ignore[arg-type]
    layers = {key: one for key, one in module.named_modules() if type(one) is nn.Linear and (name, key) not in MATRICES}
    for key, layer in layers.items():
        module.set_submodule(key, shift(layer))
    with torch.set_grad_enabled(learning):
        module.eval()(torch.randn(2, 16, 32, requires_grad=learning))
    assert all(module.get_submodule(key).calls for key in layers)


def pruned(layer: nn.Linear) -> nn.Linear:
    return prune.l1_unstructured(layer, "weight", 0.5)


def pruned_for_good(layer: nn.Linear) -> nn.Linear:
    """Whose parameters stand in another order."""
    return prune.remove(pruned(layer), "weight")


def wrapped(layer: nn.Linear) -> nn.Linear:
    layer.forward = lambda x: nn.Linear.forward(layer, x) + 1  # type: ignore[method-assign]
    return layer


CHANGES = (shift, pruned, pruned_for_good, wrapped, parametrizations.weight_norm, parametrizations.spectral_norm)


@every_axis
@both_modes
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_layer_that_was_changed_computes_what_it_does(
    form: Form, size: int, change: Callable[[nn.Linear], nn.Linear], which: int, learning: bool
) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(size, HIDDEN), nn.Linear(HIDDEN, size)]
    layers[which] = change(layers[which]).eval()
    x = torch.randn(BATCH, TOKENS, CHANNELS, requires_grad=learning)
    given = x if form is channel_mlp else x.transpose(1, 2)
    expected = layers[1](nn.functional.gelu(layers[0](given)))
    expected = expected if form is channel_mlp else expected.transpose(1, 2)
    with torch.set_grad_enabled(learning):
        result = form(layers[0], nn.GELU(), layers[1], x)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)
    if learning:
        inputs = [x, *layers[0].parameters(), *layers[1].parameters()]
        probe = torch.linspace(-1, 1, result.numel()).view_as(result)
        both = [torch.autograd.grad((one * probe).sum(), inputs) for one in (result, expected)]
        torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)


def test_tokens_go_through_a_layer_without_bias() -> None:
    layer, x = nn.Linear(TOKENS, HIDDEN, bias=False), torch.randn(BATCH, TOKENS, CHANNELS)
    torch.testing.assert_close(across_tokens(layer, x), layer(x.transpose(1, 2)).transpose(1, 2))


@every_axis
@pytest.mark.parametrize("register", HOOKS)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_hook_is_called(form: Form, size: int, register: str, which: int) -> None:
    modules: list[Any] = [nn.Linear(size, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, size)]
    calls = []
    getattr(modules[which], f"register_{register}")(lambda *given: calls.append(given))
    form(*modules, torch.randn(BATCH, TOKENS, CHANNELS, requires_grad=True)).sum().backward()
    assert len(calls) == 1
    if "forward" in register:
        with torch.no_grad():
            form(*modules, torch.randn(BATCH, TOKENS, CHANNELS))
        assert len(calls) == 2


def test_a_hook_on_all_modules_is_called() -> None:
    names = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *given: names.append(type(module)))
    with handle, torch.no_grad():
        mixer()(images())
    assert names.count(nn.GELU) == 2


# What is looked at


def kept(module: nn.Module, x: Tensor, *, learning: bool) -> dict[str, list[Tensor]]:
    """What goes out of every module within, as hooks have it when all is done."""
    seen: dict[str, list[Tensor]] = {}
    handles = [
        one.register_forward_hook(lambda module, given, result, name=name: seen.setdefault(name, []).append(result))
        for name, one in module.named_modules()
    ]
    with torch.set_grad_enabled(learning):
        module(x)
    for handle in handles:
        handle.remove()
    return seen


@every_mixing
def test_what_hooks_keep_stays_as_it_was(kind: str, name: str) -> None:
    built, batch = mixer(kind, name), images(5)
    found, expected = (kept(built, batch, learning=learning) for learning in (False, True))
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@every_mixing
def test_what_hooks_keep_of_a_block_alone_stays_as_it_was(kind: str, name: str) -> None:
    block = mixer(kind, name).stages[0]
    x = torch.randn(2, 16, 32)
    found, expected = (kept(block, x, learning=learning) for learning in (False, True))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_see_the_batch_as_a_whole(register: str) -> None:
    built, sizes = mixer(), []
    with torch.no_grad(), getattr(built.norm, register)(lambda module, given, *result: sizes.append(len(given[0]))):
        built(images(5))
    assert sizes == [5]
    with torch.no_grad(), getattr(built, register)(lambda *given: sizes.append(1)):
        built(images(5))
    assert sizes == [5, 1]


def test_only_hooks_on_what_is_inside_are_looked_for() -> None:
    built = mixer()
    built.register_forward_hook(lambda *given: None)
    built.register_module("nothing", None)
    assert not hooked_inside(built)
    with built.stages[0][0].channel.mixing.activation.register_forward_pre_hook(lambda *given: None):
        assert hooked_inside(built)
    with nn.modules.module.register_module_forward_hook(lambda *given: None):
        assert hooked_inside(built)
    assert not hooked_inside(built)
    built.head.forward = built.head.forward
    assert hooked_inside(built)


def test_what_is_compiled_calls_hooks() -> None:
    built, seen = mixer(), []
    built.stages[0][0].channel.mixing.expand.register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.no_grad():
        expected = built(images())
        result = torch.compile(built, backend="eager", fullgraph=True)(images())
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(*seen)


# Transformations of functions


def called(built: Network, weights: dict[str, Tensor], batch: Tensor) -> Tensor:
    logits: Tensor = torch.func.functional_call(built, weights, (batch,))
    return (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum()


def test_gradients_by_torch_func_are_those_of_automatic_differentiation(monkeypatch: pytest.MonkeyPatch) -> None:
    built, batch = network(depth=1), images(5)
    weights = dict(built.named_parameters())
    constants = {name: one.detach() for name, one in weights.items()}
    found = torch.func.grad(lambda given: called(built, given, batch))(constants)
    monkeypatch.setattr(mlp, "takes_parts", lambda *refused: False)
    expected = torch.autograd.grad(called(built, weights, batch), list(weights.values()))
    torch.testing.assert_close(list(found.values()), list(expected), atol=1e-5, rtol=1e-4)


@both_modes
@every_mixing
def test_tangents_go_through(kind: str, name: str, learning: bool) -> None:
    if name in WITHOUT_TANGENTS:
        pytest.skip("an operator of its own, or of PyTorch, that has no tangents")
    built, batch, direction = mixer(kind, name), images(5).requires_grad_(), torch.randn(5, 3, 16, 16)
    slope = torch.autograd.grad(called(built, {}, batch), batch)[0]
    expected = (slope * direction).sum()
    with torch.set_grad_enabled(learning):
        _, found = torch.func.jvp(lambda given: called(built, {}, given), (batch.detach(),), (direction,))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
        with forward_ad.dual_level():
            result = called(built, {}, forward_ad.make_dual(batch.detach(), direction))
            torch.testing.assert_close(forward_ad.unpack_dual(result).tangent, expected, atol=1e-4, rtol=1e-3)


def test_tangents_of_weights_go_through_in_inference() -> None:
    built, batch = mixer(), images(5)
    weights = {name: one.detach() for name, one in built.named_parameters()}
    directions = {name: torch.randn_like(one) for name, one in weights.items()}
    slopes = torch.func.grad(lambda given: called(built, given, batch))(weights)
    with torch.no_grad():
        _, found = torch.func.jvp(lambda given: called(built, given, batch), (weights,), (directions,))
    expected = sum((slopes[name] * one).sum() for name, one in directions.items())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_gradients_by_torch_func_can_be_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    built, batch = network(depth=1), images(5)
    slope = torch.func.grad(lambda given: called(built, {}, given))(batch)
    found = torch.autograd.grad(slope.square().sum(), built.head.weight)[0]
    monkeypatch.setattr(mlp, "takes_parts", lambda *refused: False)
    slope = torch.autograd.grad(called(built, {}, batch.requires_grad_()), batch, create_graph=True)[0]
    expected = torch.autograd.grad(slope.square().sum(), built.head.weight)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
