"""Networks timed side by side: the blocks of all in turn, so that a busy machine slows all of them alike."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from explore.cost.device import autocast, exclusive, resolve_device, resolve_precision
from explore.cost.options import Measuring
from explore.cost.timing import CLOCK, Clock, Speed, ready, seconds_in_turn, synchronizer, threads
from explore.cost.training_step import training_step

# Behind torch's own limits a network would silently run eagerly; each network is another program for the same code.
_PROGRAMS = 100_000


def compare_throughput(
    networks: Mapping[str, nn.Module],
    image_shape: tuple[int, int, int],
    options: Measuring,
    report: Callable[[str], None],
    clock: Clock = CLOCK,
) -> tuple[dict[str, Speed], dict[str, str]]:
    """Speeds of inference by name, and reasons by the names of those that cannot be compiled.

    As `measure_throughput` with the same options, but with the blocks of all networks in turn; all lie on the device
    at the same time. `report` is told what goes on.

    Raises:
        ValueError: the device or precision does not exist here, or a network lies on the meta device.
    """
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    with ExitStack() as stack:
        stack.enter_context(exclusive(device))
        stack.enter_context(threads(options.threads))
        # Moved in inference mode, weights could not be trained any more.
        for network in networks.values():
            stack.enter_context(ready(network, device))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(autocast(device, precision))
        images = torch.rand(options.batch_size, *image_shape, device=device)
        failures: dict[str, str] = {}
        forwards: Mapping[str, Callable[[Tensor], Tensor]] = networks
        if options.dispatch == "compiled":
            forwards, failures = _compiled(networks, images, report)
        report(f"timing {len(forwards)} networks in turn, {options.dispatch}")
        passes = {name: partial(forward, images) for name, forward in forwards.items()}
        seconds = seconds_in_turn(passes, synchronizer(device), options, clock)
    return {name: Speed.of(each, options.batch_size) for name, each in seconds.items()}, failures


def compare_training_steps(
    networks: Mapping[str, nn.Module],
    image_shape: tuple[int, int, int],
    options: Measuring,
    report: Callable[[str], None],
    clock: Clock = CLOCK,
) -> dict[str, Speed]:
    """Speeds of training by name: as `measure_training_step`, but with the blocks of all networks in turn.

    Raises:
        ValueError: the device or precision does not exist here, or a network lies on the meta device.
    """
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    with exclusive(device), threads(options.threads):
        images = torch.rand(options.batch_size, *image_shape, device=device)
        steps = {name: training_step(network, images, precision) for name, network in networks.items()}
        report(f"timing training steps of {len(steps)} networks in turn")
        seconds = seconds_in_turn(steps, synchronizer(device), options, clock)
    return {name: Speed.of(each, options.batch_size) for name, each in seconds.items()}


def _compiled(
    networks: Mapping[str, nn.Module], images: Tensor, report: Callable[[str], None]
) -> tuple[dict[str, Callable[[Tensor], Tensor]], dict[str, str]]:
    """Every network compiled for these images, and the reasons of those that cannot be."""
    torch.compiler.reset()
    compiled: dict[str, Callable[[Tensor], Tensor]] = {}
    failures: dict[str, str] = {}
    limits = {"recompile_limit": _PROGRAMS, "accumulated_recompile_limit": _PROGRAMS}
    with torch._dynamo.config.patch(limits):
        for number, (name, network) in enumerate(networks.items(), start=1):
            report(f"compiling {name}, {number} of {len(networks)}")
            forward: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False)
            try:
                forward(images)
            except RuntimeError as error:  # of torch's compiler or the one that it calls
                failures[name] = str(error).strip().partition("\n")[0]
            else:
                compiled[name] = forward
    return compiled, failures
