"""What an architecture is: the options a person sets (`Model`), resolved and checked (`Architecture`).

An architecture is a stem, stages and a head. A stage is `depth` blocks of (token mixing, channel mixing) at one width;
one stage makes an isotropic network such as the MLP-Mixer, several with a downsample by two between them a pyramid.
Nothing here needs torch: what can be refused by arithmetic is refused before anything is built. Rules of a single
mixing (heads divide the width, ...) belong to the mixing and appear in `network.check`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from explore.architecture.catalog import Mixing, one_of

POOLINGS = ("mean", "class_token")
POSITIONS = ("auto", "none", "learned")


@dataclass(kw_only=True)
class Model:
    """The options of the group `model`.

    `patch_size`: side of a patch in pixels; must divide the image side.
    `depth`, `width`: number of blocks and of channels; in a pyramid, of each stage that does not say otherwise.
    `stages`: empty for one stage; otherwise a mapping for each stage with any of the keys depth, width, token_mixing,
        channel_mixing (a name, or a mapping with a name and options); a missing key takes the model's own value.
        Between stages the grid of patches is halved in height and width.
    `layer_scale`: initial value of a learned factor per channel on every residual branch; null for none.
    `drop_path`: stochastic depth, the probability that an image skips a branch of the last block in training; it grows
        linearly from 0 at the first block.
    `pooling`: `mean` over the patches, or a learned `class_token` that attends to them.
    `positions`: `learned` adds a learned vector per patch, `none` does not, `auto` does so when the token mixing of the
        first stage cannot tell the patches apart by itself.
    """

    patch_size: int = 4
    depth: int = 4
    width: int = 64
    stages: list[Any] = field(default_factory=list)
    layer_scale: float | None = None
    drop_path: float = 0.0
    pooling: str = "mean"
    positions: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`depth` equal blocks of `width` channels."""

    depth: int
    width: int
    token_mixing: Mixing
    channel_mixing: Mixing


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that decides the network: `image_size` (pixels, square), input channels, classes, and the model."""

    image_size: int
    channels: int
    classes: int
    patch_size: int
    stages: tuple[Stage, ...]
    layer_scale: float | None
    drop_path: float
    pooling: str
    positions: str


def architecture(
    model: Model, token_mixing: Mixing, channel_mixing: Mixing, *, image_size: int, channels: int, classes: int
) -> Architecture:
    """Resolves the options of a model for square images of `image_size` pixels.

    Raises `ValueError` for a size that is not positive, a patch size that does not divide the image, an odd grid before
    a downsample, an unknown key, pooling or position encoding, and a class token in a pyramid.
    """
    sizes = {"image_size": image_size, "channels": channels, "classes": classes, "patch_size": model.patch_size}
    for name, size in sizes.items():
        _positive(name, size)
    given = model.stages or [{}]
    stages = tuple(_stage(index, one, model, token_mixing, channel_mixing) for index, one in enumerate(given))
    _check_grid(image_size, model.patch_size, len(stages))
    _check_rest(model, len(stages))
    return Architecture(
        **sizes,
        stages=stages,
        layer_scale=model.layer_scale,
        drop_path=model.drop_path,
        pooling=model.pooling,
        positions=model.positions,
    )


def patch_sizes(image_size: int, stages: int = 1) -> list[int]:
    """The patch sizes that divide the image and leave an even grid before each of the `stages - 1` downsamples."""
    return [size for size in range(1, image_size + 1) if image_size % (size * 2 ** (stages - 1)) == 0]


def _stage(index: int, given: Any, model: Model, token_mixing: Mixing, channel_mixing: Mixing) -> Stage:
    where = f"model.stages[{index}]"
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a mapping, got {given!r}; try {{depth: 2, width: 64}}")
    for key in given:
        one_of(f"a key of {where}", key, Stage.__dataclass_fields__)
    depth, width = given.get("depth", model.depth), given.get("width", model.width)
    _positive(f"{where}.depth" if "depth" in given else "depth", depth)
    _positive(f"{where}.width" if "width" in given else "width", width)
    return Stage(
        depth=depth,
        width=width,
        token_mixing=Mixing.of(given["token_mixing"]) if "token_mixing" in given else token_mixing,
        channel_mixing=Mixing.of(given["channel_mixing"]) if "channel_mixing" in given else channel_mixing,
    )


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _check_grid(image_size: int, patch_size: int, stages: int) -> None:
    if image_size % patch_size:
        allowed = ", ".join(map(str, patch_sizes(image_size)))
        raise ValueError(f"patch_size must divide image_size, got {patch_size} and {image_size}; try {allowed}")
    side = image_size // patch_size
    for stage in range(2, stages + 1):
        if side % 2:
            allowed = ", ".join(map(str, patch_sizes(image_size, stages)))
            advice = f"try patch_size {allowed}" if allowed else "use fewer stages or another image_size"
            raise ValueError(
                f"the grid must be even before each downsample, got {side} × {side} patches before stage {stage} "
                f"of {stages} (image_size {image_size}, patch_size {patch_size}); {advice}"
            )
        side //= 2


def _check_rest(model: Model, stages: int) -> None:
    one_of("pooling", model.pooling, POOLINGS)
    one_of("positions", model.positions, POSITIONS)
    if not 0 <= model.drop_path < 1:
        raise ValueError(f"drop_path must be at least 0 and below 1, got {model.drop_path}")
    if model.layer_scale is not None and not model.layer_scale > 0:
        raise ValueError(f"layer_scale must be above 0, or null for none, got {model.layer_scale}")
    if model.pooling == "class_token" and stages > 1:
        raise ValueError(f"pooling=class_token needs a single stage, got {stages}; use pooling=mean")
