"""Official checkpoints: their tensors, renamed and reshaped by a table of `layouts`, become those of a network.

Nothing is guessed: every tensor of the network must be in the file with the right shape, and the other way round. Two
adaptations are made, which a person asks for by building the network so: a head for another number of classes starts
anew, and token-mixing MLPs for K × K times as many patches become block-diagonal (MLP-Mixer, arXiv 2105.01601, appendix
on fine-tuning at higher resolution).
"""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from explore.architecture.families.layout import Converter, Layout, Source
from explore.architecture.layouts import LAYOUTS
from explore.architecture.network import Network
from explore.architecture.spec import Architecture
from explore.architecture.token_mixing.mlp import TokenMlp

_CONTAINERS = ("state_dict", "model", "model_state", "params")  # keys under which files nest their tensors
_PREFIXES = ("module.", "network.")  # in front of all names: of several processes that trained, and of our own trainer
_OWN = "explore"  # the layout of our own networks
_SHOWN = 5  # names in one message


@dataclass(frozen=True)
class Loaded:
    """What was done: the layout of the file, and the tensors that were enlarged or that start anew."""

    layout: str
    enlarged: tuple[str, ...]
    fresh: tuple[str, ...]

    @property
    def words(self) -> str:
        """The same for people."""
        what = ((self.fresh, "start anew"), (self.enlarged, "become block-diagonal, for more patches"))
        changed = "; ".join(f"{_list(names)} {words}" for names, words in what if names)
        return f"the layout is {self.layout}; {changed or 'all tensors are taken as they are'}"


def names(network: Network, layout: Layout) -> dict[str, str]:
    """The name in the checkpoint of every tensor of the network; raises `ValueError` for one the table lacks."""
    return {ours: source.name for ours, source in _sources(network, layout).items()}


def load_pretrained(network: Network, path: Path) -> Loaded:
    """Copies the weights of an official checkpoint (.npz, or a file of torch.save) into a network, before `deployed`.

    Raises `ValueError` for a file that cannot be read, a layout that is not known, and every tensor that is missing,
    left over or of another shape; the network is unchanged then.
    """
    tensors, loaded = _fitted(network, path)
    network.load_state_dict(tensors, strict=False)
    return loaded


def check_pretrained(architecture: Architecture, path: Path) -> Loaded:
    """What `load_pretrained` would do to the network of an architecture, or raise; costs no network."""
    with torch.device("meta"):
        network = Network(architecture)
    return _fitted(network, path)[1]


def _fitted(network: Network, path: Path) -> tuple[dict[str, Tensor], Loaded]:
    """The tensors for the network, in its names and shapes."""
    given = _read(path)
    name, sources = _recognised(network, given, path)
    layout, own = LAYOUTS.get(name), network.state_dict()
    expected = {source.name for source in sources.values()}
    unused = ("num_batches_tracked", *(layout.unused if layout else ()))
    if leftover := sorted(key for key in set(given) - expected if not key.endswith(unused)):
        raise ValueError(
            f"{path.name} must fit the network, got tensors it has no place for: {_list(leftover)}; "
            "try the model= of this checkpoint"
        )
    tensors, enlarged, fresh = {}, [], []
    for ours, source in sources.items():
        tensor = given[source.name]
        if source.convert:
            tensor = _converted(source.convert, tensor, network.get_submodule(ours.rpartition(".")[0]))
        if layout:
            tensor = _shaped(ours, tensor, own[ours], layout)
        if tensor.shape != own[ours].shape and ours.startswith("head."):
            fresh.append(ours)
            continue
        if tensor.shape != own[ours].shape and (larger := _enlarge(network, ours, tensor)) is not None:
            enlarged.append(ours)
            tensor = larger
        if tensor.shape != own[ours].shape:
            raise ValueError(_wrong_shape(path, ours, source.name, tensor, own[ours]))
        tensors[ours] = tensor.to(own[ours].dtype)
    return tensors, Loaded(name, tuple(enlarged), tuple(fresh))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".npz":
            with path.open("rb") as stream, np.load(stream) as file:
                return {key: torch.from_numpy(np.array(file[key])) for key in file.files}
        with torch.serialization.safe_globals([Namespace]):  # the options of a training run, in many official files
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every format has its own ways to fail, and torch's words advise to run what is inside
        reason = str(error) if isinstance(error, OSError) else f"it cannot be read as one ({type(error).__name__})"
        raise ValueError(f"pretrained must be a checkpoint (.npz, .pth), got {path}: {reason}") from error
    while isinstance(content, Mapping) and (key := next((one for one in _CONTAINERS if one in content), None)):
        content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(one, Tensor) for key, one in content.items()
    ):
        raise ValueError(f"pretrained must hold named tensors, got {type(content).__name__} in {path}")
    prefix = next((one for one in _PREFIXES if all(key.startswith(one) for key in content)), "")
    return {key.removeprefix(prefix): tensor for key, tensor in content.items()}


def _recognised(network: Network, given: Mapping[str, Tensor], path: Path) -> tuple[str, dict[str, Source]]:
    """The layout that names most tensors of the file, and where in it, which has them all, each tensor is."""
    candidates = {_OWN: {key: Source(key) for key in network.state_dict()}}
    for name, layout in LAYOUTS.items():
        try:
            candidates[name] = _sources(network, layout)
        except ValueError:
            continue  # of another kind of network
    expected = {name: {source.name for source in sources.values()} for name, sources in candidates.items()}
    name = max(expected, key=lambda one: len(expected[one] & set(given)))
    missing = sorted(expected[name] - set(given))
    if len(missing) > len(expected[name]) / 2:
        raise ValueError(
            f"{path.name} must have the layout of one of {', '.join(sorted(candidates))} for this network, got tensors "
            f"such as {_list(sorted(given))}; try the model= of this checkpoint"
        )
    if missing:
        raise ValueError(
            f"{path.name} must have every tensor of the network, got none named {_list(missing)}; "
            "try the model= of this checkpoint"
        )
    return name, candidates[name]


def _sources(network: Network, layout: Layout) -> dict[str, Source]:
    """Where every tensor of the network comes from; raises `ValueError` for one the table lacks."""
    found, lacking = {}, []
    places = _places(network)
    for ours in network.state_dict():
        if ours.endswith("num_batches_tracked"):
            continue
        if source := _source(ours, layout, places):
            found[ours] = source
        else:
            lacking.append(ours)
    if lacking:
        raise ValueError(f"the layout must name every tensor of the network, got none for {_list(lacking)}")
    return found


class _Place(NamedTuple):
    """Where a stage is: whether it begins with a downsample, its place, the number of blocks before it, and in all."""

    downsample: bool
    place: int
    before: int
    blocks: int


def _places(network: Network) -> list[_Place]:
    stages = [stage for stage in network.stages if isinstance(stage, nn.Sequential)]
    downsamples = [isinstance(stage[0], nn.Sequential) for stage in stages]
    depths = [len(stage) - downsample for stage, downsample in zip(stages, downsamples, strict=True)]
    return [
        _Place(downsample, index + sum(downsamples[: index + 1]), sum(depths[:index]), sum(depths))
        for index, downsample in enumerate(downsamples)
    ]


def _source(ours: str, layout: Layout, places: list[_Place]) -> Source | None:
    inside = re.fullmatch(r"stages\.(\d+)\.(\d+)\.(.+)", ours)
    if not inside:
        return _looked_up(layout.outside, ours, {"blocks": places[0].blocks})
    stage, position = int(inside[1]), int(inside[2])
    downsample, place, before, blocks = places[stage]
    words = {"stage": stage, "place": place, "blocks": blocks}
    if downsample and position == 0:
        return _looked_up(layout.downsample, inside[3], words)
    block = position - downsample
    return _looked_up(layout.block, inside[3], {**words, "block": block, "index": before + block})


def _looked_up(table: Mapping[str, str | Source], name: str, words: Mapping[str, int]) -> Source | None:
    """The entry for a tensor, or for the module that it belongs to, with the words filled in."""
    module, _, tensor = name.rpartition(".")
    entry, ending = (table[name], "") if name in table else (table.get(module), f".{tensor}")
    if entry is None:
        return None
    theirs, convert = (entry, None) if isinstance(entry, str) else (entry.name, entry.convert)
    filled = re.sub(r"\{(\w+)([+-]\d+)?\}", lambda found: str(words[found[1]] + int(found[2] or 0)), theirs)
    return Source(filled + ending, convert)


def _converted(convert: Converter, tensor: Tensor, module: nn.Module) -> Tensor:
    try:
        return convert(tensor, module)
    except RuntimeError:  # not of the shape that it converts, which is refused later
        return tensor


def _shaped(ours: str, tensor: Tensor, target: Tensor, layout: Layout) -> Tensor:
    """The tensor in the order of axes that it has here, and in the shape where that can follow from the names."""
    if layout.channels_last:
        tensor = tensor.permute(-1, -2, *range(tensor.ndim - 2)) if tensor.ndim == 4 else tensor.squeeze()
        tensor = tensor.t() if tensor.ndim == 2 else tensor
    if _without_ones(tensor) == _without_ones(target):
        return tensor.reshape(target.shape)
    if tensor.ndim == 4 and target.ndim == 2:
        # The stem takes the pixels of a patch channel by channel, a downsample its four patches one by one.
        return (tensor.permute(0, 2, 3, 1) if ours.startswith("stages.") else tensor).flatten(1)
    return tensor


def _without_ones(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size > 1]


def _enlarge(network: Network, ours: str, tensor: Tensor) -> Tensor | None:
    """The block-diagonal form of a tensor of a token-mixing MLP; None where the shapes do not allow one."""
    module, _, which = ours.rpartition(".mixing.")
    mixing = network.get_submodule(f"{module}.mixing") if module else None
    target = network.state_dict()[ours]
    if not isinstance(mixing, TokenMlp) or tensor.ndim != target.ndim or not tensor.numel():
        return None
    side = isqrt(mixing.expand.in_features)
    tokens_axis = {"expand.weight": 1, "contract.weight": 0, "contract.bias": 0}.get(which)
    tiles = target.numel() / tensor.numel() if tensor.ndim == 1 else target.shape[0] / tensor.shape[0]
    factor = isqrt(round(tiles))
    if (
        factor**2 != tiles
        or factor < 2
        or side % factor
        or any(new != factor**2 * old for new, old in zip(target.shape, tensor.shape, strict=True))
    ):
        return None
    if tokens_axis is None:
        return tensor.repeat(factor**2)
    result = torch.zeros(target.shape)
    for tile, places in enumerate(_tiles(side, factor)):
        if tensor.ndim == 1:
            result[places] = tensor
            continue
        hidden = torch.arange(tile * tensor.shape[1 - tokens_axis], (tile + 1) * tensor.shape[1 - tokens_axis])
        rows, columns = (hidden, places) if tokens_axis else (places, hidden)
        result[rows.unsqueeze(1), columns] = tensor
    return result


def _tiles(side: int, factor: int) -> list[Tensor]:
    """The tokens of each of `factor` × `factor` equal squares of a `side` × `side` grid, row by row."""
    inner = side // factor
    grid = torch.arange(side**2).reshape(factor, inner, factor, inner).transpose(1, 2)
    return list(grid.reshape(factor**2, inner**2))


def _wrong_shape(path: Path, ours: str, theirs: str, tensor: Tensor, target: Tensor) -> str:
    shapes = " and ".join(" × ".join(map(str, one.shape)) for one in (target, tensor))
    advice = "model=, data.image_size or channels of this checkpoint"
    if ".token.mixing." in ours:
        advice += "; for K times the image side, K² times the token_mixing.expansion"
    return f"{path.name}: {theirs} must have the shape of {ours}, got {shapes}; try the {advice}"


def _list(of: Sequence[str]) -> str:
    more = f" and {len(of) - _SHOWN} more" if len(of) > _SHOWN else ""
    return ", ".join(of[:_SHOWN]) + more
