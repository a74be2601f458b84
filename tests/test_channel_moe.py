"""The mixture of experts equals a loop over patches and chosen experts, and its loss that of the Switch Transformer.

Sorting the patches by expert, as training and inference do, equals computing all experts, as an exported program does,
in values and gradients. The two ways of multiplying by the experts' matrices agree.
"""

import io

import pytest
import torch
from mixing_references import OnImage, scattered
from torch import Tensor
from torch.nn import functional as F

from explore.architecture.catalog import Grid
from explore.architecture.channel_mixing import experts
from explore.architecture.channel_mixing.moe import MixtureOfExperts
from explore.cost.flops import count_macs

GRID, WIDTH = Grid(2, 5), 8
every_k = pytest.mark.parametrize("top_k", [1, 2, 4])


def example(top_k: int, balance: float = 0.01) -> tuple[MixtureOfExperts, Tensor]:
    torch.manual_seed(0)
    module = scattered(MixtureOfExperts(GRID, WIDTH, top_k=top_k, expansion=1.5, balance=balance))
    return module.eval(), torch.randn(3, GRID.tokens, WIDTH)


def reference(module: MixtureOfExperts, patch: Tensor) -> Tensor:
    probabilities = torch.softmax(module.router.weight @ patch, 0).tolist()
    chosen = sorted(range(module.experts), key=lambda expert: -probabilities[expert])[: module.top_k]
    total = sum(probabilities[expert] for expert in chosen) if module.top_k > 1 else 1.0
    result = torch.zeros_like(patch)
    hidden, width = module.expand.shape[1:]
    for expert in chosen:
        bias = module.expand_bias[expert * hidden : (expert + 1) * hidden]
        active = F.gelu(module.expand[expert] @ patch + bias)
        bias = module.contract_bias[expert * width : (expert + 1) * width]
        result += probabilities[expert] / total * (active @ module.contract[expert] + bias)
    return result


@every_k
def test_equals_a_loop_over_patches_and_chosen_experts(top_k: int) -> None:
    module, x = example(top_k)
    before = x.clone()
    with torch.no_grad():
        expected = torch.stack([torch.stack([reference(module, patch) for patch in image]) for image in x])
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=0)
    assert torch.equal(x, before)


@every_k
def test_chosen_experts_equal_all_experts(top_k: int) -> None:
    module, x = example(top_k)
    rows = x.flatten(0, 1).requires_grad_()
    results = []
    for mixed in (module.chosen_experts, module.all_experts):
        result = mixed(rows, *module.routed(rows))
        results.append((result, *torch.autograd.grad(result.square().sum(), [rows, *module.parameters()])))
    for chosen, every in zip(*results, strict=True):
        torch.testing.assert_close(chosen, every, atol=1e-4, rtol=1e-5)


def test_an_expert_without_patches_gets_no_gradient() -> None:
    module, x = example(1)
    with torch.no_grad():
        module.router.weight[3] = -module.router.weight[:3].sum(0) - 100 * x.mean((0, 1)).sign()
    x = x.abs() * x.mean((0, 1)).sign()  # every patch is far on the side that the last expert never gets
    module(x).sum().backward()
    assert module.expand.grad is not None
    assert not module.expand.grad[3].any()
    assert module.expand.grad.any()


def balance_loss(module: MixtureOfExperts, x: Tensor) -> Tensor:
    """Switch Transformer, equations 4 to 6, patch by patch."""
    share, probability = [0.0] * module.experts, [torch.zeros(())] * module.experts
    patches = x.flatten(0, 1)
    for patch in patches:
        probabilities = torch.softmax(module.router.weight @ patch, 0)
        for expert in probabilities.topk(module.top_k).indices.tolist():
            share[expert] += 1 / (module.top_k * len(patches))
        for expert in range(module.experts):
            probability[expert] = probability[expert] + probabilities[expert] / len(patches)
    products = [f * p for f, p in zip(share, probability, strict=True)]
    return module.balance * module.experts * torch.stack(products).sum()


@every_k
def test_training_adds_the_gradient_of_the_balance_loss(top_k: int) -> None:
    module, x = example(top_k, balance=0.5)
    x.requires_grad_()
    expected_loss = module(x).square().sum() + balance_loss(module, x)
    expected = torch.autograd.grad(expected_loss, [x, *module.parameters()])
    module.train()
    result = module(x)
    torch.testing.assert_close(result, module.eval()(x))
    for got, wanted in zip(
        torch.autograd.grad(result.square().sum(), [x, *module.parameters()]), expected, strict=True
    ):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-5)


def test_no_balance_loss_without_a_weight() -> None:
    module, x = example(1, balance=0.0)
    evaluated = torch.autograd.grad(module(x).sum(), module.router.weight)
    torch.testing.assert_close(torch.autograd.grad(module.train()(x).sum(), module.router.weight), evaluated)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this PyTorch has no grouped product")
def test_at_once_equals_in_turn() -> None:
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(11, 8), torch.randn(4, 8, 12), torch.randn(4, 12)
    ends, gradient = torch.tensor([3, 3, 9, 11], dtype=torch.int32), torch.randn(11, 12)
    products = [of(rows, ends, weight, bias) for of in (experts.product_at_once, experts.product_in_turn)]
    torch.testing.assert_close(*products)
    gradients = [of(rows, ends, gradient) for of in (experts.gradient_at_once, experts.gradient_in_turn)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][1].any()


def test_operators_are_as_torch_wants_them() -> None:
    ends = torch.tensor([3, 3, 9, 11], dtype=torch.int32)
    rows, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((11, 8), (4, 8, 12), (4, 12)))
    torch.library.opcheck(experts.expert_product, (rows, ends, weight, bias))
    torch.library.opcheck(experts.expert_gradient, (rows.detach(), ends, torch.randn(11, 12)))


def test_exported_program_needs_only_the_operators_of_torch() -> None:
    module, x = example(2)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert "explore" not in str(program.graph)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    torch.testing.assert_close(torch.export.load(file).module()(x), module(x), atol=1e-5, rtol=0)


def test_compiles_as_one_graph_in_training() -> None:
    module, x = example(1, balance=0.5)
    module.train()
    module(x).square().sum().backward()
    expected = module.router.weight.grad
    module.zero_grad()
    torch._dynamo.reset()
    torch.compile(module, fullgraph=True, backend="aot_eager")(x).square().sum().backward()
    torch.testing.assert_close(module.router.weight.grad, expected)


def test_autocast_routes_in_full_precision() -> None:
    module, x = example(2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), module(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("number", "top_k"), [(4, 1), (4, 2), (8, 2)])
def test_cost_equals_the_closed_formula(number: int, top_k: int) -> None:
    with torch.device("meta"):
        module = MixtureOfExperts(Grid(14, 14), 384, experts=number, top_k=top_k)
    assert sum(one.numel() for one in module.parameters()) == number * (8 * 384**2 + 5 * 384) + number * 384
    macs = count_macs(OnImage(module), (384, 14, 14))
    assert macs.total == 196 * (8 * top_k * 384**2 + number * 384)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 1}, r"experts must be at least 2, got 1; for one expert take channel_mixing=mlp"),
        ({"top_k": 0}, r"top_k must be 1 to the number of experts, got 0 of 4; try 1 or 2"),
        ({"top_k": 5}, r"top_k must be 1 to the number of experts, got 5 of 4; try 1 or 2"),
        ({"balance": -1.0}, r"balance must not be negative, got -1.0; try 0.01, or 0 for no such loss"),
    ],
)
def test_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureOfExperts(GRID, WIDTH, **options)  # type: ignore[arg-type]
