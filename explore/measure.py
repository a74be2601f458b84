"""python -m explore.measure [KEY=VALUE ...]

Counts and times networks without training them: parameters, multiply-adds, memory, throughput and latency.

  python -m explore.measure model=mixer_b16
  python -m explore.measure token_mixing=attention model.depth=8 data=mnist
  python -m explore.measure model=vit_s16 throughput=off format=json
  python -m explore.measure token_mixing=attention model.depth=8 throughput=off study=pareto
  python -m explore.measure token_mixing=all
  python -m explore.measure model=all format=json

A published model is measured at its published size (224 pixels, 1,000 classes) unless data=... is given; other networks
for the images of data=.

One of these may be `all`:
  token_mixing=all       every token mixing in the same place, with its defaults: inference eager, on a GPU as a graph,
                         and compiled, and a training step, in turn, so that a busy machine slows all alike; the
                         fastest first. Compiling takes up to a minute for each: cost.dispatch=eager leaves it out. All
                         networks are in memory at the same time
  channel_mixing=all     the same for channel mixings
  model=all              the counts of every published network beside what its paper says: about two minutes; with
                         throughput=on their speed too, which takes much longer

Often set:
  throughput=off         count only
  study=NAME             with it, predict the speed from what a search has measured (storage.url, outputs as there)
  cost.batch_size=N      images in one pass (default: 256; 8 for a published model on a processor); auto finds the
                         number that is fastest, of one network
  cost.precision=NAME    auto, 32-true or bf16-mixed
  cost.device=NAME       auto, cpu, cuda or cuda:N
  cost.dispatch=NAME     auto, eager, graph or compiled (default: a graph, launched at once, on a GPU, else eager)
  cost.threads=N         threads that the processor computes with (default: 1)
  format=json            params, macs, throughput, latency_ms, memory_bytes, and the protocol
"""

import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from explore.command import Refused, print_json, refusing_bad_input, run
from explore.counted import counted

if TYPE_CHECKING:
    from explore.architecture.families.row import Published
    from explore.architecture.network import Network
    from explore.architecture.spec import Architecture
    from explore.cost.features import Features
    from explore.cost.record import Throughput
    from explore.schema import Config

ALL = ("model=all", "token_mixing=all", "channel_mixing=all")
_PUBLISHED_BATCH_ON_CPU = 8
# With one of these set, the network is not the published one any more.
_OF_THE_NETWORK = ("model.", "token_mixing", "channel_mixing", "data")


def own(word: str) -> bool:
    """Whether a word of the command line is for this command alone."""
    return word in ALL


def main(config: "Config", overrides: list[str]) -> int:
    """Measure one network, or all that a word of `ALL` among the overrides stands for, and print the cost."""
    from explore.cost_tables import print_network, print_published, print_variants

    every = [word for word in overrides if word in ALL]
    overrides = [override for override in overrides if override not in ALL]
    if config.pretrained:
        raise Refused(f"weights change no cost, got pretrained={config.pretrained}; leave it out")
    if len(set(every)) > 1:
        raise Refused(f"only one group can be all at a time, got {' and '.join(every)}; leave out one of them")
    group = every[0].partition("=")[0] if every else ""
    if group and config.study:
        raise Refused(f"study={config.study} predicts the speed of one network, got {every[0]}; leave one of them out")
    if group == "model":
        result, show = _every_published(config, overrides), print_published
    elif group:
        result, show = _every_variant(group, config, overrides), print_variants
    else:
        result, show = _one(config, overrides), print_network
    if config.format == "json":
        print_json(result)
    else:
        show(result)
    return 0


def _one(config: "Config", overrides: list[str]) -> dict[str, Any]:
    import torch

    from explore.architecture.network import Network, check
    from explore.comparison import count
    from explore.cost.memory import peak_memory
    from explore.cost.throughput import measure_throughput

    name, row = _published(overrides)
    with refusing_bad_input():
        architecture = _architecture(config, row, overrides)
        check(architecture)
        _settle_protocol(config, row, overrides)
        if not config.throughput:
            _ = config.cost.images
        elif config.study:
            raise ValueError(f"study={config.study} predicts a speed that is not measured; add throughput=off")
    with torch.device("cpu" if config.throughput else "meta"):
        network = Network(architecture)
    deployed, cost = network.deployed(), config.cost
    counts = count(network)
    throughput = measure_throughput(deployed, network.image_shape, cost) if config.throughput else None
    batch_size = throughput.batch_size if throughput else cost.images
    memory = peak_memory(deployed, network.image_shape, batch_size, precision=cost.precision)
    changed = any(override.lstrip("+").startswith(_OF_THE_NETWORK) for override in overrides)
    return {
        "name": name or "network",
        "image_size": architecture.image_size,
        "classes": architecture.classes,
        **asdict(counts),
        "flops": 2 * counts.macs,
        "memory_bytes": memory,
        **_speed(throughput),
        "predicted": _predicted(config, deployed, counts.deployed_macs) if config.study else None,
        "protocol": _protocol(config, throughput),
        "published": _figures(name) if row and not changed else None,
    }


def _predicted(config: "Config", deployed: "Network", macs: int) -> dict[str, Any]:
    """Throughput by the protocol of a study, from the latency model of what was measured there."""
    from explore.cost.trace import memory_and_features
    from explore.places import named_study
    from explore.search.predictability import predicted_speed

    def features_of(like: "Throughput") -> "Features":
        return memory_and_features(
            deployed, deployed.image_shape, like.batch_size, precision=like.precision, macs=macs
        )[1]

    with refusing_bad_input():
        found = predicted_speed(named_study(config).trials(), features_of)
    like = found.like
    return {
        "throughput": found.images_per_second,
        "study": config.study,
        "errors": asdict(found.errors),
        "beyond": list(found.beyond),
        "protocol": {
            "batch_size": like.batch_size,
            "precision": like.precision,
            "device": like.device,
            "threads": like.threads,
            "dispatch": like.dispatch,
            "torch_version": like.torch_version,
        },
    }


def _every_variant(group: str, config: "Config", overrides: list[str]) -> dict[str, Any]:
    from explore.architecture.network import check
    from explore.comparison import compare
    from explore.config import vary
    from explore.cost.device import dispatches, resolve_device
    from explore.schema import CATALOGS

    if options := [one for one in overrides if one.startswith(f"{group}.")]:
        raise Refused(f"{group}=all measures every variant with its defaults, got {options[0]}; leave it out")
    name, row = _published(overrides)
    with refusing_bad_input():
        first = _architecture(config, row, overrides)
        _settle_protocol(config, row, overrides)
        _ = config.cost.images
    architectures, refused = {}, []
    for variant in CATALOGS[group]:
        try:
            architectures[variant] = _architecture(vary(overrides, [f"{group}={variant}"]), row, overrides)
            check(architectures[variant])
        except ValueError as error:
            architectures.pop(variant, None)
            refused.append({"name": variant, "reason": str(error)})
    on_device = dispatches(resolve_device(config.cost.device))
    ways = (config.cost.dispatch,) if _given("cost.dispatch", overrides) else on_device
    with _Progress() as report:
        variants = compare(architectures, config.cost, ways if config.throughput else (), report)
    return {
        "group": group,
        "network": name or ", ".join(f"{counted(part.depth, 'block')} of width {part.width}" for part in first.stages),
        "image_size": first.image_size,
        "patch_size": first.patch_size,
        "classes": first.classes,
        "variants": [asdict(variant) for variant in variants],
        "refused": refused,
        "protocol": _protocol(config, None),
    }


def _every_published(config: "Config", overrides: list[str]) -> dict[str, Any]:
    from explore.architecture.network import Network
    from explore.architecture.published import PUBLISHED, published
    from explore.comparison import published_counts
    from explore.cost.throughput import measure_throughput

    if changed := [one for one in overrides if one.lstrip("+").startswith((*_OF_THE_NETWORK, "pretrained"))]:
        raise Refused(f"model=all measures published models as they are, got {changed[0]}; leave it out")
    with refusing_bad_input():
        _settle_protocol(config, next(iter(PUBLISHED.values())), overrides)
    timed = config.throughput and _given("throughput", overrides)
    networks = []
    with _Progress() as report:
        for number, counted in enumerate(published_counts(), start=1):
            name, speed = counted["name"], None
            report(f"{number} of {len(PUBLISHED)}: {name}")
            if timed:
                network = Network(published(name))
                speed = measure_throughput(network.deployed(), network.image_shape, config.cost)
            networks.append({**counted, **_speed(speed)})
    return {"networks": networks, "protocol": _protocol(config, None)}


def _published(overrides: list[str]) -> "tuple[str, Published | None]":
    from explore.architecture.published import PUBLISHED

    names = [override.partition("=")[2] for override in overrides if override.startswith("model=")]
    name = names[-1] if names else ""
    return name, PUBLISHED.get(name)


def _given(key: str, overrides: list[str]) -> bool:
    return any(override.startswith(f"{key}=") for override in overrides)


def _figures(name: str) -> dict[str, Any]:
    from explore.comparison import published_figures

    return published_figures(name)


def _architecture(config: "Config", row: "Published | None", overrides: list[str]) -> "Architecture":
    from explore.architecture.spec import architecture
    from explore.data.dataset import load

    if row and not any(override.startswith(("data=", "data.")) for override in overrides):
        candidate = config.candidate
        return architecture(
            candidate.model,
            candidate.token_mixing,
            candidate.channel_mixing,
            image_size=row.image_size,
            channels=3,
            classes=row.classes,
        )
    return config.candidate.architecture(load(config.data))


def _settle_protocol(config: "Config", row: "Published | None", overrides: list[str]) -> None:
    """Replace what the machine decides by what it decided."""
    from explore.cost.device import resolve_device, resolve_protocol

    config.cost = resolve_protocol(config.cost)
    if row and resolve_device(config.cost.device).type == "cpu" and not _given("cost.batch_size", overrides):
        config.cost = replace(config.cost, batch_size=_PUBLISHED_BATCH_ON_CPU)


def _speed(throughput: "Throughput | None") -> dict[str, Any]:
    return {
        "throughput": throughput.images_per_second if throughput else None,
        "throughput_low": throughput.low if throughput else None,
        "throughput_high": throughput.high if throughput else None,
        "settled": throughput.settled if throughput else None,
        "latency_ms": throughput.latency_ms if throughput else None,
        "latency_p90_ms": throughput.latency_p90_ms if throughput else None,
        "latency_p99_ms": throughput.latency_p99_ms if throughput else None,
    }


def _protocol(config: "Config", throughput: "Throughput | None") -> dict[str, Any]:
    import torch

    from explore.cost.device import device_name, driver_version, resolve_device

    cost, device = config.cost, resolve_device(config.cost.device)
    batch_size = throughput.batch_size if throughput else cost.batch_size
    protocol: dict[str, Any] = {"batch_size": batch_size, "precision": cost.precision}
    if config.throughput:
        protocol |= {"device": device_name(device), "driver": driver_version(device), "threads": cost.threads}
        protocol |= {"torch_version": str(torch.__version__), "interval": cost.interval}
        protocol |= {"warmup": cost.warmup, "block_seconds": cost.block_seconds, "max_seconds": cost.max_seconds}
    if throughput:
        protocol |= {"blocks": throughput.blocks, "dispatch": throughput.dispatch}
        protocol |= {"memory_bytes": throughput.memory_bytes, "reference_ms": throughput.reference_ms}
        protocol |= {"strangers": list(throughput.strangers)}
    return protocol


class _Progress:
    """One line of a terminal that says what goes on; silent elsewhere. No thread, which would disturb the timing."""

    def __enter__(self) -> "_Progress":
        return self

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *exception: object) -> None:
        self("")


if __name__ == "__main__":
    run(main, __doc__ or "", own=own)
