"""What an architecture is: the options a person sets (`Model`), resolved and checked (`Architecture`).

An architecture is a stem, stages and a head. A stage is `depth` blocks of (token mixing, channel mixing) at one width;
one stage makes an isotropic network such as the MLP-Mixer, several with a downsample by two between them a pyramid.
Nothing here needs torch: what can be refused by arithmetic is refused before anything is built. Rules of a single
mixing (heads divide the width, ...) belong to the mixing and appear in `network.check`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

from explore.architecture.catalog import Grid, Mixing, one_of

POOLINGS = ("mean", "class_token")
POSITIONS = ("auto", "none", "learned", "fixed")
SCHEDULES = ("linear", "uniform")
GELUS = ("erf", "tanh")
COMPILE = ("auto", "on", "off")
_RESOLVED = ("stages", "depth", "width")  # into the stages of an architecture


@dataclass(kw_only=True)
class Embedding:
    """How patches become tokens, in the stem or in a downsample.

    `overlap`: the window reaches half-way into the neighbouring patches (a convolution with kernel 2·stride - 1).
    `bias`: whether the projection has one.
    `layers`: what is done, in this order: `projection`, and perhaps `norm` (the model's) and an activation function.
    """

    overlap: bool = False
    bias: bool = True
    layers: list[str] = field(default_factory=lambda: ["projection"])


@dataclass(kw_only=True)
class Model:
    """The options of the group `model`.

    `patch_size`: side of a patch in pixels; must divide the image side.
    `depth`, `width`: number of blocks and of channels; in a pyramid, of each stage that does not say otherwise.
    `stages`: empty for one stage; otherwise a mapping for each stage with any of the keys depth, width, token_mixing,
        channel_mixing, downsample; a missing key takes the model's own value. A mixing is a name, or a mapping with a
        name and options; or a mapping from names to options, which apply where the model's own mixing has that name;
        or a list of these, taken in turn by the blocks of the stage. Before each stage but the first the grid of
        patches is halved in height and width, unless it says `downsample: false`.
    `block`: what surrounds the two mixings: pre_norm, post_norm, joint, convnext or convmixer (see `blocks`).
    `activation`: the activation function of the block convmixer; the other blocks have none of their own.
    `norm`, `norm_eps`: layer, rms, affine, batch or group (see `norms`), and what it adds to a variance.
    `final_norm`: the norm before the head; `auto` for the same as in the blocks, `none` for none.
    `norm_after_pooling`: whether that norm sees the pooled vector instead of the tokens.
    `gelu`: erf, or tanh for the approximation of the original Mixer; of every GELU in the network.
    `layer_scale`: initial value of a learned factor per channel on every residual branch; null for none.
    `drop_path`: stochastic depth, the probability that an image skips a branch in training.
    `drop_path_schedule`: `linear` for a probability that grows from 0 at the first block to `drop_path` at the last,
        `uniform` for the same at each.
    `pooling`: `mean` over the patches, or a learned `class_token` that attends to them.
    `positions`: `learned` adds a learned vector per patch, `fixed` a sinusoid, `none` nothing; `auto` learns them when
        the token mixing of the first stage cannot tell the patches apart by itself.
    `stem`, `downsample`: how patches become tokens at first, and between stages.
    `compile`: no part of the network itself: whether torch.compile makes its training faster. `auto`, where that pays
        within the run: never on a processor, on a GPU when the first steps promise it; else `on` or `off`.
    """

    patch_size: int = 4
    depth: int = 4
    width: int = 64
    stages: list[Any] = field(default_factory=list)
    block: str = "pre_norm"
    activation: str = "gelu"
    norm: str = "layer"
    norm_eps: float = 1e-6  # of Mixer and ViT
    final_norm: str = "auto"
    norm_after_pooling: bool = False
    gelu: str = "erf"
    layer_scale: float | None = None
    drop_path: float = 0.0
    drop_path_schedule: str = "linear"
    pooling: str = "mean"
    positions: str = "auto"
    stem: Embedding = field(default_factory=Embedding)
    downsample: Embedding = field(default_factory=Embedding)
    compile: str = "auto"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Reads a mapping of the fields that differ, `stem` and `downsample` as mappings in it."""
        inner = {key: Embedding(**given[key]) for key in ("stem", "downsample") if key in given}
        return cls(**{**given, **inner})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`depth` blocks of `width` channels, which take the mixings in turn; `downsample`: the grid is halved before."""

    depth: int
    width: int
    token_mixing: tuple[Mixing, ...]
    channel_mixing: tuple[Mixing, ...]
    downsample: bool


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that decides the network: `image_size` (pixels, square), input channels, classes, and the model.

    Of the model the stages are resolved: those of `model` itself are not to be read.
    """

    image_size: int
    channels: int
    classes: int
    stages: tuple[Stage, ...]
    model: Model

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.model.patch_size

    @property
    def in_evaluation(self) -> Self:
        """The same without what is of training alone: equal for networks that are the same in evaluation."""
        usual, apart = Model(), ("drop_path", "drop_path_schedule", "compile", *_RESOLVED)
        return replace(self, model=replace(self.model, **{name: getattr(usual, name) for name in apart}))

    def grids(self) -> list[Grid]:
        """The grid of patches in each stage."""
        side, found = self.image_size // self.patch_size, []
        for stage in self.stages:
            side //= 1 + stage.downsample
            found.append(Grid(side, side))
        return found


def architecture(
    model: Model, token_mixing: Mixing, channel_mixing: Mixing, *, image_size: int, channels: int, classes: int
) -> Architecture:
    """Resolves the options of a model for square images of `image_size` pixels.

    Raises `ValueError` for a size that is not positive, a patch size that does not divide the image, an odd grid before
    a downsample, an unknown key or word, a width that changes without a downsample, and a class token in a pyramid.
    """
    sizes = {"image_size": image_size, "channels": channels, "classes": classes}
    for name, size in {**sizes, "patch_size": model.patch_size}.items():
        _positive(name, size)
    given = model.stages or [{}]
    stages = tuple(_stage(index, one, model, token_mixing, channel_mixing) for index, one in enumerate(given))
    downsamples = sum(stage.downsample for stage in stages)
    _check_grid(image_size, model.patch_size, downsamples)
    _check_widths(stages)
    _check_rest(model, downsamples)
    return Architecture(**sizes, stages=stages, model=model)


def patch_sizes(image_size: int, downsamples: int = 0) -> list[int]:
    """The patch sizes that divide the image and leave an even grid before each downsample."""
    return [size for size in range(1, image_size + 1) if image_size % (size * 2**downsamples) == 0]


def options_in_stages(model: Model) -> Iterator[tuple[int, str, str, Mapping[str, Any]]]:
    """Number of the stage, kind of mixing, name and options: what stages say for mixings that the model may have."""
    for index, stage in enumerate(model.stages):
        for kind in ("token_mixing", "channel_mixing"):
            given = stage.get(kind, {}) if isinstance(stage, Mapping) else {}
            for one in given if isinstance(given, list) else [given]:
                for name, options in one.items() if isinstance(one, Mapping) and "name" not in one else ():
                    yield index, kind, name, options if isinstance(options, Mapping) else {}


def set_in_every_stage(model: Model, key: str) -> bool:
    """Whether every stage has a value of its own for a key, so that the model's own one is not looked at."""

    def own(stage: Any) -> bool:
        given = stage.get(key, {}) if isinstance(stage, Mapping) else {}
        return all(
            not isinstance(one, Mapping) or "name" in one for one in (given if isinstance(given, list) else [given])
        )

    return bool(model.stages) and all(own(stage) for stage in model.stages)


def _stage(index: int, given: Any, model: Model, token_mixing: Mixing, channel_mixing: Mixing) -> Stage:
    where = f"model.stages[{index}]"
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a mapping, got {given!r}; try {{depth: 2, width: 64}}")
    for key in given:
        one_of(f"a key of {where}", key, Stage.__dataclass_fields__)
    depth, width = given.get("depth", model.depth), given.get("width", model.width)
    _positive(f"{where}.depth" if "depth" in given else "depth", depth)
    _positive(f"{where}.width" if "width" in given else "width", width)
    downsample = given.get("downsample", index > 0)
    if not isinstance(downsample, bool) or (downsample and index == 0):
        raise ValueError(f"{where}.downsample must be true or false, and false in the first stage, got {downsample!r}")
    return Stage(
        depth=depth,
        width=width,
        token_mixing=_in_turn(f"{where}.token_mixing", given.get("token_mixing", {}), token_mixing),
        channel_mixing=_in_turn(f"{where}.channel_mixing", given.get("channel_mixing", {}), channel_mixing),
        downsample=downsample,
    )


def _in_turn(where: str, given: Any, default: Mixing) -> tuple[Mixing, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return (_mixing(where, given, default),)
    if not given:
        raise ValueError(f"{where} must name a mixing, got an empty list; leave the key out for that of the model")
    return tuple(_mixing(where, one, default) for one in given)


def _mixing(where: str, given: Any, default: Mixing) -> Mixing:
    if not isinstance(given, Mapping) or "name" in given:
        return Mixing.of(given)
    for name, options in given.items():
        if not isinstance(options, Mapping):
            raise ValueError(
                f"{where} must be a name, a mapping with a name, or a mapping from names to options, got "
                f"{name}: {options!r}; try {{name: {default.name}}}"
            )
    return Mixing(name=default.name, options={**default.options, **given.get(default.name, {})})


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _check_grid(image_size: int, patch_size: int, downsamples: int) -> None:
    if image_size % patch_size:
        allowed = ", ".join(map(str, patch_sizes(image_size)))
        raise ValueError(f"patch_size must divide image_size, got {patch_size} and {image_size}; try {allowed}")
    side = image_size // patch_size
    for downsample in range(1, downsamples + 1):
        if side % 2:
            allowed = ", ".join(map(str, patch_sizes(image_size, downsamples)))
            advice = f"try patch_size {allowed}" if allowed else "use fewer stages or another image_size"
            raise ValueError(
                f"the grid must be even before each downsample, got {side} × {side} patches before downsample "
                f"{downsample} of {downsamples} (image_size {image_size}, patch_size {patch_size}); {advice}"
            )
        side //= 2


def _check_widths(stages: Sequence[Stage]) -> None:
    for index, (before, stage) in enumerate(pairwise(stages), start=1):
        if not stage.downsample and stage.width != before.width:
            raise ValueError(
                f"a stage without downsample must keep the width, got {stage.width} behind {before.width} in "
                f"model.stages[{index}]; give both the same width or leave out downsample: false"
            )


def _check_rest(model: Model, downsamples: int) -> None:
    one_of("pooling", model.pooling, POOLINGS)
    one_of("positions", model.positions, POSITIONS)
    one_of("drop_path_schedule", model.drop_path_schedule, SCHEDULES)
    one_of("gelu", model.gelu, GELUS)
    one_of("compile", model.compile, COMPILE)
    if not 0 <= model.drop_path < 1:
        raise ValueError(f"drop_path must be at least 0 and below 1, got {model.drop_path}")
    if model.layer_scale is not None and not model.layer_scale > 0:
        raise ValueError(f"layer_scale must be above 0, or null for none, got {model.layer_scale}")
    if not model.norm_eps > 0:
        raise ValueError(f"norm_eps must be above 0, got {model.norm_eps}")
    if model.pooling == "class_token" and downsamples:
        raise ValueError(f"pooling=class_token needs a network without downsample, got {downsamples}; use pooling=mean")
    if model.pooling == "class_token" and model.norm_after_pooling:
        raise ValueError("norm_after_pooling needs pooling=mean, got class_token; leave it out")
