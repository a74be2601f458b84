"""RepMLP's block equals the paper's sum of branches, written out below channel by channel, and so does its one FC.

The deployed form is compared after training steps that moved the batch statistics, and leaves its origin untouched.
"""

import pytest
import torch
from mixing_references import convolved, cost, product
from torch import Tensor, nn
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.layers import TokenMixing
from explore.architecture.token_mixing.repmlp import DeployedRepMlp, RepMlp

CASES = [
    # grid, width, share sets, kernel
    (Grid(3, 5), 8, 1, 3),
    (Grid(3, 5), 8, 2, 3),
    (Grid(4, 2), 8, 8, 5),
    (Grid(1, 2), 6, 3, 3),
]
every_case = pytest.mark.parametrize(("grid", "width", "share_sets", "kernel"), CASES)


def example(grid: Grid, width: int, seed: int = 1) -> Tensor:
    return torch.randn(4, grid.tokens, width, generator=torch.Generator().manual_seed(seed))


def trained(grid: Grid, width: int, share_sets: int, kernel: int) -> RepMlp:
    """A block whose norms have weights, biases and statistics of their own."""
    torch.manual_seed(0)
    module = RepMlp(grid, width, share_sets=share_sets, kernel=kernel)
    for norm in (module.channel_norm, module.local_norm, module.point_norm):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    for seed in range(20):
        module(3 * example(grid, width, seed) + 1)
    return module


def batch_norm(planes: Tensor, norm: nn.BatchNorm1d, share_set: int) -> Tensor:
    if norm.training:
        mean, variance = planes.mean(), planes.var(unbiased=False)
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean[share_set], norm.running_var[share_set]
    return (planes - mean) / (variance + norm.eps).sqrt() * norm.weight[share_set] + norm.bias[share_set]


def reference(module: RepMlp, x: Tensor) -> Tensor:
    """Share set by share set, patch by patch."""
    result = torch.empty_like(x)
    matrices = module.channel.weight.view(-1, module.grid.tokens, module.grid.tokens)
    for share_set, matrix in enumerate(matrices):
        channels = range(share_set, x.shape[2], len(matrices))
        planes = x[:, :, list(channels)]
        everywhere = torch.stack([planes[:, :, i] @ matrix.T for i in range(len(channels))], 2)
        local = convolved(planes, module.grid, module.local.weight[share_set].expand(len(channels), -1, -1))
        total = batch_norm(everywhere, module.channel_norm, share_set) + batch_norm(local, module.local_norm, share_set)
        total = total + batch_norm(planes * module.point.weight[share_set], module.point_norm, share_set)
        result[:, :, list(channels)] = total
    hidden = F.relu(product(x.mean(1), module.gate.expand))
    return result * torch.sigmoid(product(hidden, module.gate.contract))[:, None]


@every_case
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_block_equals_the_sum_of_its_branches(
    grid: Grid, width: int, share_sets: int, kernel: int, training: bool
) -> None:
    module, x = trained(grid, width, share_sets, kernel).train(training), example(grid, width)
    expected = reference(module, x)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


@every_case
@torch.no_grad()
def test_deployed_form_equals_evaluation(grid: Grid, width: int, share_sets: int, kernel: int) -> None:
    module, x = trained(grid, width, share_sets, kernel).eval(), example(grid, width)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    deployed = module.deployed()
    assert isinstance(deployed, TokenMixing)
    assert not deployed.training
    assert [name for name, _ in deployed.named_modules() if "norm" in name or "local" in name] == []
    torch.testing.assert_close(deployed(x), module(x), atol=1e-5, rtol=1e-4)
    for parameter in deployed.parameters():
        parameter.zero_()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_deployed_form_can_be_stored_and_trained() -> None:
    grid, width = Grid(3, 5), 8
    deployed, other = trained(grid, width, 2, 3).deployed(), DeployedRepMlp(grid, width, share_sets=2)
    other.load_state_dict(deployed.state_dict())
    x = example(grid, width)
    torch.testing.assert_close(other(x), deployed(x))
    deployed(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in deployed.parameters())
    assert deployed.deployed() is deployed


def test_deploying_draws_no_random_numbers_and_keeps_the_dtype() -> None:
    module = trained(Grid(3, 5), 8, 2, 3).double()
    state = torch.get_rng_state()
    deployed = module.deployed()
    assert torch.equal(torch.get_rng_state(), state)
    assert {parameter.dtype for parameter in deployed.parameters()} == {torch.float64}


FORMULAS = [
    # share sets, channels, parameters and multiply-adds of one image of 14 × 14 patches, in training and deployed; in
    # training less the S·C of the 1 × 1 convolution, which is a product per element here.
    (1, 384, 112_640, 15_578_112 - 75_264, 112_820, 14_825_472),
    (16, 384, 689_120, 15_578_112 - 75_264, 692_000, 14_825_472),
    (16, 768, 910_784, 31_303_680 - 150_528, 913_664, 29_798_400),
]


@pytest.mark.parametrize(("share_sets", "width", "params", "macs", "deployed_params", "deployed_macs"), FORMULAS)
def test_cost_equals_the_closed_formula(
    share_sets: int, width: int, params: int, macs: int, deployed_params: int, deployed_macs: int
) -> None:
    def make(grid: Grid, width: int) -> RepMlp:
        return RepMlp(grid, width, share_sets=share_sets).eval()

    assert cost(make, width) == (params, macs)
    assert cost(lambda grid, width: make(grid, width).deployed(), width) == (deployed_params, deployed_macs)


@pytest.mark.parametrize(
    ("share_sets", "kernel", "reduction", "message"),
    [
        (5, 3, 4, r"share_sets must divide width, got 5 and 8; try 1, 2, 4, 8$"),
        (0, 3, 4, r"share_sets must divide width, got 0 and 8; try 1, 2, 4, 8$"),
        (1, 4, 4, r"kernel must be an odd number of at least 3, got 4; try"),
        (1, 3, 9, r"reduction must be from 1 to width, got 9 and 8; try 4$"),
        (1, 3, 0, r"reduction must be from 1 to width, got 0 and 8; try 4$"),
    ],
)
def test_refuses(share_sets: int, kernel: int, reduction: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepMlp(Grid(3, 5), 8, share_sets=share_sets, kernel=kernel, reduction=reduction)
