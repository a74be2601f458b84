"""A copy of a network without its weights, for what depends on shapes alone."""

import copy
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn


def hollow(network: nn.Module, stand_in: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of the network in which `stand_in(tensor)` takes the place of every parameter and buffer.

    The weights themselves are never copied, so the copy costs no memory when the stand-ins do not. The network may
    be on any device, the meta device included, and is not changed.
    """
    replaced: dict[int, object] = {id(buffer): stand_in(buffer) for buffer in network.buffers()}
    for parameter in network.parameters():
        replaced[id(parameter)] = _parameter(stand_in(parameter), parameter.requires_grad)
    for module in network.modules():
        # Empty tables of hooks, a dozen in every module, take copying longer than all the rest.
        empty = [one for one in vars(module).values() if type(one) is OrderedDict and not one]
        replaced |= {id(one): OrderedDict() for one in empty}
    return copy.deepcopy(network, replaced)


def _parameter(tensor: Tensor, requires_grad: bool) -> Tensor:
    if type(tensor) is Tensor:
        return nn.Parameter(tensor, requires_grad)
    # The same for a tensor of another kind, without the operator by which torch makes sure that it is a new one.
    tensor.requires_grad_(requires_grad)
    tensor._is_param = True
    return tensor
