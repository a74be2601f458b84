"""The sides of `benchmarks.networks`: three Mixers as this package, timm and lucidrains have them, and a large product.

Each side is made in a process of its own, with the memory management that its users have: glibc as it comes, and, of
this package, freed memory kept, as every process of it that trains or measures does.
"""

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.cost.allocator import keep_freed_memory
from explore.cost.device import autocast, resolve_precision
from explore.launching import at_once
from explore.training.captured import UNCAPTURED, Captured
from explore.training.handing import Batch
from explore.training.update import launch_updates

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
TRAINING_BARS = {"float32": 1.2, "bfloat16": 1.05}
# Rows and columns of the matrices of the large product.
PEAK_SIDE = {"cpu": 1024, "cuda": 8192}
TO_OURS = {  # from timm's names of parameters
    "stem.proj": "stem.projection",
    "blocks": "stages.0",
    "norm1": "token.norm",
    "norm2": "channel.norm",
    "mlp_tokens": "token.mixing",
    "mlp_channels": "channel.mixing",
    "fc1": "expand",
    "fc2": "contract",
}
KEPT = ", memory kept"
_SEED = 0  # of the weights, which are the same on all sides, and of the images
Pass = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """One Mixer with the images of a pass (`batch`) and of a training step, and the bars of inference by precision."""

    name: str
    image_size: int
    channels: int
    patch_size: int
    depth: int
    width: int
    classes: int
    batch: int
    training_batch: int
    bars: dict[str, float]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.image_size, self.image_size

    def bar(self, step: str, precision: str) -> float:
        """How many times as fast as timm a step is to be."""
        return self.bars[precision] if step == "inference" else TRAINING_BARS[precision]

    def images(self, step: str, precision: str, device: torch.device) -> int:
        """How many images a step takes."""
        if device.type == "cuda":  # all sides of a training step keep what they need at the same time
            return 128 if self.image_size == S16.image_size and step != "inference" else 256
        batch = self.batch if step == "inference" else self.training_batch
        return max(1, batch // 8) if precision == "bfloat16" and not multiplies_bfloat16(device) else batch


S16 = Mixer(
    name="mixer_s16", image_size=224, channels=3, patch_size=16, depth=8, width=512, classes=1000, batch=8,
    training_batch=4, bars={"float32": 1.3, "bfloat16": 1.0},
)  # fmt: skip
MEDIUM = Mixer(
    name="mixer_32px", image_size=32, channels=3, patch_size=4, depth=8, width=256, classes=10, batch=256,
    training_batch=32, bars={"float32": 1.6, "bfloat16": 1.25},
)  # fmt: skip
SMALL = Mixer(
    name="mixer_28px", image_size=28, channels=1, patch_size=4, depth=4, width=64, classes=10, batch=256,
    training_batch=256, bars={"float32": 1.9, "bfloat16": 1.3},
)  # fmt: skip
MIXERS = (S16, MEDIUM, SMALL)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16."""
    return resolve_precision("auto", device) == "bf16-mixed"


def ours(mixer: Mixer) -> Network:
    """The network of this package."""
    model = Model(patch_size=mixer.patch_size, depth=mixer.depth, width=mixer.width)
    shape = {"image_size": mixer.image_size, "channels": mixer.channels, "classes": mixer.classes}
    return Network(architecture(model, Mixing.of("mlp"), Mixing.of("mlp"), **shape))


def of_timm(mixer: Mixer, network: Network) -> nn.Module:
    """timm's network with the weights of ours; raises AssertionError where it computes something else."""
    theirs: nn.Module = importlib.import_module("timm.models.mlp_mixer").MlpMixer(
        num_classes=mixer.classes,
        img_size=mixer.image_size,
        patch_size=mixer.patch_size,
        in_chans=mixer.channels,
        num_blocks=mixer.depth,
        embed_dim=mixer.width,
    )
    own = network.state_dict()
    weights = {}
    for name, tensor in theirs.state_dict().items():
        key = name
        for old, new in TO_OURS.items():
            key = key.replace(old, new)
        weights[name] = own.pop(key).reshape(tensor.shape)
    assert not own, f"timm's network lacks {sorted(own)}"
    theirs.load_state_dict(weights)
    images = torch.rand(2, *mixer.image_shape)
    with torch.inference_mode():
        torch.testing.assert_close(theirs.eval()(images), network.eval()(images), atol=1e-4, rtol=1e-3)
    return theirs


def of_lucidrains(mixer: Mixer, parameters: int) -> nn.Module:
    """lucidrains' network; raises AssertionError where it has another number of parameters."""
    network: nn.Module = importlib.import_module("mlp_mixer_pytorch").MLPMixer(
        image_size=mixer.image_size,
        channels=mixer.channels,
        patch_size=mixer.patch_size,
        dim=mixer.width,
        depth=mixer.depth,
        num_classes=mixer.classes,
        expansion_factor=0.5,  # the tokens' comes first, whatever the names say
        expansion_factor_token=4,
    )
    assert sum(one.numel() for one in network.parameters()) == parameters
    return network


def inference(network: nn.Module, images: Tensor, precision: str) -> Pass:
    """A pass without gradients."""
    network.eval()

    def one() -> None:
        with torch.inference_mode(), autocast(images.device, PRECISIONS[precision]):
            network(images)

    return one


def training_step(network: nn.Module, images: Tensor, precision: str, *, fused: bool | None = None) -> Pass:
    """Forward, backward and AdamW, whose form is torch's own choice unless `fused`."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=fused)
    labels = torch.randint(10, images.shape[:1], device=images.device)

    def one() -> None:
        with autocast(images.device, PRECISIONS[precision]):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return one


def captured_step(network: nn.Module, images: Tensor, precision: str) -> Pass:
    """Forward, backward and fused AdamW, as a trial takes them on a GPU: launched at once."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    labels = torch.randint(10, images.shape[:1], device=images.device)

    def work(batch: Batch) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, precision == "bfloat16", cache_enabled=False):
            logits = network(batch[0])
        loss = F.cross_entropy(logits.float(), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    gradient = Captured(work, network)
    launch_updates(optimizer, lambda: gradient.captured)

    def one() -> None:
        gradient((images, labels))
        optimizer.step()

    for _ in range(UNCAPTURED + 2):
        one()
    if not gradient.captured:
        print(f"not captured: {gradient.called_because}", file=sys.stderr)
    return one


def large_product(precision: str, device: torch.device) -> Pass:
    """The fastest form of a large matrix product."""
    dtype = torch.bfloat16 if precision == "bfloat16" and multiplies_bfloat16(device) else torch.float32
    side = PEAK_SIDE[device.type]
    x, y = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    forms: list[Pass] = [lambda: torch.mm(x, y), lambda: F.linear(x, y)]
    if device.type == "cpu":
        forms.append(lambda: torch.ops.mkldnn._linear_pointwise(x, y, None, "none", [], "none"))
    with torch.inference_mode():
        return min(forms, key=lambda form: min(turn(form, device, 3) for _ in range(3)))


def turn(one: Pass, device: torch.device, repeats: int) -> float:
    """Seconds of a pass, the mean of so many."""
    began = time.perf_counter()
    for _ in range(repeats):
        one()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / repeats


def sides(step: str, precision: str, device: str) -> list[str]:
    """The names of the sides of one comparison."""
    found = ["timm"]
    if device == "cuda":
        found += ["timm compiled", "ours, captured", "timm compiled, captured", "ours compiled"]
    else:
        found += ["timm" + KEPT, *(["lucidrains"] if precision == "float32" else [])]
    if step != "inference" and precision == "float32":
        found.append("timm with fused AdamW")
    return [*found, "ours", "peak"]


def prepared(side: str, mixer: Mixer, step: str, precision: str, device: str, threads: int) -> Callable[[int], float]:
    """What tells the seconds of a pass of a side, the mean of so many, in a process that has nothing else to do."""
    torch.set_num_threads(threads)
    torch.manual_seed(_SEED)
    if side.startswith("ours") or side == "peak" or KEPT in side:
        keep_freed_memory()
    where = torch.device(device)
    one = large_product(precision, where) if side == "peak" else _pass(side, mixer, step, precision, where)
    turn(one, where, 2)
    return partial(turn, one, where)


def allocating(side: str, mixer: Mixer, precision: str, device: str) -> Callable[[int], int]:
    """What tells the most bytes that tensors take on a GPU during training steps of a side, so many of them."""
    where = torch.device(device)
    one = _pass(side, mixer, "training step", precision, where)
    turn(one, where, 2)  # from then on the optimizer has its state

    def most(steps: int) -> int:
        torch.cuda.reset_peak_memory_stats(where)
        turn(one, where, steps)
        return torch.cuda.max_memory_allocated(where)

    return most


def _pass(side: str, mixer: Mixer, step: str, precision: str, device: torch.device) -> Pass:
    network = _network(side, mixer, deployed=step == "inference").to(device)
    images = torch.rand(mixer.images(step, precision, device), *mixer.image_shape).to(device)
    called: Any = torch.compile(network) if "compiled" in side else network
    # Ours is compiled as a trial has it, where its kernels are launched at once.
    captured = "captured" in side or side == "ours compiled"
    if step != "inference":
        fused = True if side.startswith("ours") or "fused" in side else None
        take = captured_step if captured else partial(training_step, fused=fused)
        return take(called, images, precision)
    one = inference(called, images, precision)
    return at_once(one, device) if captured else one


def _network(side: str, mixer: Mixer, *, deployed: bool) -> nn.Module:
    own = ours(mixer)
    if side == "lucidrains":
        return of_lucidrains(mixer, sum(one.numel() for one in own.parameters()))
    if side.startswith("timm"):
        return of_timm(mixer, own)
    return own.deployed() if deployed else own
