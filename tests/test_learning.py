"""Every mixing learns: a small network with it tells handwritten digits apart after some seconds of training."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from explore.architecture.catalog import Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

STEPS, BATCH, CLASSES = 120, 128, 10
BAR = 5 / CLASSES  # five times as often right as by guessing
PAIRS = [(name, "mlp") for name in TOKEN_MIXINGS] + [("mlp", name) for name in CHANNEL_MIXINGS]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return torch.from_numpy(images[order] / 8 - 1).float().reshape(-1, 1, 8, 8), torch.from_numpy(labels[order])


@pytest.mark.slow
@pytest.mark.parametrize(("token", "channel"), PAIRS)
def test_digits_are_told_apart(token: str, channel: str, digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    images, labels = digits
    model = Model(patch_size=2, depth=2, width=48)
    sizes = {"image_size": 8, "channels": 1, "classes": CLASSES}
    network = Network(architecture(model, Mixing(name=token), Mixing(name=channel), **sizes)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    train = len(labels) - 297
    for _ in range(STEPS):
        chosen = torch.randint(train, (BATCH,))
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        right = (network.eval().deployed()(images[train:]).argmax(1) == labels[train:]).float().mean().item()
    print(f"{token} + {channel}: {100 * right:.1f} %")
    assert right > BAR
