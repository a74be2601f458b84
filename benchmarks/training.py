"""How near training is to its limit, and how far from what one gets without care.

    python -m benchmarks.training [format=json] [only=loop,tutorial,streaming,gpu] [network=timm] [folder=IMAGES]
        [cache=FOLDER]

loop: an epoch of training against a bare loop of torch at equal precision, and the whole trial (validation, checkpoints
and logging included) against the same by hand; epoch by epoch in turn.
tutorial: a whole trial against Lightning as its tutorial shows it, trial by trial in turn, each pair with a seed, and
each side in a process of its own. Both train the network of this package; with network=timm, which needs
`pip install timm`, the tutorial trains timm's, with the same weights: what people have without this package.
streaming: whether batches that come from disk keep the device busy with Mixer-S/16 at 224 pixels, by runs of steps one
after the other, in turn with runs on a batch in memory. `folder` is a folder of images as for data=folder; without it
1,000 JPEGs are made for the moment, 5,000 for a GPU.
gpu: images per second, share of the peak, and trials per hour with several workers on one device; needs CUDA.

One thread on a processor (streaming to a GPU those of a trial), MNIST, float32 unless said otherwise. Figures are
medians of ratios, with quartiles.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.apart import Apart
from benchmarks.arguments import check_installed, parse, refusing
from benchmarks.origin import print_json
from benchmarks.result_rows import Row, row, shown
from benchmarks.training_devices import check_folder, on_gpu, streaming
from benchmarks.training_sides import BareTrial, network, ours, trials
from explore.cost.allocator import keep_freed_memory
from explore.cost.device import device_name
from explore.data.dataset import Dataset, load
from explore.data.options import Mnist
from explore.training.options import Training

BATCH_SIZES = (64, 128, 512)
EPOCH_BAR, TRIAL_BAR = 1.05, 1.10
FLOAT_BAR, HALF_BAR = 1.4, 2.5
# A difference of accuracy that five seeds of 1,000 images each can tell from none.
ACCURACY_BAR = 0.01
SEEDS = 5
# Epochs of the loop and of the tutorial, so that all of it takes minutes.
EPOCHS = {"small": (20, 4), "medium": (3, 1)}
Asked = tuple[str, Training]
Answer = tuple[float, float]  # seconds and accuracy
Trial = Callable[[Asked], Answer]


def loop(dataset: Dataset) -> Iterator[Row]:
    """Epochs and trials against a bare loop, with memory as the process of a trial keeps it, for both sides."""
    keep_freed_memory()
    for candidate, (epochs, _) in EPOCHS.items():
        for batch_size in BATCH_SIZES:
            recipe = replace(_recipe(epochs, batch_size), rung=1)  # a checkpoint with each epoch, as by hand
            with tempfile.TemporaryDirectory() as folder:
                bare = BareTrial(network(candidate, dataset, recipe.seed), dataset, recipe, Path(folder))
                bare.epoch()  # so that each of ours lies between two of these
                train, seconds = ours(candidate, dataset, recipe, bare.epoch)
            around = [sum(two) / 2 for two in pairwise(bare.train_seconds)]
            ratios = [mine / theirs for mine, theirs in zip(train.seconds, around, strict=True)]
            name = f"{candidate}, batch {batch_size}"
            yield row(f"{name}: bare loop", statistics.median(bare.train_seconds), "s/epoch")
            yield row(f"{name}: epoch against a bare loop", ratios, "×", at_most=EPOCH_BAR)
            whole = seconds / sum(sum(two) / 2 for two in pairwise(bare.seconds))
            yield row(f"{name}: trial against the same by hand", whole, "×", at_most=TRIAL_BAR)


def tutorial(network: str) -> Iterator[Row]:
    """Trials against Lightning as its tutorial shows it, with the network of this `package` or that of `timm`."""
    with Apart[Asked, Answer](trials, network) as theirs, Apart[Asked, Answer](trials, "ours") as mine:
        theirs.wait()
        mine.wait()
        yield from _against_the_tutorial(theirs, mine)


def _against_the_tutorial(run_theirs: Trial, run_ours: Trial) -> Iterator[Row]:
    runs = [("small", size, "32-true", FLOAT_BAR) for size in BATCH_SIZES]
    runs += [("medium", 64, "32-true", FLOAT_BAR), *((name, 64, "bf16-mixed", HALF_BAR) for name in EPOCHS)]
    for candidate, batch_size, precision, bar in runs:
        speedups, differences = [], []
        for seed in range(SEEDS):
            recipe = _recipe(EPOCHS[candidate][1], batch_size, precision, seed)
            theirs, their_accuracy = run_theirs((candidate, recipe))
            mine, accuracy = run_ours((candidate, recipe))
            speedups.append(theirs / mine)
            differences.append(accuracy - their_accuracy)
        name = f"{candidate}, batch {batch_size}, {'bf16' if precision == 'bf16-mixed' else 'float32'}"
        yield row(f"{name}: times as fast as the tutorial in float32", speedups, "×", at_least=bar)
        mean = statistics.fmean(differences)
        yield row(f"{name}: accuracy against the tutorial's", mean, "", at_least=-ACCURACY_BAR)


def _recipe(epochs: int, batch_size: int, precision: str = "32-true", seed: int = 0) -> Training:
    return Training(epochs=epochs, batch_size=batch_size, precision=precision, seed=seed, accelerator="cpu")


def main(arguments: Sequence[str]) -> None:
    """Print the rows of each part as they come, or all of them as JSON."""
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "loop": lambda: loop(dataset),
        "tutorial": lambda: tutorial(options["network"]),
        "streaming": lambda: streaming(options["folder"], options["cache"]),
        "gpu": lambda: on_gpu(dataset),
    }
    defaults = {"only": (*parts,), "network": "package", "folder": "", "cache": ""}
    options = parse(arguments, __doc__, defaults, {"network": ("package", "timm")})
    with refusing(arguments):
        if "tutorial" in options["only"] and options["network"] == "timm":
            check_installed("timm")
        if "streaming" in options["only"] and options["folder"]:
            check_folder(options["folder"])
    dataset = load(Mnist())
    as_json = options["format"] == "json"
    found: list[Row] = []
    for name in options["only"]:
        torch.set_num_threads(1)
        for one in parts[name]():
            found.append(one)
            if not as_json:
                print(shown(one), flush=True)
    if as_json:
        print_json(found, "cuda" if torch.cuda.is_available() else "cpu")
    else:
        print(f"torch {torch.__version__}, one thread of {device_name(torch.device('cpu'))}")


if __name__ == "__main__":
    main(sys.argv[1:])
