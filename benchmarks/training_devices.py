"""The parts of `benchmarks.training` about the device: batches from disk keep it busy, and small trials share a GPU."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, pairwise, product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.network_sides import captured_step, turn
from benchmarks.result_rows import Row, row
from benchmarks.training_sides import CANDIDATES, network
from explore.architecture.network import Network
from explore.architecture.published import adapted
from explore.cluster.isolation import Isolated, start_server
from explore.cluster.local import threads_each
from explore.cost.device import autocast, resolve_device, resolve_precision
from explore.counted import counted
from explore.data.dataset import Dataset, load
from explore.data.folder import image_files
from explore.data.gathering import ahead_of, threads_for
from explore.data.image import Decoding, Encoded, decode
from explore.data.loader import Batches
from explore.data.options import Augmentation, Folder
from explore.evaluation import COMPLETE
from explore.evaluator import TrainingEvaluator, train
from explore.training.optimizer import make_optimizer
from explore.training.options import Training

STREAMED_BAR = 1.05
LOADER_BAR = 1.0  # as many images as it has
IMAGE_SIZE = 224
STEPS = 8  # of a run that is timed
RUNS = {"cpu": 2, "cuda": 5}  # a step takes a processor a second or more
BATCH = {"cpu": 8, "cuda": 256}
FEWEST_IMAGES = 100
MADE = {"cpu": 1_000, "cuda": 5_000}  # of which 0.6 are trained with: enough batches for a run
WORKERS = (1, 2, 4, 8)


class Steps:
    """Training steps of a network on a device at a precision, by a bare loop."""

    def __init__(self, net: nn.Module, device: torch.device, precision: str) -> None:
        self.network, self.device, self.precision = net.to(device).train(), device, precision
        self.optimizer = make_optimizer(net, Training())

    def take(self, images: Tensor, labels: Tensor) -> None:
        """Take one, and wait for it on a processor only."""
        self.optimizer.zero_grad()
        with autocast(self.device, self.precision):
            loss = cross_entropy(self.network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def seconds(self, images: Tensor, labels: Tensor, steps: int) -> float:
        """Seconds of a step, waited for."""
        start = time.perf_counter()
        for _ in range(steps):
            self.take(images, labels)
        wait(self.device)
        return (time.perf_counter() - start) / steps


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_folder(path: str) -> None:
    """Raise ValueError where `streaming` could not train with the images of a folder."""
    try:
        images = sum(map(len, image_files(path)["train"].values()))
    except ValueError as error:
        raise ValueError(str(error).replace("data.path", "folder")) from error
    if images < FEWEST_IMAGES:
        raise ValueError(f"folder must have at least {FEWEST_IMAGES} images to train with, got {images} in {path!r}")


def streaming(folder: str | None, cache: str | None) -> Iterator[Row]:
    """Decoding, the loader alone, and Mixer-S/16 on batches from disk against the same on one batch in memory."""
    device = resolve_device("auto")
    if device.type == "cuda":
        torch.set_num_threads(threads_each(1))  # as a trial has that is alone on its machine
    with tempfile.TemporaryDirectory() as scratch:
        path = folder or _made_images(Path(scratch), MADE[device.type])
        files = [file for members in image_files(path)["train"].values() for file in members]
        start = time.perf_counter()
        some = [Encoded(file.name, file) for file in files[:400]]
        decode(some, Decoding(size=IMAGE_SIZE))
        yield row("decoding, once for each data set", len(some) / (time.perf_counter() - start), "images/s")
        data = load(Folder(path=path, image_size=IMAGE_SIZE, cache=cache or scratch))
        with patch("explore.data.loader.fits", lambda images, margin, device: False):
            loader = partial(
                Batches,
                data.train,
                device=device,
                mean=data.mean,
                std=data.std,
                classes=len(data.classes),
                augmentation=Augmentation(shift=8, flip=True),
                shuffle=True,
                drop_last=True,
            )
            rate = _passed(loader(64), device)
            threads = counted(threads_for(device), "thread")
            yield row(f"loader alone, {threads}: from the memory map, with shift and flip", rate, "images/s")
            # A small folder has batches enough for a run all the same.
            size = min(BATCH[device.type], len(data.train) // (ahead_of(device) + 1 + STEPS))
            shape = {"image_size": IMAGE_SIZE, "channels": data.channels, "classes": len(data.classes)}
            steps = Steps(Network(adapted("mixer_s16", **shape)), device, resolve_precision("auto", device))
            yield from streamed(loader(size), steps, rate)


def _passed(loader: Batches, device: torch.device, most: int = 3_000) -> float:
    """Images per second, once as many batches are on their way as are gathered at a time."""
    passing = iter(loader)
    for _ in islice(passing, ahead_of(device) + 1):
        wait(device)
    seen, start = 0, time.perf_counter()
    for images, _ in passing:
        seen += len(images)
        if seen >= most:
            break
    wait(device)
    return seen / (time.perf_counter() - start)


def streamed(loader: Batches, steps: Steps, rate: float) -> Iterator[Row]:
    """Runs of steps on batches from disk, each between two of as many on one batch in memory.

    `rate` is that of the loader alone, in images per second. Single steps would tell nothing of a loader that is too
    slow: while one on a batch in memory is taken, it gathers the next.
    """
    size, (images, labels) = loader.batch_size, next(iter(loader))
    steps.seconds(images, labels, 2)
    fixed, found = [steps.seconds(images, labels, STEPS)], []
    for epoch in range(1, 1 + RUNS[steps.device.type]):
        loader.set_epoch(epoch)  # other images than those of a moment ago
        found.append(_run(loader, steps))
        fixed.append(steps.seconds(images, labels, STEPS))
    trained = [size / seconds for seconds in found]
    yield row(f"Mixer-S/16 trained from the memory map, batch {size}", trained, "images/s")
    ratios = [2 * one / sum(around) for one, around in zip(found, pairwise(fixed), strict=True)]
    yield row("time of a step from the memory map to one in memory", ratios, "×", at_most=STREAMED_BAR)
    # From the memory map it trains no faster than the loader is, so that the need is that of steps in memory.
    needed = [size / seconds / rate for seconds in fixed]
    yield row("share of what the loader alone gives that it needs", needed, "", at_most=LOADER_BAR)


def _run(loader: Batches, steps: Steps) -> float:
    """Seconds of a step, one after the other; before, those whose batches came while there was nothing else to do."""
    waiting = iter(loader)
    for images, labels in islice(waiting, ahead_of(steps.device) + 1):
        steps.take(images, labels)
    wait(steps.device)
    start, taken = time.perf_counter(), 0
    for images, labels in islice(waiting, STEPS):
        steps.take(images, labels)
        taken += 1
    wait(steps.device)
    return (time.perf_counter() - start) / taken


def _made_images(root: Path, count: int) -> str:
    """Files as photographs are: several octaves of noise, 300 × 260 pixels, JPEG."""
    generator = np.random.default_rng(0)
    for index in range(count):
        picture = np.zeros((300, 260, 3))
        for cells, weight in ((4, 0.5), (16, 0.3), (64, 0.2)):
            noise = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            picture += weight * np.asarray(Image.fromarray(noise).resize((260, 300), Image.Resampling.BICUBIC))
        folder = root / "images" / f"class {index % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{index}.jpg", quality=88)
    return str(root / "images")


def on_gpu(dataset: Dataset) -> Iterator[Row]:
    """Training on a GPU: images per second, share of the measured peak, and trials per hour with several workers."""
    if not torch.cuda.is_available():
        yield row("GPU: not run, torch finds no CUDA device", 0.0, "")
        return
    device = resolve_device("auto")
    peak = _matrix_peak(device)
    yield row("peak of a bf16 matrix product, 8192³", peak / 1e12, "TFLOP/s")
    mixer = Network(adapted("mixer_s16", image_size=IMAGE_SIZE, channels=3, classes=1000))
    found = [("Mixer-S/16", mixer, 256), *((name, network(name, dataset, 0), 512) for name in CANDIDATES)]
    for name, net, size in found:
        images = torch.rand(size, *net.image_shape, device=device)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net.to(device)(images)
        step = captured_step(net, images, "bfloat16")
        turn(step, device, 20)
        rates = [size / turn(step, device, 20) for _ in range(10)]
        yield row(f"{name}, batch {size}: training", rates, "images/s")
        share = 3 * counter.get_total_flops() / size * statistics.median(rates) / peak
        yield row(f"{name}, batch {size}: share of the peak", share, "")
    yield from shared()


def _matrix_peak(device: torch.device) -> float:
    one, other = (torch.rand(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(20):
        wait(device)
        start = time.perf_counter()
        one @ other
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * 8192**3 / statistics.median(seconds[5:])


def shared(epochs: int = 9, device: str = "cuda") -> Iterator[Row]:
    """Small candidates per hour, as a search has them: each in a process, measured in turn, then trained."""
    patches, depths, widths = (f"model.{key}" for key in ("patch_size", "depth", "width"))
    candidates = [
        (f"{patches}={patch}", f"{depths}={depth}", f"{widths}={width}")
        for patch, depth, width in product((4, 7), (2, 4), (32, 64, 96, 128))
    ]
    base = (f"training.epochs={epochs}", "training.batch_size=64", "training.threads=1", f"cost.device={device}")
    start_server()
    alone: tuple[float, list[float]] | None = None
    with tempfile.TemporaryDirectory() as folder:
        _trials(base, candidates[:1], 1, Path(folder))  # for what happens once on a machine
        for workers in WORKERS:
            rate, speeds = _trials(base, candidates, workers, Path(folder) / str(workers))
            alone = alone or (rate, speeds)
            name = f"{len(candidates)} small candidates, {epochs} epochs: {workers} workers on the device"
            yield row(name, rate, "trials/hour")
            yield row(f"{name}, against one", rate / alone[0], "×")
            ratios = [one / other for one, other in zip(speeds, alone[1], strict=True)]
            yield row(f"{name}, their throughput against that with one", ratios, "×")


def _trials(
    base: Sequence[str], candidates: Sequence[Sequence[str]], workers: int, folder: Path
) -> tuple[float, list[float]]:
    """Trials per hour, and the throughput that was found for each."""
    evaluator = TrainingEvaluator(tuple(base), folder / "costs", None, Isolated(train, lambda: None))

    def trial(number: int) -> float:
        evaluation = evaluator(candidates[number], folder / str(number), lambda item: None)
        assert evaluation.status == COMPLETE, evaluation.reason
        assert evaluation.cost
        assert evaluation.cost.throughput
        return evaluation.cost.throughput.images_per_second

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        speeds = list(pool.map(trial, range(len(candidates))))
    return 3600 * len(candidates) / (time.perf_counter() - start), speeds
