"""A clock that the test moves gives exact figures, whatever the machine does meanwhile; what is timed is launched as
the protocol says, in a turn of its own; the network is as before."""

import fcntl
import itertools
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from explore.cost import session as turn
from explore.cost.device import device_name, resolve_dispatch
from explore.cost.measure import measure_cost
from explore.cost.options import Measuring
from explore.cost.throughput import measure_throughput

IMAGE = (1, 2, 2)


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


class Clock:
    """Stands still unless it is moved; passes move it, all the more the slower the machine is."""

    def __init__(self) -> None:
        self.now, self.pace, self.drift = 100.0, 1.0, 1.0

    def take(self, seconds: float) -> None:
        self.pace *= self.drift
        self.now += self.pace * seconds

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
        self.clock.take(next(self.durations) + self.per_image * len(images))
        return images


REFERENCE = 0.002  # seconds of a pass of the reference network


@pytest.fixture
def clock(monkeypatch):
    """A clock that the reference network moves as well."""
    clock = Clock()
    monkeypatch.setattr(turn, "reference_pass", lambda device, precision: partial(clock.take, REFERENCE))
    monkeypatch.setattr(turn, "calibrated", lambda protocol, measure, study: REFERENCE)
    return clock


def options(**changes) -> Measuring:
    return Measuring(**{"batch_size": 10, "precision": "32-true", "device": "cpu", **changes})


QUICK = {"warmup": 0, "max_seconds": 0.01, "block_seconds": 1e-9}


def test_no_turn_is_begun_that_would_end_too_late(clock):
    network = Timed(clock, itertools.chain(itertools.repeat(0.4, 6), itertools.repeat(0.001)))
    measure_throughput(network, IMAGE, options(max_seconds=3.0, interval=1e-9), clock)
    many = [size for size in network.batches if size > 1]
    assert len(many) < 6, "the sixth pass and the reference beside it would end after 2.7 seconds"


def test_throughput_and_latency_are_exact(clock):
    network = Timed(clock, itertools.repeat(0.010), per_image=0.001)
    speed = measure_throughput(network, IMAGE, options(), clock)
    assert speed.images_per_second == pytest.approx(10 / 0.020)
    assert speed.low == pytest.approx(speed.high)
    assert (speed.latency_ms, speed.latency_p90_ms) == pytest.approx((11, 11))
    assert (speed.batch_size, speed.dispatch, speed.memory_bytes) == (10, "eager", None)
    assert (speed.threads, speed.torch_version) == (torch.get_num_threads(), torch.__version__)
    assert (speed.settled, speed.driver, speed.strangers) == (True, None, ())
    assert speed.reference_ms == 1000 * REFERENCE
    assert (speed.warmup, speed.block_seconds, speed.interval) == (3, 0.004, 0.02)


def test_a_machine_that_slows_down_changes_no_figure(clock):
    network = Timed(clock, itertools.repeat(0.010))
    quick = measure_throughput(network, IMAGE, options(), clock).images_per_second
    clock.pace = 1.7
    assert measure_throughput(network, IMAGE, options(), clock).images_per_second == pytest.approx(quick)
    clock.pace, clock.drift = 1.0, 1.001  # with every pass
    assert measure_throughput(network, IMAGE, options(), clock).images_per_second == pytest.approx(quick, rel=1e-2)


def test_a_network_that_is_disturbed_has_not_settled(clock):
    network = Timed(clock, itertools.cycle([0.010, 0.020]))
    speed = measure_throughput(network, IMAGE, options(block_seconds=1e-9), clock)
    assert not speed.settled
    assert (speed.low, speed.high) == pytest.approx((10 / 0.020, 10 / 0.010))
    assert speed.blocks > 50


def test_a_figure_that_has_settled_ends_before_its_time(clock):
    began = clock()
    speed = measure_throughput(Timed(clock, itertools.repeat(0.010)), IMAGE, options(max_seconds=60), clock)
    assert speed.settled
    assert 10 < clock() - began < 30


class Answering(nn.Module):
    """One image in ten passes takes long."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.singles = clock, itertools.cycle([0.010] * 9 + [0.090])

    def forward(self, images: Tensor) -> Tensor:
        self.clock.take(next(self.singles) if len(images) == 1 else 0.5)
        return images


def test_latency_has_its_own_percentiles(clock):
    speed = measure_throughput(Answering(clock), IMAGE, options(max_seconds=30), clock)
    assert (speed.latency_ms, speed.latency_p99_ms) == pytest.approx((10, 90))
    assert speed.images_per_second == pytest.approx(20)


@pytest.mark.parametrize(
    ("passes", "known"), [(1, (False, False)), (9, (False, False)), (10, (True, False)), (99, (True, False))]
)
def test_few_passes_tell_no_slowest_of_ten_or_of_a_hundred(clock, monkeypatch, passes, known):
    def latencies(most):
        monkeypatch.setattr(turn, "_LATENCIES", most)
        return measure_throughput(Answering(clock), IMAGE, options(max_seconds=30), clock)

    found = latencies(passes)
    assert found.latency_ms == pytest.approx(10)
    assert (found.latency_p90_ms is not None, found.latency_p99_ms is not None) == known
    assert latencies(100).latency_p99_ms == pytest.approx(90)


def test_time_that_is_up_ends_the_measurement_after_at_least_one_block(clock):
    speed = measure_throughput(Timed(clock, itertools.repeat(9.0)), IMAGE, options(warmup=9, max_seconds=5), clock)
    assert (speed.blocks, speed.settled) == (1, False)


class Saturating(nn.Module):
    """A pass costs as much as `most` images at least; more than `room` do not fit."""

    def __init__(self, clock: "Clock", most: int, room: int = 10**9) -> None:
        super().__init__()
        self.clock, self.most, self.room = clock, most, room

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.clock.take(1e-4 * max(self.most, len(images)))
        return images


@pytest.mark.parametrize(
    ("most", "room", "batch_size"), [(64, 10**9, 64), (300, 10**9, 512), (1, 10**9, 8), (999, 100, 64)]
)
def test_automatic_batch_size_is_the_fastest_that_fits(clock, most, room, batch_size):
    speed = measure_throughput(Saturating(clock, most, room), IMAGE, options(batch_size="auto"), clock)
    assert speed.batch_size == batch_size
    assert speed.images_per_second == pytest.approx(batch_size / 1e-4 / max(most, batch_size))


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
        measure_throughput(network, IMAGE, options(**QUICK))
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
    speed = measure_throughput(network, IMAGE, options(precision=precision, **QUICK))
    assert network.seen == {(dtype, True, False)}
    assert speed.precision == precision
    assert speed.images_per_second > 0


def test_a_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="must have weights to be timed, got one on the meta device; build it on the"):
        measure_throughput(nn.Linear(2, 2, device="meta"), IMAGE, options())


def test_the_whole_cost():
    cost = measure_cost(nn.Linear(2, 3), IMAGE, options(batch_size=2, **QUICK), timed=True)
    assert (cost.params, cost.macs, cost.memory_bytes) == (9, 12, 4 * (9 + 8 + 12))
    assert cost.throughput is not None
    assert cost.throughput.device == device_name(torch.device("cpu"))


class Played:
    """Plays the launches of a GPU: a captured pass takes half of its time, those of `uncaptured` batches are called."""

    def __init__(self, clock: Clock, uncaptured=()) -> None:
        self.clock, self.uncaptured, self.captured, self.pools = clock, uncaptured, [], set()

    def __call__(self, action, device, pool):
        before = self.clock()
        action()
        seconds, images = self.clock() - before, len(action.args[0])
        self.pools.add(pool)
        if images in self.uncaptured:
            return action
        self.captured.append(images)
        return partial(self.clock.take, seconds / 2)


@pytest.fixture
def played(clock, monkeypatch):
    """Takes this processor for a GPU as far as launching goes."""

    def play(uncaptured=()):
        launches = Played(clock, uncaptured)
        monkeypatch.setattr(turn, "at_once", launches)
        monkeypatch.setattr(turn, "resolve_dispatch", lambda name, device: resolve_dispatch(name, torch.device("cuda")))
        return launches

    return play


def test_what_is_timed_on_a_gpu_is_what_was_captured(clock, played):
    launches = played()
    network = Timed(clock, itertools.repeat(0.010), per_image=0.001)
    speed = measure_throughput(network, IMAGE, options(), clock)
    assert speed.dispatch == "graph"
    assert speed.images_per_second == pytest.approx(10 / 0.010)
    assert (speed.latency_ms, speed.latency_p90_ms) == pytest.approx((5.5, 5.5))
    assert launches.captured == network.batches == [10, 1], "no pass but those that were captured"


def test_a_pass_that_cannot_be_captured_is_called_and_says_so(clock, played):
    played(uncaptured=(1, 10))
    network = Timed(clock, itertools.repeat(0.010), per_image=0.001)
    speed = measure_throughput(network, IMAGE, options(dispatch="graph"), clock)
    assert speed.dispatch == "eager"
    assert speed.images_per_second == pytest.approx(10 / 0.020)
    assert speed.latency_ms == pytest.approx(11)


def test_an_eager_protocol_captures_nothing(clock, played):
    launches = played()
    speed = measure_throughput(Timed(clock, itertools.repeat(0.010)), IMAGE, options(dispatch="eager"), clock)
    assert (speed.dispatch, launches.captured) == ("eager", [])


def test_what_was_compiled_is_captured_as_well(clock, played, monkeypatch):
    compiled = Timed(clock, itertools.repeat(0.006))
    monkeypatch.setattr("torch.compile", lambda network, dynamic: compiled)
    launches = played()
    speed = measure_throughput(Timed(clock, itertools.repeat(9.0)), IMAGE, options(dispatch="compiled"), clock)
    assert (speed.dispatch, launches.captured) == ("compiled", [10, 1])
    assert speed.images_per_second == pytest.approx(10 / 0.003)


def test_automatic_batch_sizes_are_tried_as_they_are_launched(clock, played):
    launches = played()
    speed = measure_throughput(Saturating(clock, 64), IMAGE, options(batch_size="auto"), clock)
    assert (speed.batch_size, speed.dispatch) == (64, "graph")
    assert launches.captured == [8, 16, 32, 64, 128, 256, 64, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_timed_and_the_network_comes_home():
    network = nn.Conv2d(3, 8, 3)
    speed = measure_throughput(network, (3, 64, 64), options(device="cuda", precision="auto"))
    assert network.weight.device.type == "cpu"
    assert speed.memory_bytes is not None
    assert speed.memory_bytes > 4 * 10 * 3 * 64 * 64
    assert speed.device == torch.cuda.get_device_name()


def locked(folder: Path) -> bool:
    """Whether another process would have to wait; a lock belongs to the open file, so this one can ask."""
    (path,) = folder.glob("explore-device-*.lock")
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def test_strangers_who_come_while_it_is_timed_are_named(clock, monkeypatch):
    there = iter([["a (1)", "b (2)"], ["b (2)", "c (3)"]])
    monkeypatch.setattr(turn, "strangers", lambda device: next(there))
    speed = measure_throughput(Timed(clock, itertools.repeat(0.010)), IMAGE, options(), clock)
    assert speed.strangers == ("a (1)", "b (2)", "c (3)")


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
    measure_throughput(network, IMAGE, options(**QUICK))
    assert set(network.seen) == {True}


def test_others_compute_while_a_network_is_compiled_and_captured(own_lock, clock, played, monkeypatch):
    launches, compiled, seen = played(), Timed(clock, itertools.repeat(0.010)), []
    compiled.register_forward_pre_hook(lambda *given: seen.append(locked(own_lock)))
    monkeypatch.setattr("torch.compile", lambda network, dynamic: compiled)
    measure_throughput(Timed(clock, itertools.repeat(9.0)), IMAGE, options(dispatch="compiled"), clock)
    assert launches.captured == [10, 1]
    assert seen == [False] * 4, "for two batches; what is timed is what was captured"
