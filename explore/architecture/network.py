"""The network of an architecture: stem, stages of blocks with a downsample between them, norm, pooling, head.

One stage with MLP mixings is the MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601); one stage with attention, a
class token and learned positions is ViT (Dosovitskiy et al., 2020, arXiv 2010.11929).
"""

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from explore.architecture.activations import ACTIVATIONS, GELU_FORMS, activation
from explore.architecture.blocks import BLOCKS, Surroundings
from explore.architecture.catalog import Grid, construct, one_of
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.embedding import downsample, stem
from explore.architecture.hidden import MAY_OVERWRITE
from explore.architecture.layers import ChannelMixing, TokenMixing
from explore.architecture.norms import NORMS, norm
from explore.architecture.parts import images_at_once, runs_now_on_processor
from explore.architecture.plain import hooked_inside
from explore.architecture.spec import Architecture, Model, Stage
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

EMBEDDING_STD = 0.02  # of learned positions and of the head
USUAL_EXPANSION = 4  # hidden channels of an MLP as a multiple of the width


class Network(nn.Module):
    """Classifies images: float batch × channels × height × width in, logits batch × classes out.

    The weights are drawn from torch's global generator. The head starts near zero instead of at zero as in the
    Mixer's code: logits start equally flat, but images already differ and every parameter has a gradient.

    Raises `ValueError` where a mixing refuses its place, and in `forward` for images of another shape.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        model, first, last = architecture.model, architecture.stages[0], architecture.stages[-1]
        one_of("block", model.block, BLOCKS)
        one_of("activation", model.activation, ACTIVATIONS)
        grids = architecture.grids()
        _check_class_token(architecture)
        self.image_shape = (architecture.channels, architecture.image_size, architecture.image_size)
        self.stem = stem(model.stem, architecture.channels, model.patch_size, first.width, _norm(model))
        has_class_token = model.pooling == "class_token"
        self.class_token = nn.Parameter(torch.zeros(1, 1, first.width)) if has_class_token else None
        self._add_positions(_positions(architecture), grids[0].tokens + has_class_token, first.width)
        self.stages = nn.Sequential(*_stages(architecture, grids))
        self.largest = max(_hidden_values(stage, grid) for stage, grid in zip(architecture.stages, grids, strict=True))
        self.norm_after_pooling = model.norm_after_pooling
        self.norm = _final_norm(architecture)
        self.head = nn.Linear(last.width, architecture.classes)
        nn.init.trunc_normal_(self.head.weight, std=EMBEDDING_STD)
        nn.init.zeros_(self.head.bias)
        for module in self.modules():
            if isinstance(module, nn.GELU):
                module.approximate = GELU_FORMS[model.gelu]

    def forward(self, image: Tensor) -> Tensor:
        """Float batch × channels × height × width to logits batch × classes."""
        if tuple(image.shape[1:]) != self.image_shape:
            expected, got = _written(("batch", *self.image_shape)), _written(tuple(image.shape))
            raise ValueError(f"images must have the shape {expected}, got {got}")
        if torch.compiler.is_compiling():
            return self._logits(image)
        seen = hooked_inside(self)  # then all images at once are, and what is seen stays as it was
        before = MAY_OVERWRITE.set(not seen)
        try:
            # In evaluation the images do not know of one another. A tensor without numbers is looked at once.
            whole = seen or self.training or torch.is_grad_enabled() or type(image) is not Tensor
            if not whole and runs_now_on_processor(image):
                size = images_at_once(len(image), *self.largest, image.element_size())
                return torch.cat([self._logits(part) for part in torch.split(image, size)])
            return self._logits(image)
        finally:
            MAY_OVERWRITE.reset(before)

    def _logits(self, image: Tensor) -> Tensor:
        tokens = self.stages(self._embed(image))
        pooled = self.norm(self._pool(tokens)) if self.norm_after_pooling else self._pool(self.norm(tokens))
        logits: Tensor = self.head(pooled)
        return logits

    def deployed(self) -> "Network":
        """The same network for inference: a copy in evaluation mode, every mixing in its cheapest equal form.

        It shares no weights with this one, and is this one where no mixing has such a form.
        """
        forms = {name: mixing.deployed() for name, mixing in _mixings(self).items()}
        cheaper = {name: form for name, form in forms.items() if form is not self.get_submodule(name)}
        if not cheaper:
            return self
        result = copy.deepcopy(self)
        for name, form in cheaper.items():
            result.set_submodule(name, form)
        return result.eval()

    def _add_positions(self, kind: str, places: int, width: int) -> None:
        self.positions: Tensor | None
        if kind == "fixed":
            self.register_buffer("positions", _sinusoid(places, width), persistent=False)
        elif kind == "learned":
            table = torch.empty(1, places, width)
            self.positions = nn.Parameter(nn.init.trunc_normal_(table, std=EMBEDDING_STD))
        else:
            self.positions = None

    def _embed(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.stem(image)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return tokens if self.positions is None else tokens + self.positions

    def _pool(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1) if self.class_token is None else tokens[:, 0]


def check(architecture: Architecture) -> None:
    """Raises the `ValueError` of every rule the architecture breaks, in milliseconds and without memory."""
    with torch.device("meta"):
        Network(architecture)


def _mixings(network: nn.Module) -> dict[str, TokenMixing | ChannelMixing]:
    return {name: one for name, one in network.named_modules() if isinstance(one, TokenMixing | ChannelMixing)}


def _stages(architecture: Architecture, grids: list[Grid]) -> list[nn.Sequential]:
    model, rates = architecture.model, iter(_drop_rates(architecture))
    stages: list[nn.Sequential] = []
    for index, (stage, grid) in enumerate(zip(architecture.stages, grids, strict=True)):
        layers = nn.Sequential()
        if stage.downsample:
            before = architecture.stages[index - 1].width
            layers.append(downsample(model.downsample, grids[index - 1], before, stage.width, _norm(model)))
        for block in range(stage.depth):
            layers.append(_block(architecture, stage, grid, block, next(rates)))
        stages.append(layers)
    return stages


def _block(architecture: Architecture, stage: Stage, grid: Grid, index: int, drop_path: float) -> nn.Module:
    model = architecture.model
    token, channel = (mixings[index % len(mixings)] for mixings in (stage.token_mixing, stage.channel_mixing))
    around = Surroundings(
        norm=_norm(model),
        activation=partial(activation, model.activation),
        layer_scale=model.layer_scale,
        drop_path=drop_path,
    )
    return BLOCKS[model.block](
        construct("token_mixing", TOKEN_MIXINGS, token, grid, stage.width),
        construct("channel_mixing", CHANNEL_MIXINGS, channel, grid, stage.width),
        stage.width,
        around,
    )


def _hidden_values(stage: Stage, grid: Grid) -> tuple[int, int]:
    """How many values an MLP with the usual expansion makes of an image inside, and tokens of the image there."""
    return USUAL_EXPANSION * grid.tokens * stage.width, grid.tokens


def _norm(model: Model) -> Callable[[int], nn.Module]:
    return lambda width: norm(model.norm, width, model.norm_eps)


def _drop_rates(architecture: Architecture) -> list[float]:
    # Linear from 0 at the first block, as in the Mixer's training code; a single block drops nothing.
    model, blocks = architecture.model, sum(stage.depth for stage in architecture.stages)
    if model.drop_path_schedule == "uniform":
        return [model.drop_path] * blocks
    return [model.drop_path * index / max(blocks - 1, 1) for index in range(blocks)]


def _final_norm(architecture: Architecture) -> nn.Module:
    model = architecture.model
    if model.final_norm == "none":
        return nn.Identity()
    one_of("final_norm", model.final_norm, (*NORMS, "auto", "none"))
    name = model.norm if model.final_norm == "auto" else model.final_norm
    return norm(name, architecture.stages[-1].width, model.norm_eps)


def _positions(architecture: Architecture) -> str:
    if architecture.model.positions != "auto":
        return architecture.model.positions
    names = [one_of("token_mixing", one.name, TOKEN_MIXINGS) for one in architecture.stages[0].token_mixing]
    return "learned" if all(TOKEN_MIXINGS[name].position_blind for name in names) else "none"


def _sinusoid(places: int, width: int) -> Tensor:
    """Sines and cosines of the place (Vaswani et al., 2017, arXiv 1706.03762, section 3.5): 1 × places × width."""
    place, channel = torch.arange(places).unsqueeze(1), torch.arange(width)
    angle = place * torch.exp(-math.log(10_000) * (channel // 2 * 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).unsqueeze(0)


def _check_class_token(architecture: Architecture) -> None:
    if architecture.model.pooling != "class_token":
        return
    for kind, catalog in (("token_mixing", TOKEN_MIXINGS), ("channel_mixing", CHANNEL_MIXINGS)):
        able = sorted(name for name, mixing in catalog.items() if mixing.class_token)
        for mixing in (one for stage in architecture.stages for one in getattr(stage, kind)):
            if mixing.name not in able:
                raise ValueError(
                    f"pooling=class_token needs a {kind} that takes a class token ({', '.join(able)}), "
                    f"got {mixing.name!r}; use pooling=mean"
                )


def _written(shape: tuple[object, ...]) -> str:
    return " × ".join(map(str, shape))
