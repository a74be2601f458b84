"""Two linear maps with an activation function between them: most mixings are that, and most of the time is theirs.

All forms compute the same; which one is taken follows from where it runs.

- Inference: the activation function overwrites the hidden values, or is computed inside the product that makes them,
  whichever was measured to be faster; products are oneDNN's where these are faster, see `products`.
- A training step on a processor: in parts that stay in cache, see `mlp_gradient`.
- A processor that was asked for bfloat16 but cannot multiply it takes ten times as long as in float32. It computes in
  float32 inside, and what comes out is bfloat16.
- Compiled, exported, traced or on a GPU: the operators of the formula, one after the other.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from explore.architecture.hidden import activated
from explore.architecture.layers import across_tokens
from explore.architecture.mlp_gradient import CHANNELS, TOKENS, Axis, mlp_in_parts, takes_parts
from explore.architecture.parts import multiplies_bfloat16, runs_now_on_processor
from explore.architecture.products import linear, linear_and_gelu

Operators = Callable[[nn.Linear, nn.Module, nn.Linear, Tensor], Tensor]


def channel_mlp(expand: nn.Linear, activation: nn.Module, contract: nn.Linear, x: Tensor) -> Tensor:
    """An MLP over the channels of batch × tokens × channels."""
    return _mlp(expand, activation, contract, x, CHANNELS, _over_channels)


def token_mlp(expand: nn.Linear, activation: nn.Module, contract: nn.Linear, x: Tensor) -> Tensor:
    """An MLP over the tokens of batch × tokens × channels, the same for every channel."""
    return _mlp(expand, activation, contract, x, TOKENS, _over_tokens)


def _mlp(
    expand: nn.Linear, activation: nn.Module, contract: nn.Linear, x: Tensor, axis: Axis, operators: Operators
) -> Tensor:
    if takes_parts(expand, activation, contract, x):
        return mlp_in_parts(expand, activation, contract, x, axis)
    if _cannot_multiply_bfloat16(x):
        with torch.autocast("cpu", enabled=False):
            return _mlp(expand, activation, contract, x.float(), axis, operators).bfloat16()
    return operators(expand, activation, contract, x)


def _over_channels(expand: nn.Linear, activation: nn.Module, contract: nn.Linear, x: Tensor) -> Tensor:
    return linear(contract, linear_and_gelu(expand, activation, x))


def _over_tokens(expand: nn.Linear, activation: nn.Module, contract: nn.Linear, x: Tensor) -> Tensor:
    return across_tokens(contract, activated(activation, across_tokens(expand, x)))


def _cannot_multiply_bfloat16(x: Tensor) -> bool:
    """Whether autocast asks this processor for bfloat16, and it has no instructions for it."""
    if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return False
    return runs_now_on_processor(x) and not multiplies_bfloat16()
