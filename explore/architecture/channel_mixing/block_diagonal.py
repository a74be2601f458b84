"""Products with block-diagonal matrices, the parts of the grouped and of the Monarch MLP.

Tensors between two products are groups × rows × channels of a group, a row being one patch of one image.
"""

import torch
from torch import Tensor, nn

from explore.architecture.hidden import needed
from explore.architecture.layers import batched_product


def grouped_rows(x: Tensor, groups: int) -> Tensor:
    """Batch × tokens × channels to groups × rows × channels of a group, a view."""
    return x.reshape(-1, groups, x.shape[2] // groups).transpose(0, 1)


def block_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiplies each group by its own matrix; `weight` is groups × channels in × channels out, `bias` one axis."""
    return batched_product(x, weight, None if bias is None else _by_group(bias, weight))


def exchanging_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Sends an equal share of the channels of each group to each group, then multiplies each group by its own matrix.

    Group `to` multiplies the shares number `to` of all groups; a share is a run of adjacent channels. `weight` is
    groups from × groups to × channels of a share × channels out, `bias` one axis.
    """
    groups = weight.shape[0]
    shares = x.view(groups, -1, groups, weight.shape[2])  # from, rows, to, channels of a share
    if needed(x) or groups * weight.shape[2] <= weight.shape[3]:
        moved = shares.permute(2, 1, 0, 3).flatten(2)
        return block_product(moved, weight.transpose(0, 1).flatten(1, 2), bias)
    # In inference, where less comes out than goes in, adding to the result once per group beats a copy of the input;
    # in training the many small products of the backward pass lose that again.
    shares = shares.transpose(1, 2)
    result = block_product(shares[0], weight[0], bias)
    for share, matrix in zip(shares[1:].unbind(), weight[1:].unbind(), strict=True):
        result.baddbmm_(share, matrix.to(result.dtype))  # autocast leaves products in place alone
    return result


def block_weight(*shape: int, fan_in: int) -> nn.Parameter:
    """New weights with variance 1 / fan-in, as `lecun_uniform` draws them."""
    bound = (3 / fan_in) ** 0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def _by_group(bias: Tensor, weight: Tensor) -> Tensor:
    return bias.view(weight.shape[0], 1, -1)
