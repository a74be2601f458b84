"""What the tests with a GPU have in common: small networks, batches of digits on the device, a short recipe."""

from typing import Any

import pytest
import torch
from digit_batches import digit_batches
from torch import nn

from explore.architecture.catalog import Mixing
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.data.loader import Batches
from explore.data.options import Augmentation
from explore.training.options import Training

PAIRS = list(dict.fromkeys([*((name, "mlp") for name in TOKEN_MIXINGS), *(("mlp", name) for name in CHANNEL_MIXINGS)]))
GPU = torch.device("cuda", 0)
SHORT = Training(epochs=8, batch_size=64, lr=1e-2, precision="32-true", accelerator="gpu", ema=0.9)
# Mixings whose host waits for the GPU, unless it has a product for all experts at once.
WAITING = {("mlp", "moe", "float32")}
if not hasattr(nn.functional, "grouped_mm") or (
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0)
):
    WAITING |= {("mlp", "moe", "bfloat16")}
every_mixing = pytest.mark.parametrize(("token", "channel"), PAIRS)


def network(token: str = "mlp", channel: str = "mlp", seed: int = 0, **options: Any) -> Network:
    torch.manual_seed(seed)
    model = Model.of({"patch_size": 2, "depth": 2, "width": 32} | options)
    return Network(architecture(model, Mixing(name=token), Mixing(name=channel), image_size=8, channels=1, classes=10))


def batches(*, training: bool, seed: int = 0, device: str = "cuda") -> Batches:
    split, augmentation = ("train", Augmentation(shift=1)) if training else ("validation", None)
    options = {"augmentation": augmentation, "seed": seed, "shuffle": training, "drop_last": training}
    return digit_batches(SHORT.batch_size, split=split, device=device, **options)
