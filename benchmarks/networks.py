"""Three Mixers beside the public implementations of them: inference, training step, share of the peak, memory.

    python -m benchmarks.networks [only=mixer_s16,mixer_32px] [rounds=3] [threads=1] [device=cpu] [format=json]
        [precision=float32]

Needs `pip install timm mlp-mixer-pytorch`; nothing of them is part of this package. timm's network gets the weights
of ours, and the logits of both are compared first. All sides of a comparison are run in turn (A B A B ...), and each
comparison has a process of its own, as a network has at work: memory that a larger one left to the allocator would help
the next. A ratio is that of the seconds in one turn, theirs to ours, so that above 1 this package is faster; the row
has the median of the turns and its quartiles. The share of the peak is how fast the multiply-adds of a network are, as
a fraction of those of the fastest large matrix product, which is run in turn with it.

A training step is forward, backward and AdamW: as its users get it by default at timm and lucidrains, and fused here.
`timm with fused AdamW` tells the gain of the optimizer from that of the network. Bars are held against the default.
Without instructions for bfloat16, timm takes ten times as long in it as in float32: there the comparison in bfloat16
has an eighth of the images, and the peak beside it is that of float32.

With `device=cuda` both sides are compiled, too. Ours is then as a trial has it: its kernels are launched at once, as a
CUDA graph, and so is the optimizer's step. `captured` says that of any side, so that `timm compiled, captured` tells
the gain of the network from that of launching.
"""

import importlib
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.cost.device import autocast, device_name, resolve_precision
from explore.cost.flops import count_macs
from explore.cost.memory import peak_memory
from explore.launching import at_once
from explore.training.captured import UNCAPTURED, Captured
from explore.training.handing import Batch
from explore.training.update import launch_updates

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
TRAINING_BARS = {"float32": 1.2, "bfloat16": 1.05}
COMPILED_BAR = 1.1  # on a GPU, against timm compiled
MEMORY_BAR = 1.0  # at most
PEAK_BAR = 0.75  # of Mixer-S/16 in float32
TURN_SECONDS = {"cpu": 0.3, "cuda": 0.1}  # at least one pass
# Rows and columns of the matrices of the large product. On a processor its result is smaller than what networks make,
# so that it does not change what the allocator keeps for them.
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
PASSES = {"inference": 1, "training step": 3}  # how many times a step goes through the products
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


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure (the median of the turns) with its quartiles; `holds` says whether it reaches the bar."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    bar: float | None
    holds: bool | None

    @classmethod
    def of(
        cls, name: str, values: Sequence[float], unit: str, bar: float | None = None, *, at_most: bool = False
    ) -> "Row":
        """The row of a figure that was taken several times; its bar is what it must reach, or stay below."""
        low, value, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        holds = None if bar is None else (value <= bar if at_most else value >= bar)
        return cls(name=name, value=value, low=low, high=high, unit=unit, bar=bar, holds=holds)

    def __str__(self) -> str:
        verdict = "" if self.bar is None else f"   bar {self.bar:g}: {'holds' if self.holds else 'MISSED'}"
        return f"{self.name:72} {self.value:9.3f} ({self.low:.3f} to {self.high:.3f}) {self.unit}{verdict}"


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
        seconds = in_turn({str(index): form for index, form in enumerate(forms)}, 2, device)
    return forms[min(range(len(forms)), key=lambda index: min(seconds[str(index)]))]


def in_turn(passes: dict[str, Pass], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each pass in each round: turns of some passes of one side, then of the next, after one to warm up."""

    def turn(one: Pass, repeats: int) -> float:
        began = time.perf_counter()
        for _ in range(repeats):
            one()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / repeats

    for one in passes.values():
        turn(one, 1)
    repeats = {name: max(1, round(TURN_SECONDS[device.type] / turn(one, 1))) for name, one in passes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, one in passes.items():
            seconds[name].append(turn(one, repeats[name]))
    return seconds


def passes(mixer: Mixer, step: str, precision: str, device: torch.device) -> dict[str, Pass]:
    """The sides of one comparison by name."""
    own = ours(mixer)
    theirs, images = of_timm(mixer, own), torch.rand(mixer.images(step, precision, device), *mixer.image_shape)
    own, theirs, images = own.to(device), theirs.to(device), images.to(device)
    training = step != "inference"

    def take(network: Any, *, fused: bool | None = None) -> Pass:
        if training:
            return training_step(network, images, precision, fused=fused)
        return inference(network, images, precision)

    def captured(network: Any) -> Pass:
        if training:
            return captured_step(network, images, precision)
        return at_once(inference(network, images, precision), device)

    form = own if training else own.deployed()
    found = {"timm": take(theirs)}
    if device.type == "cuda":
        found |= {"timm compiled": take(torch.compile(theirs)), "ours, captured": captured(form)}
        # Networks of their own, as a compiled one takes its form from how it is first called.
        for name, network in (("timm compiled, captured", of_timm(mixer, ours(mixer))), ("ours compiled", ours(mixer))):
            found[name] = captured(torch.compile(network.to(device)))
    elif precision == "float32":
        found["lucidrains"] = take(of_lucidrains(mixer, sum(one.numel() for one in own.parameters())))
    if training and precision == "float32":
        found["timm with fused AdamW"] = take(of_timm(mixer, ours(mixer)).to(device), fused=True)
    found["ours"] = take(form, fused=True)
    return {**found, "peak": large_product(precision, device)}


def speed_rows(
    mixer: Mixer, step: str, precision: str, seconds: dict[str, list[float]], macs: float, device: str
) -> list[Row]:
    """The ratios to timm and the shares of the peak; `macs` are the multiply-adds of one pass."""
    where = f"{mixer.name} {precision} {step}"

    def ratio(slow: str, fast: str, bar: float | None = None) -> Row:
        values = [one / other for one, other in zip(seconds[slow], seconds[fast], strict=True)]
        return Row.of(f"{where}: {fast} to {slow}", values, "times as fast", bar)

    def share(side: str, bar: float | None = None) -> Row:
        peak = PEAK_SIDE[device] ** 3
        values = [macs / peak * product / one for product, one in zip(seconds["peak"], seconds[side], strict=True)]
        return Row.of(f"{where}: share of the peak, {side}", values, "of the peak", bar)

    others = [side for side in seconds if side not in ("timm", "ours", "peak") and "compiled" not in side]
    rows = [ratio("timm", side) for side in others]
    rows.append(ratio("timm", "ours", mixer.bar(step, precision) if device == "cpu" else None))
    if "ours compiled" in seconds:
        rows.append(ratio("timm compiled", "ours compiled", COMPILED_BAR))
        rows.append(ratio("timm compiled, captured", "ours compiled"))
        rows.append(ratio("timm compiled", "ours, captured"))
    goal = PEAK_BAR if mixer.name == "mixer_s16" and (step, precision) == ("inference", "float32") else None
    shown = ("timm", "ours", "ours, captured", "timm compiled", "ours compiled")
    rows += [share(side, goal if side == "ours" else None) for side in shown if side in seconds]
    return rows


def memory_row(mixer: Mixer, precision: str) -> Row:
    """Peak memory of a training step as a fraction of timm's."""
    own = ours(mixer)
    ours_bytes, theirs_bytes = (
        peak_memory(one, mixer.image_shape, mixer.training_batch, precision=PRECISIONS[precision], training=True)
        for one in (own, of_timm(mixer, own))
    )
    name = f"{mixer.name} {precision} training step: peak memory, ours to timm"
    return Row.of(name, [ours_bytes / theirs_bytes], "times as much", MEMORY_BAR, at_most=True)


def compare(mixer: Mixer, step: str, precision: str, rounds: int, threads: int, where: str) -> list[Row]:
    """The rows of one comparison."""
    torch.set_num_threads(threads)
    device = torch.device(where)
    macs = count_macs(ours(mixer), mixer.image_shape).total * mixer.images(step, precision, device)
    seconds = in_turn(passes(mixer, step, precision, device), rounds, device)
    rows = speed_rows(mixer, step, precision, seconds, macs * PASSES[step], device.type)
    counted = step != "inference" and device.type == "cpu"  # on a GPU it is the same
    return [*rows, memory_row(mixer, precision)] if counted else rows


def main(arguments: Sequence[str]) -> None:
    """Print the rows."""
    options = {"only": "", "rounds": "3", "threads": "1", "device": "cpu", "format": "text", "precision": ""}
    options |= dict(argument.split("=", 1) for argument in arguments)
    rounds, threads, text = int(options["rounds"]), int(options["threads"]), options["format"] == "text"
    chosen = options["only"].split(",") if options["only"] else [mixer.name for mixer in MIXERS]
    precisions = options["precision"].split(",") if options["precision"] else list(PRECISIONS)
    if text:
        name = device_name(torch.device(options["device"]))
        print(f"{name}, {threads} threads, torch {torch.__version__}; median of {rounds} turns (quartiles)")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["explore.architecture.network", "explore.cost.flops", "timm.models.mlp_mixer"])
    rows: list[Row] = []
    with ProcessPoolExecutor(max_workers=1, max_tasks_per_child=1, mp_context=processes) as pool:
        for mixer in (one for one in MIXERS if one.name in chosen):
            for precision, step in itertools.product(precisions, PASSES):
                job = pool.submit(compare, mixer, step, precision, rounds, threads, options["device"])
                if text:
                    print(*job.result(), sep="\n", flush=True)
                rows += job.result()
    if not text:
        print(json.dumps([vars(row) for row in rows], indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
