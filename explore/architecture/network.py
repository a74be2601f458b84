"""The network of an architecture: stem, stages of blocks with a downsample between them, norm, pooling, head.

One stage with MLP mixings is the MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601); one stage with attention, a
class token and learned positions is ViT (Dosovitskiy et al., 2020, arXiv 2010.11929).
"""

import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid, construct, one_of
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.layers import NORM_EPS, Block, Downsample, Stem
from explore.architecture.spec import Architecture, Stage
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

EMBEDDING_STD = 0.02  # of learned positions and of the head


class Network(nn.Module):
    """Classifies images: float batch × channels × height × width in, logits batch × classes out.

    The weights are drawn from torch's global generator. The head starts near zero instead of at zero as in the
    Mixer's code: logits start equally flat, but images already differ and every parameter has a gradient.

    Raises `ValueError` where a mixing refuses its place, and in `forward` for images of another shape.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        first, last = architecture.stages[0], architecture.stages[-1]
        side = architecture.image_size // architecture.patch_size
        grid = Grid(side, side)
        _check_class_token(architecture)
        self.image_shape = (architecture.channels, architecture.image_size, architecture.image_size)
        self.stem = Stem(architecture.channels, architecture.patch_size, first.width)
        has_class_token = architecture.pooling == "class_token"
        self.class_token = nn.Parameter(torch.zeros(1, 1, first.width)) if has_class_token else None
        places = grid.tokens + has_class_token
        self.positions = _embedding(places, first.width) if _learns_positions(architecture) else None
        self.stages = nn.Sequential(*_stages(architecture, grid))
        self.norm = nn.LayerNorm(last.width, eps=NORM_EPS)
        self.head = nn.Linear(last.width, architecture.classes)
        nn.init.trunc_normal_(self.head.weight, std=EMBEDDING_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Float batch × channels × height × width to logits batch × classes."""
        if tuple(image.shape[1:]) != self.image_shape:
            expected, got = _written(("batch", *self.image_shape)), _written(tuple(image.shape))
            raise ValueError(f"images must have the shape {expected}, got {got}")
        logits: Tensor = self.head(self._pool(self.norm(self.stages(self._embed(image)))))
        return logits

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


def _stages(architecture: Architecture, grid: Grid) -> list[nn.Sequential]:
    depths = [stage.depth for stage in architecture.stages]
    rates = _drop_rates(architecture.drop_path, sum(depths))
    stages: list[nn.Sequential] = []
    for index, stage in enumerate(architecture.stages):
        layers: list[nn.Module] = []
        if index > 0:
            layers.append(Downsample(grid, architecture.stages[index - 1].width, stage.width))
            grid = Grid(grid.height // 2, grid.width // 2)
        done = sum(depths[:index])
        layers += [_block(stage, grid, architecture.layer_scale, rate) for rate in rates[done : done + stage.depth]]
        stages.append(nn.Sequential(*layers))
    return stages


def _block(stage: Stage, grid: Grid, layer_scale: float | None, drop_path: float) -> Block:
    token_mixing = construct("token_mixing", TOKEN_MIXINGS, stage.token_mixing, grid, stage.width)
    channel_mixing = construct("channel_mixing", CHANNEL_MIXINGS, stage.channel_mixing, grid, stage.width)
    return Block(token_mixing, channel_mixing, stage.width, layer_scale=layer_scale, drop_path=drop_path)


def _drop_rates(last: float, blocks: int) -> list[float]:
    # Linear from 0 at the first block, as in the Mixer's training code; a single block drops nothing.
    return [last * index / max(blocks - 1, 1) for index in range(blocks)]


def _learns_positions(architecture: Architecture) -> bool:
    if architecture.positions != "auto":
        return architecture.positions == "learned"
    name = one_of("token_mixing", architecture.stages[0].token_mixing.name, TOKEN_MIXINGS)
    return TOKEN_MIXINGS[name].position_blind


def _check_class_token(architecture: Architecture) -> None:
    if architecture.pooling != "class_token":
        return
    able = sorted(name for name, mixing in TOKEN_MIXINGS.items() if mixing.class_token)
    for stage in architecture.stages:
        if stage.token_mixing.name not in able:
            raise ValueError(
                f"pooling=class_token needs a token_mixing that takes a class token ({', '.join(able)}), "
                f"got {stage.token_mixing.name!r}; use pooling=mean"
            )


def _embedding(places: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, places, width), std=EMBEDDING_STD))


def _written(shape: tuple[object, ...]) -> str:
    return " × ".join(map(str, shape))
