"""Every form of an operation computes the same, and each is taken where it belongs.

An MLP in parts gives the gradients of automatic differentiation and needs less memory; a network gives the same logits
however many images it takes at once; products of oneDNN, with GELU inside or not, are taken only where they are faster.
What is compiled, exported or counted sees none of this.

python -m pytest tests/test_forms.py
"""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import images, network
from torch import Tensor, nn

from explore.architecture import mlp, mlp_gradient, products
from explore.architecture import network as network_module
from explore.architecture.catalog import Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.mlp import channel_mlp, token_mlp
from explore.architecture.network import Network
from explore.architecture.parts import images_at_once
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.cost.flops import count_macs
from explore.cost.memory import peak_memory

BATCH, TOKENS, CHANNELS, HIDDEN = 5, 6, 4, 7
Form = Callable[[nn.Linear, nn.Module, nn.Linear, Tensor], Tensor]
every_axis = pytest.mark.parametrize(("form", "size"), [(channel_mlp, CHANNELS), (token_mlp, TOKENS)])
every_mixing = pytest.mark.parametrize(
    ("token", "channel"), [(name, "mlp") for name in TOKEN_MIXINGS] + [("mlp", name) for name in CHANNEL_MIXINGS]
)


def layers(size: int, dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, nn.Linear, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(BATCH, TOKENS, CHANNELS, dtype=dtype, requires_grad=True)
    return nn.Linear(size, HIDDEN, dtype=dtype), nn.Linear(HIDDEN, size, dtype=dtype), x


def gradients(form: Form, activation: nn.Module, size: int, *, transposed: bool = False) -> list[Tensor]:
    """Of everything that goes in, behind the result."""
    expand, contract, x = layers(size)
    given = x.transpose(1, 2).contiguous().transpose(1, 2) if transposed else x
    result = form(expand, activation, contract, given)
    probe = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
    parameters = [*expand.parameters(), *contract.parameters()]
    return [result, *torch.autograd.grad((result * probe).sum(), [x, *parameters])]


def untouched(*refused: Any) -> bool:
    return False


# A training step of an MLP


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small hidden values are treated as large ones."""
    monkeypatch.setattr(mlp_gradient, "fit_into_cache", lambda *size: False)


@pytest.mark.usefixtures("large")
@every_axis
@pytest.mark.parametrize("activation", [nn.GELU(), nn.GELU("tanh"), nn.ReLU(), nn.SiLU()], ids=repr)
@pytest.mark.parametrize("at_once", [1, 2, BATCH, 100])
def test_parts_give_the_gradients_of_automatic_differentiation(
    form: Form, size: int, activation: nn.Module, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(mlp_gradient, "images_at_once", lambda *sizes: taken.append(sizes) or at_once)
    in_parts = gradients(form, activation, size)
    assert taken, "the form was not the one that is tested here"
    monkeypatch.setattr(mlp, "takes_parts", untouched)
    for one, expected in zip(in_parts, gradients(form, activation, size), strict=True):
        torch.testing.assert_close(one, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.usefixtures("large")
@every_axis
def test_parts_take_an_input_whose_axes_were_exchanged(form: Form, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts = gradients(form, nn.GELU(), size, transposed=True)
    monkeypatch.setattr(mlp, "takes_parts", untouched)
    for one, expected in zip(in_parts, gradients(form, nn.GELU(), size, transposed=True), strict=True):
        torch.testing.assert_close(one, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.usefixtures("large")
@every_axis
def test_what_needs_no_gradient_gets_none(form: Form, size: int) -> None:
    expand, contract, x = layers(size)
    expand.requires_grad_(False)
    form(expand, nn.GELU(), contract, x).sum().backward()
    assert expand.weight.grad is None
    assert contract.weight.grad is not None
    assert x.grad is not None


@pytest.mark.usefixtures("large")
def test_an_activation_function_without_a_form_of_its_own_is_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "mlp_in_parts", pytest.fail)
    assert all(one.isfinite().all() for one in gradients(channel_mlp, nn.Softplus(), CHANNELS))


@pytest.mark.usefixtures("large")
def test_an_empty_batch_stays_empty() -> None:
    expand, contract, x = layers(CHANNELS)
    result = channel_mlp(expand, nn.GELU(), contract, x[:0])
    result.sum().backward()
    assert result.shape == (0, TOKENS, CHANNELS)
    assert not expand.weight.grad.any()


def test_small_hidden_values_are_left_to_automatic_differentiation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "mlp_in_parts", pytest.fail)
    assert all(one.isfinite().all() for one in gradients(channel_mlp, nn.GELU(), CHANNELS))


def test_parts_need_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = network(width=64, depth=4)
    in_parts = peak_memory(mixer, (3, 16, 16), 256, training=True)
    monkeypatch.setattr(mlp, "takes_parts", untouched)
    assert in_parts < 0.8 * peak_memory(mixer, (3, 16, 16), 256, training=True)


# Images of a batch


@every_mixing
def test_logits_do_not_depend_on_how_many_images_are_taken_at_once(
    token: str, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Model(patch_size=4, depth=1, width=32, norm="batch")
    mixings = Mixing(name=token), Mixing(name=channel)
    built = Network(architecture(model, *mixings, image_size=16, channels=3, classes=10)).eval()
    expected = built(images(5))
    sizes = []
    monkeypatch.setattr(network_module, "images_at_once", lambda *given: sizes.append(given) or 2)
    with torch.inference_mode():
        torch.testing.assert_close(built(images(5)), expected, atol=1e-5, rtol=1e-4)
    assert sizes == [(5, 4 * 16 * 32, 16, 4)]


def test_training_takes_all_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "images_at_once", pytest.fail)
    mixer = network(norm="batch")
    mixer(images())
    with torch.no_grad():
        mixer.train()(images())


def test_a_pyramid_is_as_large_as_its_largest_stage() -> None:
    assert network(stages=[{"width": 8}, {"width": 64}]).largest == (4 * 4 * 64, 4)
    assert network(stages=[{"width": 8}, {"width": 16}]).largest == (4 * 16 * 8, 16)


@given(
    batch=st.integers(1, 2000),
    hidden=st.integers(1, 10**8),
    tokens=st.integers(1, 10**4),
    itemsize=st.sampled_from([2, 4, 8]),
)
def test_images_at_once_stay_in_cache_or_fill_a_product(batch: int, hidden: int, tokens: int, itemsize: int) -> None:
    size = images_at_once(batch, hidden, tokens, itemsize)
    assert 1 <= size <= batch
    assert size * hidden * itemsize <= 2**21 or (size - 1) * tokens < 1024
    parts = -(-batch // size)
    assert size * parts < batch + parts, "the last part is as large as the others, but for one image each"


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_network_takes_any_number_of_images(dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "images_at_once", pytest.fail)
    mixer = network()
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    with torch.no_grad():
        program = torch.export.export(mixer, (images(3),), dynamic_shapes=shapes).module()
        batch = images(5 if dynamic else 3)
        torch.testing.assert_close(program(batch), mixer_at_once(mixer, batch))


def mixer_at_once(mixer: Network, batch: Tensor) -> Tensor:
    with torch.enable_grad():
        return mixer(batch).detach()


# Products of oneDNN, with GELU inside and without


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_inside_the_product_computes_the_same(approximate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expand, contract, x = layers(CHANNELS, torch.float32)
    asked = []
    monkeypatch.setattr(products, "_LARGE_WITH_GELU", 1)
    monkeypatch.setattr(products, "fused_is_faster", lambda *size: asked.append(size) or True)
    activation = nn.GELU(approximate)
    with torch.inference_mode():
        result = channel_mlp(expand, activation, contract, x)
    assert asked == [(CHANNELS, HIDDEN, approximate, 1)]
    torch.testing.assert_close(result, contract(activation(expand(x))), atol=1e-5, rtol=1e-4)


def test_gelu_inside_the_product_is_taken_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = products.fused_is_faster.__wrapped__
    monkeypatch.setattr(products, "fused", lambda *given: None)
    assert choose(64, 256, "none", 1)
    monkeypatch.setattr(products, "fused", lambda *given: time.sleep(0.02))
    assert not choose(64, 256, "none", 1)


def test_a_small_product_has_no_time_for_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "fused_is_faster", pytest.fail)
    expand, contract, x = layers(CHANNELS, torch.float32)
    with torch.inference_mode():
        assert torch.equal(channel_mlp(expand, nn.GELU(), contract, x), contract(nn.GELU()(expand(x))))


def onednn_products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The weights of those that are asked of oneDNN from now on, as if they were large and the processor new."""
    monkeypatch.setattr(products, "_LARGE", 1)
    monkeypatch.setattr(products, "_has_avx512", lambda: True)
    asked, by_onednn = [], torch.ops.mkldnn._linear_pointwise

    def noted(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
        asked.append(tuple(weight.shape))
        return by_onednn(x, weight, *others)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", noted)
    return asked


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("at_once", [2, BATCH])
def test_a_training_step_with_products_of_onednn_has_the_same_gradients(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expand, contract, x = layers(CHANNELS, torch.float32)
    inputs = [x, *expand.parameters(), *contract.parameters()]
    expected = contract(nn.GELU()(expand(x)))
    monkeypatch.setattr(mlp_gradient, "images_at_once", lambda *sizes: at_once)
    asked = onednn_products(monkeypatch)
    result = channel_mlp(expand, nn.GELU(), contract, x)
    torch.testing.assert_close(result, expected)
    for one, reference in zip(
        *(torch.autograd.grad(each.square().sum(), inputs) for each in (result, expected)), strict=True
    ):
        torch.testing.assert_close(one, reference)
    wide, narrow, parts = (HIDDEN, CHANNELS), (CHANNELS, HIDDEN), -(-BATCH // at_once)
    assert asked == [wide, narrow] * parts + [wide, narrow] * parts


def test_a_large_product_in_inference_is_one_of_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    expand, contract, x = layers(CHANNELS, torch.float32)
    asked = onednn_products(monkeypatch)
    with torch.inference_mode():
        result = channel_mlp(expand, nn.ReLU(), contract, x)
    assert asked == [(HIDDEN, CHANNELS), (CHANNELS, HIDDEN)]
    torch.testing.assert_close(result, contract(expand(x).relu()))


def test_without_memory_for_onednn_there_is_the_other_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> Tensor:
        raise RuntimeError("could not create a primitive")

    asked = onednn_products(monkeypatch)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *given: asked.append(()) or refuse())
    expand, contract, x = layers(CHANNELS, torch.float32)
    with torch.inference_mode():
        assert torch.equal(channel_mlp(expand, nn.ReLU(), contract, x), contract(expand(x).relu()))
    assert len(asked) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_onednn_is_asked_for_float32_only(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = onednn_products(monkeypatch)
    expand, contract, x = layers(CHANNELS, dtype)
    with torch.inference_mode():
        channel_mlp(expand, nn.ReLU(), contract, x)
    assert not asked


def test_an_old_processor_keeps_the_library_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = onednn_products(monkeypatch)
    monkeypatch.setattr(products, "_has_avx512", lambda: False)
    expand, contract, x = layers(CHANNELS, torch.float32)
    with torch.inference_mode():
        channel_mlp(expand, nn.ReLU(), contract, x)
    assert not asked


def test_autocast_casts_a_weight_once_for_all_images() -> None:
    expand, contract, x = layers(TOKENS, torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), torch.profiler.profile(record_shapes=True) as profile:
        token_mlp(expand, nn.GELU(), contract, x)
    cast = [event.input_shapes[0] for event in profile.events() if event.name == "aten::_to_copy"]
    assert [HIDDEN, TOKENS] in cast
    assert [BATCH, HIDDEN, TOKENS] not in cast


def test_what_is_counted_or_traced_has_no_operator_of_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_LARGE_WITH_GELU", 1)
    mixer = network()
    expected = count_macs(mixer, (3, 16, 16))
    monkeypatch.setattr(products, "fused_is_faster", pytest.fail)
    assert count_macs(mixer, (3, 16, 16)) == expected
    assert peak_memory(mixer, (3, 16, 16), 2) > 0
    with torch.no_grad():
        torch.export.export(mixer, (images(3),))


# bfloat16


@every_axis
def test_bfloat16_without_instructions_is_computed_in_float32(
    form: Form, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    expand, contract, x = layers(size, torch.float32)
    with torch.no_grad():
        expected = form(expand, nn.GELU(), contract, x)
        with torch.autocast("cpu", torch.bfloat16):
            result = form(expand, nn.GELU(), contract, x)
    assert torch.equal(result, expected.bfloat16())


@pytest.mark.usefixtures("large")
@every_axis
@pytest.mark.parametrize("supported", [False, True])
def test_a_training_step_in_bfloat16_is_near_that_in_float32(
    form: Form, size: int, supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    monkeypatch.setattr(mlp_gradient, "images_at_once", lambda *sizes: 2)
    expand, contract, x = layers(size, torch.float32)
    inputs = [x, *expand.parameters(), *contract.parameters()]
    expected = form(expand, nn.GELU(), contract, x)
    with torch.autocast("cpu", torch.bfloat16):
        result = form(expand, nn.GELU(), contract, x)
    assert "MlpInParts" in str(result.grad_fn)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, atol=0.02, rtol=0.02)
    probe = torch.linspace(-1, 1, result.numel()).view_as(result)
    both = (torch.autograd.grad((one.float() * probe).sum(), inputs) for one in (result, expected))
    for one, reference in zip(*both, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, reference, atol=0.1, rtol=0.05)


@pytest.mark.usefixtures("large")
def test_another_dtype_of_autocast_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "mlp_in_parts", pytest.fail)
    expand, contract, x = layers(CHANNELS, torch.float32)
    with torch.autocast("cpu", torch.float16):
        assert channel_mlp(expand, nn.GELU(), contract, x).dtype == torch.float16
