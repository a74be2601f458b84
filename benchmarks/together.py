"""Are seeds of a network trained faster at once than one after the other, and do they come out the same?

    python -m benchmarks.together
    python -m benchmarks.together device=cuda format=json

A step of one seed and a step of all at once are taken in turn, with their batches, on images of MNIST at batch size 64;
a ratio is that of the time of a step alone to the share of each seed, the median of ten with quartiles. It is what an
ablation measures, in five rounds with three seeds, before it trains seeds together. One thread on a processor, float32.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch

from benchmarks.arguments import parse, refusing
from benchmarks.origin import print_json
from benchmarks.result_rows import Row, row, shown
from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.cost.allocator import keep_freed_memory
from explore.cost.device import device_name, resolve_device
from explore.data.dataset import Dataset, load
from explore.data.loader import Batches
from explore.data.options import Mnist
from explore.training.options import Training
from explore.training.pace import step_seconds

NETWORKS = {
    "tiniest: patch 14, depth 1, width 16": Model(patch_size=14, depth=1, width=16),
    "small: patch 7, depth 2, width 32": Model(patch_size=7, depth=2, width=32),
    "medium: patch 4, depth 4, width 64": Model(patch_size=4, depth=4, width=64),
}
SEEDS = (3, 8)
ROUNDS, BATCH = 10, 64


def rows(dataset: Dataset, device: torch.device) -> Iterator[Row]:
    """The time of a step alone, and how many times as fast each seed is together with others."""
    recipe = Training(batch_size=BATCH, precision="32-true")
    train = Batches(
        dataset.train,
        BATCH,
        device=device,
        mean=dataset.mean,
        std=dataset.std,
        classes=len(dataset.classes),
        shuffle=True,
        drop_last=True,
    )
    for name, model in NETWORKS.items():
        for count in SEEDS:
            networks = [_network(model, dataset, seed) for seed in range(count)]
            loaders = [train.seeded(seed) for seed in range(count)]
            pairs = step_seconds(networks, loaders, recipe, device, nullcontext, rounds=ROUNDS, whole=True)
            yield row(f"{name}: step alone", [1e3 * alone for alone, _ in pairs], "ms")
            yield row(f"{name}: {count} at once", [alone / share for alone, share in pairs], "× as fast")


def _network(model: Model, dataset: Dataset, seed: int) -> Network:
    torch.manual_seed(seed)
    size, channels, classes = dataset.image_size, dataset.channels, len(dataset.classes)
    mlp = Mixing(name="mlp")
    return Network(architecture(model, mlp, mlp, image_size=size, channels=channels, classes=classes))


def main(arguments: Sequence[str]) -> None:
    """Print the rows as they come, or all of them as JSON."""
    options = parse(arguments, __doc__, {"device": "cpu"})
    with refusing(arguments):
        device = resolve_device(options["device"])
    torch.set_num_threads(1)
    keep_freed_memory()
    found: list[Row] = []
    for one in rows(load(Mnist()), device):
        found.append(one)
        if options["format"] != "json":
            print(shown(one), flush=True)
    if options["format"] == "json":
        print_json(found, device.type)
    else:
        print(f"torch {torch.__version__}, {device_name(device)}")


if __name__ == "__main__":
    main(sys.argv[1:])
