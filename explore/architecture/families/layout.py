"""How the checkpoints of one publisher name their tensors.

A table maps names of this package to those in the file. A name on the left is a module of the network, of a block or of
a downsample, or one of its tensors; on the right these words are filled in, `{stage-1}` and the like with a number
added or taken away:

- `{index}`: number of the block in the whole network,
- `{blocks}`: number of blocks of the whole network,
- `{stage}`, `{block}`: number of the stage, and of the block in it; of a downsample, of the stage behind it,
- `{place}`: place of the stage in a list that holds the downsamples, too, each in front of its stage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

Converter = Callable[[Tensor, nn.Module], Tensor]


@dataclass(frozen=True)
class Source:
    """Where a tensor comes from: its name in the file, and what has to be done to it besides another shape.

    `convert` gets the tensor and the module of this package that it is for.
    """

    name: str
    convert: Converter | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names in one kind of checkpoint.

    `outside` are the modules around the blocks. `channels_last` says that kernels are stored as Flax does, inputs
    before outputs. `unused` are the ends of names of tensors that hold nothing learned.
    """

    outside: Mapping[str, str | Source]
    block: Mapping[str, str | Source]
    downsample: Mapping[str, str | Source] = field(default_factory=dict)
    channels_last: bool = False
    unused: tuple[str, ...] = ()


def under(prefix: str, table: Mapping[str, str | Source]) -> dict[str, str | Source]:
    """The table with `prefix` in front of every name in the file."""
    return {
        ours: prefix + theirs if isinstance(theirs, str) else Source(prefix + theirs.name, theirs.convert)
        for ours, theirs in table.items()
    }
