"""Every token mixing works with every channel mixing: the contract of a network, over all pairs of the catalogs."""

import itertools

import pytest
import torch
from torch import Tensor

from explore.architecture.catalog import Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

PATCH, SIDE, WIDTH, CLASSES = 2, 3, 60, 5


def network(token: str, channel: str) -> Network:
    torch.manual_seed(0)
    model = Model(patch_size=PATCH, depth=1, width=WIDTH, positions="none")
    sizes = {"image_size": PATCH * SIDE, "channels": 1, "classes": CLASSES}
    return Network(architecture(model, Mixing(name=token), Mixing(name=channel), **sizes)).eval()


def images() -> Tensor:
    return torch.randn(3, 1, PATCH * SIDE, PATCH * SIDE, generator=torch.Generator().manual_seed(1))


def shuffled(image: Tensor) -> Tensor:
    """The same patches in another order."""
    patches = image.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(2, 3)
    order = torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(2))
    moved = patches[:, :, order].unflatten(2, (SIDE, SIDE))
    return moved.permute(0, 1, 2, 4, 3, 5).reshape(image.shape)


@pytest.mark.parametrize(("token", "channel"), list(itertools.product(TOKEN_MIXINGS, CHANNEL_MIXINGS)))
def test_pair_keeps_the_contract(token: str, channel: str) -> None:
    pair, x = network(token, channel), images().requires_grad_()
    logits = pair(x)
    assert logits.shape == (3, CLASSES)
    assert logits.isfinite().all()
    (logits[0] * torch.randn_like(logits[0])).sum().backward()
    assert x.grad is not None
    assert x.grad[0].any()
    assert not x.grad[1:].any(), "images of a batch touch each other"
    assert [name for name, one in pair.named_parameters() if one.grad is None] == []
    torch.testing.assert_close(pair.deployed()(x), logits, atol=1e-4, rtol=1e-4)
    # Blind to the order of patches exactly where both mixings are.
    pair, x = pair.double(), images().double()
    same = torch.allclose(pair(shuffled(x)), pair(x), atol=1e-11, rtol=0)
    assert same is (TOKEN_MIXINGS[token].position_blind and CHANNEL_MIXINGS[channel].per_patch)
