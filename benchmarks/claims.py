"""Two claims about the MLP-Mixer, measured: it is faster than ViT, and its cost is linear in the number of patches.

    python -m benchmarks.claims [format=json] [picture=FILE.png] [KEY=VALUE ...]

Keys: width=768, depth=2, device=auto, precision=auto, threads=1, blocks=7, sides=7,14,21,28,32 (patches of 16 pixels
along a side of the image), published=mixer_b16,vit_b16 (measured whole; `none` for none). It takes less than ten
minutes on one core.

Everything is timed in turn: all networks at all numbers of patches, eagerly and compiled (A B C ... A B C ...), so that
what else the machine does meets all alike. A ratio is the median over the turns of the ratio within a turn. A processor
is timed by the seconds that it computes for this process, which others do not lengthen; a GPU by the clock. Three
networks of equal width and depth: Mixer with the hidden size D_S of its token MLP fixed at half the width, Mixer with a
D_S that grows with the number of patches S, and ViT with a class token. At 196 patches the two Mixers are the same
network: what differs there is noise.
What the figures say stands in docs/claims.md.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.arguments import parse, refusing
from benchmarks.origin import print_json
from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.published import PUBLISHED, published
from explore.architecture.spec import Architecture, Model, architecture
from explore.cost.device import autocast, device_name, resolve_device, resolve_precision
from explore.cost.flops import count_macs
from explore.cost.measure import count_params
from explore.cost.options import PRECISIONS
from explore.cost.timing import Blocks, seconds_in_turn, stopwatch, threads
from explore.cost.turns import Turns

PATCH, HEAD = 16, 64
BASE_TOKENS = 196  # at which both Mixers are the published one
NETWORKS = ("mixer", "mixer_grown", "vit")
DISPATCHES = ("eager", "compiled")
TOKENS_IN_A_PASS = 784
_ONLY_COUNTED = (48, 64, 96)  # sides of larger grids
_BLOCK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line may set."""

    width: int = 768
    depth: int = 2
    device: str = "auto"
    precision: str = "auto"
    threads: int = 1
    blocks: int = 7
    sides: tuple[int, ...] = (7, 14, 21, 28, 32)
    published: tuple[str, ...] = ("mixer_b16", "vit_b16")


class AttentionCore(nn.Module):
    """The part of ViT that is quadratic in the patches, alone: softmax(QKᵀ)V of every block, without projections."""

    heads: Tensor

    def __init__(self, tokens: int, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.register_buffer("heads", torch.randn(1, width // HEAD, tokens, HEAD))

    def forward(self) -> Tensor:
        """Attend for one image; queries, keys and values are there already."""
        for _ in range(self.depth):
            result = F.scaled_dot_product_attention(self.heads, self.heads, self.heads)
        return result


def network(kind: str, side: int, width: int, depth: int) -> Architecture:
    """Return one of `NETWORKS` for side × side patches."""
    grown = side**2 / BASE_TOKENS if kind == "mixer_grown" else 1.0
    token: Mapping[str, Any] = {"name": "mlp", "expansion": 0.5 * grown}
    return architecture(
        Model(patch_size=PATCH, depth=depth, width=width, pooling="class_token" if kind == "vit" else "mean"),
        Mixing.of("attention" if kind == "vit" else token),
        Mixing.of("mlp"),
        image_size=PATCH * side,
        channels=3,
        classes=1000,
    )


def counted(kind: str, side: int, options: Options) -> dict[str, Any]:
    """Return parameters and multiply-adds of a network."""
    with torch.device("meta"):
        built = Network(network(kind, side, options.width, options.depth))
    macs = count_macs(built, built.image_shape).total
    return {"network": kind, "tokens": side**2, "params": count_params(built), "macs": macs}


def timed(networks: Mapping[str, Network], cores: Mapping[str, nn.Module], options: Options) -> dict[str, list[float]]:
    """Return seconds of one image in each turn, by `NAME eager` and `NAME compiled`, and for the cores by name."""
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    limits = {"recompile_limit": 1000, "accumulated_recompile_limit": 1000}
    forms: dict[str, Callable[[Tensor], Tensor]] = {f"{name} eager": one for name, one in networks.items()}
    forms |= {f"{name} compiled": torch.compile(one, dynamic=False) for name, one in networks.items()}
    with ExitStack() as stack:
        for context in (
            stack.enter_context(Turns(device)).measuring(),
            threads(options.threads),
            torch.inference_mode(),
            autocast(device, precision),
        ):
            stack.enter_context(context)
        stack.enter_context(torch._dynamo.config.patch(limits))
        images = {name: _images(one.to(device).eval()) for name, one in networks.items()}
        passes: dict[str, Callable[[], object]] = {}
        for name, form in forms.items():
            _say(name)
            passes[name] = partial(form, images[name.rpartition(" ")[0]])
            passes[name]()
        passes |= {name: core.to(device) for name, core in cores.items()}
        watch = stopwatch(device, options.threads)
        blocks = {name: Blocks(one, watch, _BLOCK_SECONDS) for name, one in passes.items()}
        for one in blocks.values():
            one.warm_up(0, time.monotonic, 0.0)
        seconds = seconds_in_turn(blocks, options.blocks)
    sizes = {f"{name} {dispatch}": len(one) for name, one in images.items() for dispatch in DISPATCHES}
    return {name: [one / sizes.get(name, 1) for one in each] for name, each in seconds.items()}


def _images(network: Network) -> Tensor:
    tokens = (network.image_shape[1] // PATCH) ** 2
    device = next(network.parameters()).device
    return torch.rand(max(1, TOKENS_IN_A_PASS // tokens), *network.image_shape, device=device)


def measure(options: Options) -> dict[str, Any]:
    """Return every figure."""
    networks = {
        f"{kind} {side**2}": Network(network(kind, side, options.width, options.depth))
        for side in options.sides
        for kind in NETWORKS
    }
    cores = {f"core {side**2}": AttentionCore(side**2 + 1, options.width, options.depth) for side in options.sides}
    seconds = timed(networks, cores, options)
    points = [
        {**counted(kind, side, options), **_both(f"{kind} {side**2}", seconds)}
        for side in options.sides
        for kind in NETWORKS
    ]
    published_seconds = {}
    if options.published:
        whole = timed({name: Network(published(name)) for name in options.published}, {}, options)
        published_seconds = {name: _both(name, whole) for name in options.published}
    return {
        "protocol": _protocol(options),
        "points": points,
        "only_counted": [counted(kind, side, options) for side in _ONLY_COUNTED for kind in NETWORKS],
        "published": published_seconds,
        "ratios": ratios(points),
        "exponents": {kind: exponents([one for one in points if one["network"] == kind]) for kind in NETWORKS},
        "attention": [
            {
                "tokens": side**2,
                "macs_share": quadratic_share(side**2, options.width),
                "seconds_share": paired(seconds[f"core {side**2}"], seconds[f"vit {side**2} eager"]),
            }
            for side in options.sides
        ],
    }


def paired(slow: Sequence[float], quick: Sequence[float]) -> float:
    """Return the median of the ratios within a turn."""
    return statistics.median(one / other for one, other in zip(slow, quick, strict=True))


def ratios(points: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return by how much each Mixer is faster than ViT at each number of patches, and how much less it multiplies."""
    found = []
    for tokens in sorted({one["tokens"] for one in points}):
        at = {one["network"]: one for one in points if one["tokens"] == tokens}
        row: dict[str, float] = {"tokens": tokens}
        for kind in NETWORKS[:-1]:
            row[f"{kind}_macs"] = at["vit"]["macs"] / at[kind]["macs"]
            for dispatch in DISPATCHES:
                row[f"{kind}_{dispatch}"] = paired(at["vit"][dispatch], at[kind][dispatch])
        found.append(row)
    return found


def exponents(points: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return p of cost ∝ Sᵖ from each number of patches to the next: 1 is linear, 2 is quadratic."""
    found = []
    for before, after in pairwise(sorted(points, key=lambda one: float(one["tokens"]))):
        scale = log(after["tokens"] / before["tokens"])
        row = {"from": before["tokens"], "to": after["tokens"], "macs": log(after["macs"] / before["macs"]) / scale}
        for dispatch in DISPATCHES:
            row[dispatch] = log(paired(after[dispatch], before[dispatch])) / scale
        found.append(row)
    return found


def quadratic_share(tokens: float, width: int) -> float:
    """Return the fraction 2S²C of the 12SC² + 2S²C multiply-adds of a block of ViT."""
    return tokens / (6 * width + tokens)


def _both(name: str, seconds: Mapping[str, list[float]]) -> dict[str, list[float]]:
    return {dispatch: seconds[f"{name} {dispatch}"] for dispatch in DISPATCHES}


def _protocol(options: Options) -> dict[str, Any]:
    device = resolve_device(options.device)
    return {
        **asdict(options),
        "device": device_name(device),
        "precision": resolve_precision(options.precision, device),
        "torch_version": str(torch.__version__),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def show(result: Mapping[str, Any]) -> None:
    """Print the figures for people."""
    print("patches  network          MACs/G   ms of one image [quartiles]: eager, compiled")
    for one in result["points"]:
        print(f"{one['tokens']:7}  {one['network']:12} {one['macs'] / 1e9:10.3f} {_spread(one)}")
    for name, seconds in result["published"].items():
        print(f"{name} whole: {_spread(seconds)}")
    if names := list(result["published"]):
        first, last = (result["published"][name] for name in (names[0], names[-1]))
        words = ", ".join(f"{dispatch} {paired(last[dispatch], first[dispatch]):.2f}" for dispatch in DISPATCHES)
        print(f"{names[-1]} over {names[0]}: {words}")
    print("\nViT over Mixer: multiply-adds, and seconds eager and compiled; D_S fixed | D_S grown")
    for row in result["ratios"]:
        halves = [[row[f"{kind}_{key}"] for key in ("macs", *DISPATCHES)] for kind in NETWORKS[:-1]]
        print(f"{row['tokens']:7}  " + " | ".join(" ".join(f"{value:5.2f}" for value in half) for half in halves))
    print("\ncost grows with the number of patches to the power of: MACs, eager, compiled")
    for kind, rows in result["exponents"].items():
        for row in rows:
            powers = " ".join(f"{row[key]:5.2f}" for key in ("macs", *DISPATCHES))
            print(f"{kind:12} {row['from']:5} to {row['to']:5}: {powers}")
    print("\nsoftmax(QKᵀ)V in ViT: share of the multiply-adds of a block, share of the seconds of the network, eager")
    for row in result["attention"]:
        print(f"{row['tokens']:7}  {100 * row['macs_share']:5.1f} % {100 * row['seconds_share']:5.1f} %")


def _spread(seconds: Mapping[str, Sequence[float]]) -> str:
    found = []
    for dispatch in DISPATCHES:
        low, median, high = (1000 * value for value in np.quantile(seconds[dispatch], [0.25, 0.5, 0.75]))
        found.append(f"{median:9.2f} [{low:.2f} to {high:.2f}]")
    return "   ".join(found)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and draw where a picture is asked for."""
    choices = {"published": (*PUBLISHED, "none"), "precision": PRECISIONS}
    given = parse(arguments, __doc__, asdict(Options()) | {"picture": ""}, choices)
    style, picture = given.pop("format"), given.pop("picture")
    with refusing(arguments):
        resolve_device(given["device"])
    whole = tuple(name for name in given["published"] if name != "none")
    result = measure(Options(**given | {"published": whole}))
    if style == "json":
        print_json(result)
    else:
        show(result)
    if picture:
        from benchmarks.claims_picture import draw

        draw(result, Path(picture))


if __name__ == "__main__":
    main(sys.argv[1:])
