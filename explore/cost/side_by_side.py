"""Networks timed side by side: the blocks of all in turn, so that a busy machine slows all of them alike."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from explore.cost.device import autocast, float32_is_meant
from explore.cost.options import Measuring
from explore.cost.session import session
from explore.cost.timing import Clock
from explore.cost.training_step import training_step
from explore.cost.turns import Turns
from explore.counted import counted

# Behind torch's own limits a network would silently run eagerly; each network is another program for the same code.
_PROGRAMS = 100_000
_UNCAPTURED = "a pass waits for the GPU, or memory is short"


def compare_throughput(
    networks: Mapping[str, nn.Module],
    image_shape: tuple[int, int, int],
    options: Measuring,
    report: Callable[[str], None],
    clock: Clock | None = None,
    batch_sizes: Mapping[str, int] | None = None,
    pixels: bool = False,
    study: Path | None = None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of a pass in each turn by name, and reasons by the names of those that cannot be launched like that.

    What cannot be compiled has no seconds; what cannot be captured as a graph has those of `eager`.

    As `measure_throughput` with the same options, but with the blocks of all networks in turn, so that the values of
    one turn belong together; all networks lie on the device at the same time. `report` is told what goes on, and of
    processes of others on the GPU; `batch_sizes` are those of all networks, where not all have that of the options.
    With `pixels` the networks take images as they are stored, uint8 from 0 to 255. `study` is as for `session`.

    Raises:
        ValueError: the device, precision or dispatch does not exist here, or a network lies on the meta device.
    """
    with ExitStack() as stack:
        here = stack.enter_context(session(options, networks.values(), clock, study))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(autocast(here.device, here.precision))
        sizes = batch_sizes or dict.fromkeys(networks, options.images)
        batches = {size: _images((size, *image_shape), here.device, pixels) for size in set(sizes.values())}
        images = {name: batches[size] for name, size in sizes.items()}
        failures: dict[str, str] = {}
        forwards: Mapping[str, Callable[[Tensor], Tensor]] = networks
        if here.dispatch == "compiled":
            forwards, failures = _compiled(networks, images, here.turns, report)
        ready_passes = {name: here.ready_pass(forward, images[name]) for name, forward in forwards.items()}
        failures |= {name: _UNCAPTURED for name, (_, how) in ready_passes.items() if how != here.dispatch}
        passes = {name: one for name, (one, _) in ready_passes.items()}
        if not passes:
            return {}, failures
        report(f"timing {counted(len(passes), 'network')} in turn, {here.dispatch}")
        with here.alone() as turn:
            seconds = turn.time(passes, options.max_seconds)
        if others := here.strangers():
            report(f"not alone: {', '.join(others)} used the GPU meanwhile")
        return seconds, failures


def _images(shape: tuple[int, ...], device: torch.device, pixels: bool) -> Tensor:
    if pixels:
        return torch.randint(256, shape, dtype=torch.uint8, device=device)
    return torch.rand(shape, device=device)


def compare_training_steps(
    networks: Mapping[str, nn.Module],
    image_shape: tuple[int, int, int],
    options: Measuring,
    report: Callable[[str], None],
    clock: Clock | None = None,
) -> dict[str, list[float]]:
    """Seconds of a training step in each turn by name: steps of copies of the networks, launched operator by operator.

    Raises:
        ValueError: the device or precision does not exist here, or a network lies on the meta device.
    """
    with session(options, clock=clock) as here:
        images = torch.rand(options.images, *image_shape, device=here.device)
        steps = {name: training_step(network, images, here.precision) for name, network in networks.items()}
        report(f"timing training steps of {counted(len(steps), 'network')} in turn")
        with here.alone() as turn:
            return turn.time(steps, options.max_seconds)


def _compiled(
    networks: Mapping[str, nn.Module], images: Mapping[str, Tensor], turns: Turns, report: Callable[[str], None]
) -> tuple[dict[str, Callable[[Tensor], Tensor]], dict[str, str]]:
    """Every network compiled for its images, and the reasons of those that cannot be."""
    torch.compiler.reset()
    compiled: dict[str, Callable[[Tensor], Tensor]] = {}
    failures: dict[str, str] = {}
    limits = {"recompile_limit": _PROGRAMS, "accumulated_recompile_limit": _PROGRAMS}
    with torch._dynamo.config.patch(limits), float32_is_meant():
        for number, (name, network) in enumerate(networks.items(), start=1):
            report(f"compiling {name}, {number} of {len(networks)}")
            forward: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False)
            try:
                with turns.computing():
                    forward(images[name])
            except RuntimeError as error:  # of torch's compiler or the one that it calls
                failures[name] = str(error).strip().partition("\n")[0]
            else:
                compiled[name] = forward
    return compiled, failures
