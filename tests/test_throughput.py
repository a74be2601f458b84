"""A clock that the test moves gives exact medians, spreads and block lengths; devices, precisions and the lock between
measurements are what they claim; the network is as before."""

import fcntl
import itertools
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from explore.cost import device as machine
from explore.cost.device import device_name, exclusive, resolve_device, resolve_precision
from explore.cost.measure import measure_cost
from explore.cost.options import Measuring
from explore.cost.throughput import measure_throughput

IMAGE = (1, 2, 2)


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


class Clock:
    """Stands still unless it is moved; passes move it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Timed(nn.Module):
    """A network whose every pass takes the next duration, in seconds."""

    def __init__(self, clock: Clock, durations, *, per_image: float = 0.0) -> None:
        super().__init__()
        self.clock, self.durations, self.per_image = clock, iter(durations), per_image
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        self.clock.now += next(self.durations) + self.per_image * len(images)
        return images


def options(**changes) -> Measuring:
    return Measuring(**{"batch_size": 10, "precision": "32-true", "device": "cpu", **changes})


def test_throughput_and_latency_are_exact():
    clock = Clock()
    network = Timed(clock, itertools.repeat(0.010), per_image=0.001)
    speed = measure_throughput(network, IMAGE, options(), clock)
    assert speed.images_per_second == pytest.approx(10 / 0.020)
    assert speed.low == pytest.approx(speed.high)
    assert speed.latency_ms == pytest.approx(11)
    assert (speed.batch_size, speed.blocks, speed.dispatch, speed.memory_bytes) == (10, 15, "eager", None)
    assert (speed.threads, speed.torch_version) == (torch.get_num_threads(), torch.__version__)


def test_median_and_quartiles_over_blocks():
    clock = Clock()
    warm, latency = [1.0] * 3, itertools.repeat(1.0)
    network = Timed(clock, itertools.chain(warm, [5.0, 1.0, 4.0, 2.0, 100.0], latency))
    speed = measure_throughput(network, IMAGE, options(warmup=2, blocks=5, max_seconds=1e9), clock)
    assert (speed.low, speed.images_per_second, speed.high) == (2.0, 2.5, 5.0)


def test_a_block_lasts_as_long_as_asked_and_the_slow_first_pass_does_not_matter():
    clock = Clock()
    network = Timed(clock, itertools.chain([9.0], itertools.repeat(0.004)))
    measure_throughput(network, IMAGE, options(warmup=2, blocks=3, block_seconds=0.02, max_seconds=60), clock)
    assert network.batches == [10] * (1 + 1 + 5 + 3 * 5) + [1] * (1 + 5 + 5 + 3 * 5)


def test_time_that_is_up_ends_the_measurement_after_at_least_one_block():
    clock = Clock()
    quick, slow = Timed(clock, itertools.repeat(1.0)), Timed(clock, itertools.repeat(9.0))
    assert measure_throughput(quick, IMAGE, options(warmup=9, max_seconds=5), clock).blocks == 3
    assert measure_throughput(slow, IMAGE, options(warmup=9, max_seconds=5), clock).blocks == 1
    assert quick.batches == [10] * (2 + 3) + [1] * (2 + 3)
    assert slow.batches == [10] * (1 + 1) + [1] * (1 + 1)


class Failing(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("end", "outcome"),
    [(nn.Identity(), nullcontext()), (Failing(), pytest.raises(RuntimeError, match="out of memory"))],
    ids=["ends", "fails"],
)
def test_every_module_gets_its_mode_back(end, outcome):
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Sequential(nn.Dropout()), end).train()
    network[1].eval()
    modes = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with outcome:
        measure_throughput(network, IMAGE, options(warmup=0, blocks=1, block_seconds=1e-9))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


class Spy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.seen: set[tuple[object, ...]] = set()

    def forward(self, images: Tensor) -> Tensor:
        output = self.linear(images)
        self.seen.add((output.dtype, output.is_inference(), self.training))
        return output


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_passes_run_in_eval_mode_without_gradients_in_the_precision_asked_for(precision, dtype):
    network = Spy()
    speed = measure_throughput(network, IMAGE, options(precision=precision, warmup=0, blocks=1, block_seconds=1e-9))
    assert network.seen == {(dtype, True, False)}
    assert speed.precision == precision
    assert speed.images_per_second > 0


def test_a_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="must have weights to be timed, got one on the meta device; build it on the"):
        measure_throughput(nn.Linear(2, 2, device="meta"), IMAGE, options())


def test_the_whole_cost():
    cost = measure_cost(nn.Linear(2, 3), IMAGE, options(batch_size=2, blocks=1, warmup=0), timed=True)
    assert (cost.params, cost.macs, cost.memory_bytes) == (9, 12, 4 * (9 + 8 + 12))
    assert cost.throughput is not None
    assert cost.throughput.device == device_name(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_timed_and_the_network_comes_home():
    network = nn.Conv2d(3, 8, 3)
    speed = measure_throughput(network, (3, 64, 64), options(device="cuda", precision="auto"))
    assert network.weight.device.type == "cpu"
    assert speed.memory_bytes is not None
    assert speed.memory_bytes > 4 * 10 * 3 * 64 * 64
    assert speed.device == torch.cuda.get_device_name()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"block_seconds": 0.0}, "block_seconds must be above 0 seconds, got 0.0"),
        ({"max_seconds": float("nan")}, "max_seconds must be above 0 seconds, got nan"),
    ],
)
def test_impossible_protocols_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes)


@pytest.fixture
def gpus(monkeypatch):
    """Makes torch believe in a number of GPUs."""

    def set_number(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    return set_number


@pytest.mark.parametrize(
    ("number", "name", "device"),
    [(0, "auto", "cpu"), (0, "cpu", "cpu"), (2, "auto", "cuda:0"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1")],
)
def test_devices_by_name(gpus, number, name, device):
    gpus(number)
    assert resolve_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("number", "name", "allowed"),
    [(0, "cuda", "auto, cpu"), (0, "tpu", "auto, cpu"), (1, "cuda:1", "auto, cpu, cuda, cuda:0")],
)
def test_devices_this_machine_lacks_are_refused(gpus, number, name, allowed):
    gpus(number)
    with pytest.raises(ValueError, match=f"device must be one of {allowed} on this machine, got '{name}'"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("cpuinfo", "precision"),
    [
        ("model name\t: X\nflags\t\t: fpu avx512_bf16 sse\n", "bf16-mixed"),
        ("flags\t\t: fpu amx_bf16\n", "bf16-mixed"),
        ("Features\t: fp asimd bf16\n", "bf16-mixed"),
        ("flags\t\t: fpu avx512f\n", "32-true"),
        (None, "32-true"),
    ],
)
def test_automatic_precision_follows_the_processor(tmp_path, monkeypatch, cpuinfo, precision):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    monkeypatch.setattr(machine, "_CPUINFO", path)
    assert resolve_precision("auto", torch.device("cpu")) == precision
    assert resolve_precision("bf16-mixed", torch.device("cpu")) == "bf16-mixed"
    assert device_name(torch.device("cpu")) == ("X" if cpuinfo and "model" in cpuinfo else device_name_elsewhere())


def device_name_elsewhere() -> str:
    return machine.platform.processor() or machine.platform.machine()


def test_unknown_precisions_are_refused():
    with pytest.raises(ValueError, match="precision must be one of auto, 32-true, bf16-mixed, got 'fp8'"):
        resolve_precision("fp8", torch.device("cpu"))


def locked(folder: Path) -> bool:
    """Whether another process would have to wait; a lock belongs to the open file, so this one can ask."""
    (path,) = folder.glob("*.lock")
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def test_one_measurement_keeps_others_away_until_it_ends(own_lock):
    with exclusive(torch.device("cpu")):
        assert locked(own_lock)
    assert not locked(own_lock)


def test_a_measurement_that_fails_lets_others_in(own_lock):
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_throughput(Failing(), IMAGE, options())
    assert not locked(own_lock)


class Watching(nn.Module):
    """A network that looks at the lock while it is timed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.seen = folder, []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(locked(self.folder))
        return images


def test_the_lock_is_held_in_every_pass(own_lock):
    network = Watching(own_lock)
    measure_throughput(network, IMAGE, options(warmup=0, blocks=2, block_seconds=1e-9))
    assert set(network.seen) == {True}
