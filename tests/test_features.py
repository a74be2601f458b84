"""The features of a network are what its operators do, counted by hand; their multiply-adds are those of the other
count, for every mixing, and so are those of operators from outside."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from explore.architecture.catalog import Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.cost import trace
from explore.cost.features import Features, Work
from explore.cost.flops import count_macs
from explore.cost.memory import peak_memory
from explore.cost.trace import features, memory_and_features
from tests.small_networks import network

IMAGE = (1, 6, 4)
BATCH = 3
NUMBER = 4  # bytes


class Function(nn.Module):
    """A network that is one function of its images."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


@torch.library.custom_op("outside::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return 2 * x


doubled.register_fake(torch.empty_like)


def work(function: Callable[[Tensor], Tensor], image: tuple[int, int, int] = IMAGE) -> dict[str, Work]:
    return dict(features(Function(function), image, BATCH).work)


def pair(token: str, channel: str) -> Network:
    model = Model(patch_size=2, depth=1, width=60)
    with torch.device("meta"):
        return Network(
            architecture(model, Mixing(name=token), Mixing(name=channel), image_size=6, channels=1, classes=5)
        )


EVERY_MIXING = pytest.mark.parametrize(
    ("token", "channel"),
    [
        *((token, "mlp") for token in TOKEN_MIXINGS),
        *(("mlp", channel) for channel in CHANNEL_MIXINGS),
        # Complex numbers and convolutions in one network.
        ("global_filter", "inverted"),
    ],
)


@EVERY_MIXING
def test_multiply_adds_are_those_of_the_other_count(token: str, channel: str) -> None:
    form = pair(token, channel).deployed()
    found = features(form, form.image_shape, BATCH).work
    # A Fourier transform has a fraction of a multiply-add, which the count of one image rounds.
    expected = BATCH * count_macs(form, form.image_shape).total
    assert sum(one.macs for one in found.values()) == pytest.approx(expected, abs=BATCH)
    assert sum(one.filled_macs for one in found.values()) > sum(one.macs for one in found.values())


@EVERY_MIXING
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_pass_of_zeros_tells_the_same_as_one_without_numbers(token: str, channel: str, precision: str) -> None:
    form = pair(token, channel).deployed()
    computed, fake = (
        trace._memory_and_features(form, form.image_shape, 64, precision, computed=computed)
        for computed in (True, False)
    )
    assert computed == fake


def test_what_no_zeros_can_go_through_is_followed_without_numbers() -> None:
    def inverse(x: Tensor) -> Tensor:
        return torch.linalg.inv(x[..., :4, :4])

    with pytest.raises(RuntimeError, match="singular"):
        peak_memory(Function(inverse), IMAGE, BATCH, computed=True)
    found = memory_and_features(Function(inverse), IMAGE, BATCH, macs=0)[1].work
    assert (found["view"].calls, found["other"].calls) == (2, 1)


def test_a_linear_layer_by_hand() -> None:
    layer = nn.Linear(4, 20)
    moved = NUMBER * (BATCH * 6 * 4 + 20 * 4 + 20 + BATCH * 6 * 20)
    macs = BATCH * 6 * 4 * 20
    expected = Work(calls=1, macs=macs, filled_macs=macs * 32 // 20, bytes=moved, rows=BATCH * 6)
    assert features(layer, IMAGE, BATCH).work == {"product": expected}


def test_views_are_calls_only_and_copies_and_sums_in_place_are_not_views() -> None:
    one = NUMBER * BATCH * 24
    assert work(lambda x: x.flatten(1).unflatten(1, (4, 6)).transpose(1, 2)) == {"view": Work(calls=3)}
    copied = work(lambda x: x.transpose(2, 3).flatten(2))
    assert (copied["other"].calls, copied["other"].bytes) == (1, 2 * one)
    assert work(lambda x: x.add_(1))["arithmetic"] == Work(calls=1, bytes=2 * one, rows=BATCH * 6)


def test_kinds_are_told_apart() -> None:
    weight = torch.empty(2, 1, 3, 3, device="meta")
    assert work(lambda x: torch.conv2d(x, weight))["convolution"].macs == BATCH * 2 * 4 * 2 * 9
    assert work(lambda x: torch.conv_transpose2d(x, weight[:1]))["convolution"].macs == BATCH * 24 * 9
    assert work(lambda x: torch.einsum("bcij,bckj->bcik", x, x))["product"].macs == BATCH * 6 * 6 * 4
    assert work(lambda x: x[:, 0] @ x[:, 0].mT)["product"].macs == BATCH * 6 * 6 * 4
    assert set(work(lambda x: x.softmax(-1))) == {"softmax"}
    assert set(work(torch.sin)) == {"arithmetic"}
    assert set(work(lambda x: x.mean(-1))) == {"reduction"}
    assert set(work(torch.fft.fft2)) >= {"fourier"}


def test_an_operator_from_outside_counts_by_its_bytes() -> None:
    assert work(lambda x: doubled(x)) == {"other": Work(calls=1, bytes=2 * NUMBER * BATCH * 24, rows=BATCH * 6)}


def test_large_tensors_are_far() -> None:
    found = work(lambda x: x.relu(), (1, 1000, 1000))["activation"]
    assert found.far_bytes == found.bytes == 2 * NUMBER * BATCH * 10**6
    assert work(lambda x: x.relu())["activation"].far_bytes == 0


def test_a_network_with_weights_is_as_before() -> None:
    real = network().train()
    state = {name: tensor.clone() for name, tensor in real.state_dict().items()}
    with torch.device("meta"):
        same = features(network(), real.image_shape, BATCH)
    assert features(real, real.image_shape, BATCH) == same
    assert real.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in real.state_dict().items())


def test_they_come_back_from_a_file() -> None:
    found = features(pair("attention", "mlp"), (1, 6, 6), BATCH)
    assert Features.from_dict(found.to_dict()) == found
