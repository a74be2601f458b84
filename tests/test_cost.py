"""Multiply-adds equal torch's own counter and the closed formulas of the papers, operators nobody counts are errors,
peak memory equals what a person works out by hand, and counting leaves the network as it was."""

import json
import math
import resource
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from explore.cost.flops import count_macs
from explore.cost.measure import count_params, measure_cost
from explore.cost.memory import peak_memory
from explore.cost.options import Measuring
from explore.cost.record import Cost, Throughput

IMAGE = (3, 8, 8)
FLOAT = 4


class Function(nn.Module):
    """A network without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


class Patches(nn.Module):
    """`batch × channels × height × width` to `batch × tokens × channels·patch²`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        rows, columns = height // self.size, width // self.size
        x = images.reshape(batch, channels, rows, self.size, columns, self.size)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.rise = nn.Parameter(torch.randn(width // 2, tokens))
        self.fall = nn.Parameter(torch.randn(tokens, width // 2))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fall @ F.gelu(self.rise @ self.norm1(x))
        return x + self.mlp(self.norm2(x))


class AttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(x)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def mixer(size: int, patch: int, width: int, depth: int, classes: int = 1000) -> nn.Module:
    tokens = (size // patch) ** 2
    blocks = [MixerBlock(tokens, width) for _ in range(depth)]
    stem = nn.Linear(3 * patch**2, width)
    return nn.Sequential(Patches(patch), stem, *blocks, nn.LayerNorm(width), Mean(), nn.Linear(width, classes))


def vit(size: int, patch: int, width: int, depth: int, heads: int) -> nn.Module:
    blocks = [AttentionBlock(width, heads) for _ in range(depth)]
    return nn.Sequential(Patches(patch), nn.Linear(3 * patch**2, width), *blocks, Mean(), nn.Linear(width, 10))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.GroupNorm(2, 8),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )


def torch_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """On the meta device: on the processor torch overlooks fused attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta").eval()(torch.empty(1, *image_shape, device="meta"))
    return counter.get_total_flops() / 2


def attend(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[..., :6], x[..., :6], x)


@pytest.mark.parametrize(
    "network",
    [
        convolutional(),
        nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 3, dilation=2, bias=False)),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding="valid"), nn.ConvTranspose2d(4, 2, 3)),
        mixer(8, 4, 16, 2),
        vit(8, 2, 12, 2, heads=3),
        nn.Sequential(Patches(2), nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)),
        Function(attend),
        Function(lambda x: torch.ones(5, 8, device=x.device) @ x),
        Function(lambda x: x @ x.mT),
        Function(lambda x: torch.baddbmm(x[0], x[0], x[0])),
        Function(lambda x: torch.addmm(x[0, 0], x[0, 0], x[0, 1])),
        Function(lambda x: torch.tensordot(x, x, dims=([2, 3], [2, 3]))),
    ],
    ids=lambda network: type(network).__name__,
)
def test_agrees_with_the_counter_of_torch(network):
    macs = count_macs(network, IMAGE)
    assert macs.total == sum(macs.by_operator.values()) > 0
    assert macs.total == torch_macs(network, IMAGE)


@pytest.mark.parametrize(
    "equation",
    [
        "bcxy,ckxy->bkxy",
        "bcxy,cxyk->bk",
        "...y,cxyk->...k",
        "bcxy,bczy",
        "bcxy,cuvw->bxy",
        "b...,c...->...",
        "bcxy,cyzk",
    ],
)
def test_einsum_of_two_operands_agrees_with_the_counter_of_torch(equation):
    sizes = {"b": 1, "c": 3, "x": 8, "y": 8}
    term = equation.split("->")[0].split(",")[1]
    shape = [3, 3, 8, 8] if "..." in term and len(term) == 4 else [sizes.get(label, 5) for label in term]
    network = Function(lambda x: torch.einsum(equation, x, torch.ones(shape, device=x.device)))
    assert count_macs(network, IMAGE).total == torch_macs(network, IMAGE)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 4), width=st.integers(1, 6), inner=st.integers(1, 6), operands=st.sampled_from(["left", "both"])
)
def test_broadcast_products_count_every_matrix(rows, width, inner, operands):
    shape = (rows, inner) if operands == "left" else (5, 3, rows, inner)
    macs = count_macs(Function(lambda x: torch.ones(shape, device=x.device) @ x), (3, inner, width)).total
    assert macs == math.prod(shape[:-2] or (3,)) * rows * inner * width


@pytest.mark.parametrize(
    ("patch", "width", "depth", "giga"),
    [(32, 512, 8, 1.002), (16, 768, 12, 12.602), (14, 1280, 32, 120.99)],
    ids=["mixer_s32", "mixer_b16", "mixer_h14"],
)
def test_published_mixers_agree_with_the_closed_formula_and_cost_no_memory(patch, width, depth, giga):
    tokens = (224 // patch) ** 2
    formula = depth * tokens * width * (width + 8 * width) + 3 * patch**2 * width * tokens + 1000 * width
    with torch.device("meta"):
        network = mixer(224, patch, width, depth)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    macs = count_macs(network, (3, 224, 224)).total
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert macs == formula
    assert macs / 1e9 == pytest.approx(giga, abs=6e-4)


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        (lambda x: x @ torch.ones(8, device=x.device), 3 * 8 * 8),
        (lambda x: torch.mv(x[0, 0], x[0, 1, 0]), 8 * 8),
        (lambda x: torch.dot(x[0, 0, 0], x[0, 1, 0]), 8),
    ],
    ids=["matmul", "mv", "dot"],
)
def test_products_with_a_vector_which_torch_overlooks(product, expected):
    assert count_macs(Function(product), IMAGE).total == expected


def test_attention_agrees_with_the_closed_formula():
    tokens, width, depth = 16, 12, 3
    macs = count_macs(vit(8, 2, width, depth, heads=3), IMAGE)
    formula = depth * (12 * tokens * width**2 + 2 * tokens**2 * width) + 12 * width * tokens + 10 * width
    assert macs.total == formula
    assert macs.by_operator["scaled_dot_product_attention"] == depth * 2 * tokens**2 * width


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (lambda x: torch.fft.fft(x).real, 2.5 * 192 * 3),
        (lambda x: torch.fft.fft(torch.fft.fft(x, dim=-1), dim=1).real, 2.5 * 192 * (3 + math.log2(3))),
        (lambda x: torch.fft.fft2(x).real, 2.5 * 192 * 6),
        (lambda x: torch.fft.fftn(x, s=(16, 4)).real, 2.5 * 3 * 64 * 6),
        (lambda x: torch.fft.fftn(x).real, 2.5 * 192 * (6 + math.log2(3))),
        (lambda x: torch.fft.rfft(x, n=16).real, 1.25 * 384 * 4),
        (
            lambda x: torch.fft.irfft2(torch.fft.rfft2(x, dim=(1, 2)), dim=(1, 2), s=(3, 8)),
            2 * 1.25 * 192 * math.log2(24),
        ),
    ],
)
def test_fourier_transforms_cost_their_textbook_count(transform, expected):
    assert count_macs(Function(transform), IMAGE).total == pytest.approx(expected, abs=1)


def test_operators_nobody_counts_are_named():
    network = Function(lambda x: torch.special.bessel_j0(torch.cdist(x, x)))
    with pytest.raises(
        ValueError, match=r"every operator must be counted or free, got aten::cdist, aten::special_bess"
    ):
        count_macs(network, IMAGE)


def test_hand_written_autograd_functions_are_not_taken_for_free():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x + x

    with pytest.raises(ValueError, match=r"got prim::PythonOp\.Double; add a handle"):
        count_macs(Function(Double.apply), IMAGE)


def test_einsum_of_three_operands_is_refused():
    with pytest.raises(ValueError, match=r"at most 2 operands to be counted, got 'bcxy,bcxy,bcxy->bc'; write it as"):
        count_macs(Function(lambda x: torch.einsum("bcxy,bcxy,bcxy->bc", x, x, x)), IMAGE)


def test_an_impossible_pass_raises_its_own_error():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count_macs(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), IMAGE)


def test_elementwise_work_is_not_counted():
    network = nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.GELU(), nn.Softmax(1))
    assert count_macs(network, IMAGE).by_operator == {}


@pytest.mark.parametrize("network", [convolutional(), mixer(8, 4, 16, 2)], ids=["on the processor", "on meta"])
def test_counting_changes_nothing(network):
    network.train()
    network[1].eval()
    next(network.parameters()).grad = torch.ones_like(next(network.parameters()))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    count_macs(network, IMAGE)
    peak_memory(network, IMAGE, 4)
    peak_memory(network, IMAGE, 4, training=True)
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert [parameter.grad is None for parameter in network.parameters()].count(False) == 1
    for name, tensor in network.state_dict().items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, before[name])


def perceptron(*, inplace: bool = False) -> nn.Module:
    layers = nn.Linear(4, 8, bias=False), nn.ReLU(inplace), nn.Linear(8, 2, bias=False)
    return nn.Sequential(nn.Flatten(), *layers)


WEIGHTS, INPUT, HIDDEN, OUTPUT = 4 * 8 + 8 * 2, 2 * 4, 2 * 8, 2 * 2


@pytest.mark.parametrize(
    ("network", "elements"),
    [
        (nn.Identity(), INPUT),
        (nn.Flatten(), INPUT),
        (perceptron(), WEIGHTS + INPUT + HIDDEN + HIDDEN),
        (perceptron(inplace=True), WEIGHTS + INPUT + HIDDEN + OUTPUT),
        # Scale, shift, mean, variance, and a counter of eight bytes.
        (nn.BatchNorm2d(1), 4 + 2 + INPUT + INPUT),
        (Function(lambda x: x.exp().exp().exp()), INPUT + INPUT + INPUT),
    ],
    ids=["identity", "view", "perceptron", "in place", "buffers", "freed on the way"],
)
def test_peak_memory_by_hand(network, elements):
    assert peak_memory(network, (1, 1, 4), 2) == FLOAT * elements
    assert peak_memory(network.to("meta"), (1, 1, 4), 2) == FLOAT * elements


def test_peak_memory_of_mixed_precision_holds_the_copies_of_the_weights():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 8, bias=False))
    full = FLOAT * (32 + INPUT)
    assert peak_memory(network, (1, 1, 4), 2, precision="bf16-mixed") == full + 2 * (32 + INPUT + HIDDEN)


def test_peak_memory_of_training_keeps_activations_and_gradients():
    deep = nn.Sequential(nn.Flatten(), *[layer for _ in range(8) for layer in (nn.Linear(64, 64), nn.Tanh())])
    weights, activation = FLOAT * 8 * 64 * 65, FLOAT * 32 * 64
    assert peak_memory(deep, (1, 8, 8), 32) == weights + 3 * activation
    trained = peak_memory(deep, (1, 8, 8), 32, training=True)
    assert weights + 9 * activation < trained < 2 * weights + 12 * activation


def test_fused_attention_keeps_no_matrix_of_tokens():
    few, many = (peak_memory(Function(attend), (1, tokens, 8), 4) for tokens in (128, 1024))
    assert many < 9 * few


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_agrees_with_a_gpu():
    options = Measuring(batch_size=64, device="cuda", precision="32-true", warmup=0, max_seconds=0.1)
    cost = measure_cost(mixer(64, 8, 256, 4), (3, 64, 64), options, timed=True)
    assert cost.throughput is not None
    assert cost.throughput.memory_bytes == pytest.approx(cost.memory_bytes, rel=0.25)


def test_cost_is_known_on_the_meta_device_and_survives_json():
    with torch.device("meta"):
        network = mixer(8, 4, 16, 2, classes=10)
    options = Measuring(batch_size=2, precision="32-true", device="cpu")
    cost = measure_cost(network, IMAGE, options, timed=False)
    assert (
        cost.params == count_params(network) == 2 * (4 * 16 + 2 * 4 * 8 + 8 * 16**2 + 5 * 16) + 49 * 16 + 2 * 16 + 170
    )
    assert (cost.macs, cost.memory_bytes) == (count_macs(network, IMAGE).total, peak_memory(network, IMAGE, 2))
    assert cost.throughput is None
    assert Cost.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost


positive = st.floats(1e-3, 1e9)


@settings(deadline=None, max_examples=40)
@given(
    speed=st.builds(
        Throughput,
        images_per_second=positive,
        low=positive,
        high=positive,
        latency_ms=positive,
        batch_size=st.integers(1),
        precision=st.sampled_from(["32-true", "bf16-mixed"]),
        device=st.text(),
        threads=st.integers(1),
        blocks=st.integers(1),
        torch_version=st.text(),
        memory_bytes=st.none() | st.integers(0),
        settled=st.none() | st.booleans(),
        latency_p90_ms=st.none() | positive,
        latency_p99_ms=st.none() | positive,
        driver=st.none() | st.text(),
        reference_ms=st.none() | positive,
        strangers=st.lists(st.text()).map(tuple),
    )
)
def test_timed_cost_survives_json(speed):
    cost = Cost(params=1, macs=2, memory_bytes=3, throughput=speed)
    assert Cost.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost
