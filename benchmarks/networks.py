"""Three Mixers beside the public implementations of them: inference, training step, share of the peak, memory.

    python -m benchmarks.networks [only=mixer_s16,mixer_32px] [rounds=3] [threads=1] [device=cpu] [format=json]
        [precision=float32]

Needs `pip install timm mlp-mixer-pytorch`; nothing of them is part of this package. timm's network gets the weights
of ours, and the logits of both are compared first. All sides of a comparison take turns (A B A B ...), each in a
process of its own. A ratio is that of the seconds in one turn, theirs to ours, so that above 1 this package is faster;
the row has the median of the turns and its quartiles. The share of the peak is how fast the multiply-adds of a network
are, as a fraction of those of the fastest large matrix product, which takes turns with it.

Each side has memory as its users have it: glibc gives much of what a pass of timm or lucidrains frees back to the
system, and hands it out as fresh pages in the next one; a process of this package that measures or trains keeps it.
`timm, memory kept` tells the gain of that from the gain of the network. A training step is forward, backward and AdamW:
as its users get it by default at timm and lucidrains, and fused here. `timm with fused AdamW` tells the gain of the
optimizer from that of the network. Bars are held against the default. Without instructions for bfloat16, timm takes ten
times as long in it as in float32: there the comparison in bfloat16 has an eighth of the images, and the peak beside it
is that of float32.

Peak memory is that of a training step, ours to timm's. On a processor it is worked out from the sizes of the tensors
alive, without the optimizer and its state; on a GPU it is what torch has allocated at most, with a fused AdamW and its
state on both sides, launched operator by operator. There it has no bar.

With `device=cuda` both sides are compiled, too. Ours is then as a trial has it: its kernels are launched at once, as a
CUDA graph, and so is the optimizer's step. `captured` says that of any side, so that `timm compiled, captured` tells
the gain of the network from that of launching.
"""

import itertools
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import torch

from benchmarks.apart import Apart
from benchmarks.arguments import check_installed, parse, refusing
from benchmarks.network_sides import (
    KEPT,
    MIXERS,
    PEAK_SIDE,
    PRECISIONS,
    S16,
    Mixer,
    allocating,
    of_timm,
    ours,
    prepared,
    sides,
)
from benchmarks.origin import print_json
from benchmarks.result_rows import Row, row, shown
from explore.cost.device import device_name, resolve_device
from explore.cost.flops import count_macs
from explore.cost.memory import peak_memory

COMPILED_BAR = 1.1  # on a GPU, against timm compiled
MEMORY_BAR = 1.0  # at most, on a processor, where the MLPs of ours are taken in parts
PEAK_BAR = 0.75  # of Mixer-S/16 in float32
TURN_SECONDS = {"cpu": 0.3, "cuda": 0.1}  # at least one pass
PASSES = {"inference": 1, "training step": 3}  # how many times a step goes through the products
_PRELOAD = ("benchmarks.network_sides", "timm.models.mlp_mixer")


def in_turn(mixer: Mixer, step: str, precision: str, rounds: int, threads: int, device: str) -> dict[str, list[float]]:
    """Seconds of a pass of each side in each round."""
    with ExitStack() as all_of_them:
        seconds_of: dict[str, Apart[int, float]] = {}
        for side in sides(step, precision, device):
            one = Apart[int, float](prepared, side, mixer, step, precision, device, threads, preload=_PRELOAD)
            seconds_of[side] = all_of_them.enter_context(one)
            if device == "cpu":  # where some choose what is faster meanwhile
                one.wait()
        for one in seconds_of.values():
            one.wait()
        repeats = {side: max(1, round(TURN_SECONDS[device] / ask(1))) for side, ask in seconds_of.items()}
        turns = [{side: ask(repeats[side]) for side, ask in seconds_of.items()} for _ in range(rounds)]
    return {side: [each[side] for each in turns] for side in seconds_of}


def speed_rows(
    mixer: Mixer, step: str, precision: str, seconds: dict[str, list[float]], macs: float, device: str
) -> list[Row]:
    """The ratios to timm and the shares of the peak; `macs` are the multiply-adds of one pass."""
    where = f"{mixer.name} {precision} {step}"

    def ratio(slow: str, fast: str, bar: float | None = None) -> Row:
        values = [one / other for one, other in zip(seconds[slow], seconds[fast], strict=True)]
        return row(f"{where}: {fast} to {slow}", values, "times as fast", at_least=bar)

    def share(side: str, bar: float | None = None) -> Row:
        peak = PEAK_SIDE[device] ** 3
        values = [macs / peak * product / one for product, one in zip(seconds["peak"], seconds[side], strict=True)]
        return row(f"{where}: share of the peak, {side}", values, "of the peak", at_least=bar)

    others = [side for side in seconds if side not in ("timm", "ours", "peak") and "compiled" not in side]
    rows = [ratio("timm", side) for side in others]
    rows.append(ratio("timm", "ours", mixer.bar(step, precision) if device == "cpu" else None))
    if "timm" + KEPT in seconds:
        rows.append(ratio("timm" + KEPT, "ours"))
    if "ours compiled" in seconds:
        rows.append(ratio("timm compiled", "ours compiled", COMPILED_BAR))
        rows.append(ratio("timm compiled, captured", "ours compiled"))
        rows.append(ratio("timm compiled", "ours, captured"))
    goal = PEAK_BAR if mixer is S16 and (step, precision) == ("inference", "float32") else None
    without_share = ("lucidrains", "timm with fused AdamW", "timm compiled, captured", "peak")
    return rows + [share(side, goal if side == "ours" else None) for side in seconds if side not in without_share]


def memory_row(mixer: Mixer, precision: str, device: str) -> Row:
    """Peak memory of a training step as a fraction of timm's; the optimizers are alike, or left out on a processor."""
    if device == "cuda":
        most = []
        for side in ("ours", "timm with fused AdamW"):
            with Apart[int, int](allocating, side, mixer, precision, device, preload=_PRELOAD) as one:
                most.append(one(3))
    else:
        own, shape, how = ours(mixer), mixer.image_shape, PRECISIONS[precision]
        both = own, of_timm(mixer, own)
        most = [peak_memory(one, shape, mixer.training_batch, precision=how, training=True) for one in both]
    name = f"{mixer.name} {precision} training step: peak memory, ours to timm"
    bar = MEMORY_BAR if device == "cpu" else None
    return row(name, most[0] / most[1], "times as much", at_most=bar)


def compare(mixer: Mixer, step: str, precision: str, rounds: int, threads: int, device: str) -> list[Row]:
    """The rows of one comparison."""
    macs = count_macs(ours(mixer), mixer.image_shape).total * mixer.images(step, precision, torch.device(device))
    seconds = in_turn(mixer, step, precision, rounds, threads, device)
    rows = speed_rows(mixer, step, precision, seconds, macs * PASSES[step], device)
    return rows if step == "inference" else [*rows, memory_row(mixer, precision, device)]


def main(arguments: Sequence[str]) -> None:
    """Print the rows."""
    names = tuple(mixer.name for mixer in MIXERS)
    defaults = {"only": names, "rounds": 3, "threads": 1, "device": "cpu", "precision": (*PRECISIONS,)}
    options = parse(arguments, __doc__, defaults, {"device": TURN_SECONDS})
    with refusing(arguments):
        device = resolve_device(options["device"])
        compared = {side for one in options["precision"] for side in sides("inference", one, options["device"])}
        check_installed("timm", *(["mlp_mixer_pytorch"] if "lucidrains" in compared else []))
    rounds, threads, text = options["rounds"], options["threads"], options["format"] == "text"
    torch.set_num_threads(threads)  # which decides what is counted here, too
    if text:
        where = f"{device_name(device)}, {threads} threads, torch {torch.__version__}"
        print(f"{where}; median of {rounds} turns [quartiles]")
    found: list[Row] = []
    for mixer in (one for one in MIXERS if one.name in options["only"]):
        for precision, step in itertools.product(options["precision"], PASSES):
            rows = compare(mixer, step, precision, rounds, threads, options["device"])
            if text:
                print(*map(shown, rows), sep="\n", flush=True)
            found += rows
    if not text:
        print_json(found, options["device"])


if __name__ == "__main__":
    main(sys.argv[1:])
