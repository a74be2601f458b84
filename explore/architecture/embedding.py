"""How patches become tokens: the stem, and the downsample between two stages.

Both gather pixels or patches, project them, and may put a norm and an activation around the projection. Without
overlap that is the patch embedding of ViT and the MLP-Mixer; with it, that of PoolFormer (Yu et al., 2022, arXiv
2111.11418) and its relatives, a convolution whose window reaches half-way into the neighbouring patches.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from explore.architecture.activations import ACTIVATIONS, activation
from explore.architecture.catalog import Grid, one_of
from explore.architecture.layers import as_image, as_tokens, lecun_uniform
from explore.architecture.spec import Embedding

PROJECTION, NORM = "projection", "norm"
_FACTOR = 2  # by which a downsample divides height and width of the grid


class Patches(nn.Module):
    """Cuts images into patches: batch × channels × height × width to batch × tokens × channels·size².

    With a linear layer behind it, the same map as a convolution with kernel and stride `size`, whose weight flattens to
    that of the layer, but as a matrix product, which every backend and cost counter handles alike.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        """Height and width are multiples of `size`; tokens are the patches row by row."""
        batch, channels, height, width = image.shape
        size = self.size
        patches = image.reshape(batch, channels, height // size, size, width // size, size)
        # batch, row, column, channels, size, size
        return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class Squares(nn.Module):
    """Joins each 2 × 2 patches into one: batch × tokens × width to batch × tokens/4 × 4·width.

    `grid` is the grid that comes in, even in both directions.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Tokens are the patches row by row, before and after."""
        rows, columns = self.grid
        squares = x.reshape(x.shape[0], rows // _FACTOR, _FACTOR, columns // _FACTOR, _FACTOR, -1)
        return squares.transpose(2, 3).flatten(3).flatten(1, 2)


class Overlapping(nn.Conv2d):
    """A convolution with the given stride whose window is twice as wide as the stride, less one, to tokens.

    Takes an image, or with `grid` the tokens of that grid.
    """

    def __init__(self, channels: int, stride: int, width: int, *, bias: bool, grid: Grid | None = None) -> None:
        super().__init__(channels, width, 2 * stride - 1, stride=stride, padding=stride // 2, bias=bias)
        self.grid = grid
        lecun_uniform(self)

    def forward(self, x: Tensor) -> Tensor:
        """Batch × channels × height × width, or batch × tokens × channels, to batch × tokens × width."""
        return as_tokens(super().forward(x if self.grid is None else as_image(x, self.grid)))


def stem(
    options: Embedding, channels: int, patch_size: int, width: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Images to tokens of `width` channels; raises `ValueError` for layers that cannot be."""
    if not options.overlap:
        inner = channels * patch_size**2
        linear = lecun_uniform(nn.Linear(inner, width, bias=options.bias))
        return _sequence("stem", options, {"patches": Patches(patch_size)}, linear, (inner, width), norm)
    if options.layers and options.layers[0] != PROJECTION:
        raise ValueError(f"model.stem.layers must begin with {PROJECTION} where patches overlap, got {options.layers}")
    convolution = Overlapping(channels, patch_size, width, bias=options.bias)
    return _sequence("stem", options, {}, convolution, (channels, width), norm)


def downsample(
    options: Embedding, grid: Grid, width: int, new_width: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Tokens of `grid` to those of a grid half as high and wide; raises `ValueError` for layers that cannot be."""
    if options.overlap:
        convolution = Overlapping(width, _FACTOR, new_width, bias=options.bias, grid=grid)
        return _sequence("downsample", options, {}, convolution, (width, new_width), norm)
    inner = _FACTOR**2 * width
    linear = lecun_uniform(nn.Linear(inner, new_width, bias=options.bias))
    return _sequence("downsample", options, {"squares": Squares(grid)}, linear, (inner, new_width), norm)


def _sequence(
    name: str,
    options: Embedding,
    gather: Mapping[str, nn.Module],
    projection: nn.Module,
    widths: tuple[int, int],
    norm: Callable[[int], nn.Module],
) -> nn.Sequential:
    """The layers in their order; `widths` are the channels before and behind the projection."""
    if options.layers.count(PROJECTION) != 1 or len(set(options.layers)) != len(options.layers):
        raise ValueError(
            f"model.{name}.layers must name {PROJECTION} once and no other twice, got {list(options.layers)}; "
            f"try [{PROJECTION}] or [{PROJECTION},{NORM}]"
        )
    layers = nn.Sequential(OrderedDict(gather))
    for key in options.layers:
        one_of(f"a layer of model.{name}", key, (PROJECTION, NORM, *ACTIVATIONS))
        if key == PROJECTION:
            layers.add_module(key, projection)
        elif key == NORM:
            layers.add_module(key, norm(widths[PROJECTION in dict(layers.named_children())]))
        else:
            layers.add_module(key, activation(key))
    return layers
