"""Published networks against their public implementations: the same architecture, the same images, side by side.

    python -m benchmarks.public_implementations [repositories=FOLDER] [only=vip_s7,mixer_s16] [batch=8] [rounds=7]
        [threads=1] [device=cpu] [step=inference] [format=json]

Both are run in turn (A B A B ...), in float32, launched operator by operator; a ratio above 1 says that this package is
faster. `step=training` times forward and backward instead of inference. Deployed forms are compared with such.

The public code is that of timm (`pip install timm`) and of the authors, whose repositories lie in FOLDER under their
own names (`git clone https://github.com/Andrew-Qibin/VisionPermutator` and so on; `SOURCES` lists them with the commit
that was compared). What is not there is said and left out. Nothing of it is part of this package.
"""

import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.arguments import parse, refusing
from benchmarks.origin import print_json
from explore.architecture.network import Network
from explore.architecture.published import PUBLISHED, published
from explore.cost.device import resolve_device

SOURCES = {
    "AS-MLP": "https://github.com/svip-lab/AS-MLP at dd1eb4f",
    "ConvNeXt": "https://github.com/facebookresearch/ConvNeXt at 048efce",
    "CV-Backbones": "https://github.com/huawei-noah/CV-Backbones at 25531f7",
    "convmixer": "https://github.com/locuslab/convmixer at 4704811",
    "CycleMLP": "https://github.com/ShoufaChen/CycleMLP at 4e062a0",
    "deit": "https://github.com/facebookresearch/deit at 7e160fe",
    "DynaMixer": "https://github.com/ziyuwwang/DynaMixer at 038b73b",
    "GFNet": "https://github.com/raoyongming/GFNet at 2de48b6",
    "Hire-Wave-MLP.pytorch": "https://github.com/ggjy/Hire-Wave-MLP.pytorch at 7ef7ddd",
    "poolformer": "https://github.com/sail-sg/poolformer at a075575",
    "RepMLP": "https://github.com/DingXiaoH/RepMLP at 3eff13f",
    "SPACH": "https://github.com/microsoft/SPACH at dcede1e",
    "VisionPermutator": "https://github.com/Andrew-Qibin/VisionPermutator at 2cab2ce",
}
Build = Callable[[Path], nn.Module]


@dataclass(frozen=True)
class Row:
    """One comparison: images per second of both (medians), and the ratio ours to theirs (median, lowest, highest)."""

    name: str
    source: str
    theirs: float
    ours: float
    ratio: float
    low: float
    high: float


def from_timm(name: str) -> Build:
    """A network of timm."""

    def build(repositories: Path) -> nn.Module:
        network: nn.Module = importlib.import_module("timm").create_model(name)
        return network

    return build


def from_repository(folder: str, module: str, constructor: str, then: Callable[[Any], None] | None = None) -> Build:
    """A network of an official repository; `then` prepares it."""

    def build(repositories: Path) -> nn.Module:
        path = repositories / folder
        if not path.is_dir():
            raise LookupError(f"{path} is not there")
        with importable(path):
            network: nn.Module = getattr(importlib.import_module(module), constructor)()
            if then:
                then(network)
        return network

    return build


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules in a folder can be imported, and are forgotten afterwards: most repositories call theirs `models`."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            module = sys.modules[name]
            origins = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
            if any(origin.startswith(str(folder)) for origin in origins):
                del sys.modules[name]


def deploy(network: Any) -> None:
    """RepMLPNet's own deployment."""
    network.eval().locality_injection()


def shift_with_torch(network: Any) -> None:
    """AS-MLP's shift by the plain function beside its CUDA kernel, which a processor does not have."""
    for module in network.modules():
        if type(module).__name__ == "Shift":
            plain = sys.modules[type(module).__module__].torch_shift
            module.forward = partial(plain, shift_size=module.kernel_size, dim=module.dim)


COMPARED: tuple[tuple[str, str, Build], ...] = (
    ("mixer_s16", "timm", from_timm("mixer_s16_224")),
    ("mixer_b32", "timm", from_timm("mixer_b32_224")),
    ("gmixer_12", "timm", from_timm("gmixer_12_224")),
    ("gmlp_ti16", "timm", from_timm("gmlp_ti16_224")),
    ("gmlp_s16", "timm", from_timm("gmlp_s16_224")),
    ("resmlp_s12", "timm", from_timm("resmlp_12_224")),
    ("resmlp_s12", "deit", from_repository("deit", "resmlp_models", "resmlp_12")),
    ("vit_ti16", "timm", from_timm("vit_tiny_patch16_224")),
    ("vit_s16", "timm", from_timm("vit_small_patch16_224")),
    (
        "convnext_iso_s",
        "ConvNeXt",
        from_repository("ConvNeXt", "models.convnext_isotropic", "convnext_isotropic_small"),
    ),
    ("convmixer_1024_20", "timm", from_timm("convmixer_1024_20_ks9_p14")),
    ("poolformer_s12", "timm", from_timm("poolformer_s12")),
    ("poolformer_s12", "poolformer", from_repository("poolformer", "models.poolformer", "poolformer_s12")),
    ("gfnet_ti", "GFNet", from_repository("GFNet", "gfnet", "GFNet")),
    ("vip_s7", "VisionPermutator", from_repository("VisionPermutator", "models.vip", "vip_s7")),
    ("dynamixer_s", "DynaMixer", from_repository("DynaMixer", "models.configs.conf_dynamixer", "dynamixer_s")),
    ("asmlp_t", "AS-MLP", from_repository("AS-MLP", "models.as_mlp", "AS_MLP", shift_with_torch)),
    ("smlp_t", "SPACH", from_repository("SPACH", "models.registry", "smlpnet_tiny")),
    ("repmlp_t224", "RepMLP", from_repository("RepMLP", "repmlpnet", "create_RepMLPNet_T224", deploy)),
    ("cyclemlp_b1", "CycleMLP", from_repository("CycleMLP", "cycle_mlp", "CycleMLP_B1")),
    ("wavemlp_t", "CV-Backbones", from_repository("CV-Backbones/wavemlp_pytorch", "models.wavemlp", "WaveMLP_T")),
    (
        "hiremlp_t",
        "Hire-Wave-MLP.pytorch",
        from_repository("Hire-Wave-MLP.pytorch", "mlp_based.hire_mlp", "hire_mlp_tiny"),
    ),
)


def compare(name: str, build: Build, options: Mapping[str, Any]) -> tuple[float, float, list[float]]:
    """Images per second of theirs and ours, and the ratio in each round."""
    device, training = resolve_device(options["device"]), options["step"] == "training"
    size, batch = PUBLISHED[name].image_size, options["batch"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old code on a new torch
        theirs = build(Path(options["repositories"]))
    ours = Network(published(name)) if training else Network(published(name)).deployed()
    images = torch.rand(batch, 3, size, size, device=device)
    passes = [_pass(network.to(device).train(training), images, training) for network in (theirs, ours)]
    seconds: list[list[float]] = [[], []]
    for one in passes:
        one()
    for _ in range(options["rounds"]):
        for times, one in zip(seconds, passes, strict=True):
            times.append(_timed(one, device))
    ratios = [slow / fast for slow, fast in zip(*seconds, strict=True)]
    speeds = [batch / statistics.median(times) for times in seconds]
    return speeds[0], speeds[1], ratios


def _pass(network: nn.Module, images: Tensor, training: bool) -> Callable[[], None]:
    def infer() -> None:
        with torch.inference_mode():
            network(images)

    def train() -> None:
        network(images).sum().backward()
        network.zero_grad(set_to_none=True)

    return train if training else infer


def _timed(one: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    one()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main(arguments: Sequence[str]) -> None:
    """Print the ratios."""
    names = tuple(dict.fromkeys(name for name, _, _ in COMPARED))
    defaults = {"repositories": "repositories", "only": names, "batch": 8, "rounds": 7, "threads": 1, "device": "cpu"}
    options = parse(arguments, __doc__, defaults | {"step": "inference"}, {"step": ("inference", "training")})
    with refusing(arguments):
        resolve_device(options["device"])
    torch.set_num_threads(options["threads"])
    rows = []
    for name, source, build in COMPARED:
        if name not in options["only"]:
            continue
        try:
            theirs, ours, ratios = compare(name, build, options)
        except (ImportError, LookupError, RuntimeError) as error:
            print(f"{name:18} {source:22} not compared: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        row = Row(name, source, theirs, ours, statistics.median(ratios), min(ratios), max(ratios))
        rows.append(row)
        if options["format"] == "text":
            speeds = f"{row.theirs:8.1f} and {row.ours:8.1f} images/s"
            print(
                f"{name:18} {source:22} {speeds}   ratio {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})", flush=True
            )
    if options["format"] == "json":
        print_json([asdict(row) for row in rows])


if __name__ == "__main__":
    main(sys.argv[1:])
