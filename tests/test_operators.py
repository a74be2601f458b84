"""Operators that mixings bring along are counted as what they multiply, or are free, in a trace as in a formula."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from explore.architecture.channel_mixing.experts import expert_product
from explore.cost.flops import count_macs


class Traced(nn.Module):
    """A network that is one function of its image."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image)


def by_expert(image: Tensor) -> Tensor:
    ends = torch.tensor([2, 2, 6], dtype=torch.int32, device=image.device)
    return expert_product(image[0, 0], ends, image.new_ones(3, 4, 5), image.new_ones(3, 5))


COUNTS: list[tuple[str, Callable[[Tensor], Tensor], dict[str, int]]] = [
    # on one image of 1 × 6 × 4
    ("addmm_", lambda x: x.new_ones(6, 5).addmm_(x[0, 0], x.new_ones(4, 5)), {"addmm_": 6 * 4 * 5}),
    ("baddbmm_", lambda x: x.new_ones(1, 6, 5).baddbmm_(x[0], x.new_ones(1, 4, 5)), {"baddbmm_": 6 * 4 * 5}),
    ("expert_product", by_expert, {"expert_product": 6 * 4 * 5}),
    ("argsort", lambda x: x.argsort(stable=True), {}),
    ("gelu_", lambda x: torch.ops.aten.gelu_(x + 1), {}),
]


@pytest.mark.parametrize(("name", "function", "counted"), COUNTS, ids=[name for name, *_ in COUNTS])
def test_is_counted(name: str, function: Callable[[Tensor], Tensor], counted: dict[str, int]) -> None:
    assert count_macs(Traced(function), (1, 6, 4)).by_operator == counted
