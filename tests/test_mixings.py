"""Every entry of both catalogs keeps the contract, alone and inside a network, and does what its name says.

The contract suite runs over whatever the catalogs list. Two Jacobian tests give the two kinds their meaning: a channel
mixing at a patch depends on that patch only (unless it says otherwise), a token mixing carries information between
patches.
"""

import io
import re

import pytest
import torch
from torch import Tensor, nn

from explore.architecture.catalog import Grid, Mixing, construct
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

GRID, WIDTH = Grid(3, 5), 60  # the width has many divisors, among them the sides of the grid
CATALOGS = {"token_mixing": TOKEN_MIXINGS, "channel_mixing": CHANNEL_MIXINGS}
BATCH = 3


class Subject:
    """A module under the contract, built anew on each call of `make`, with an input for it."""

    def __init__(self, kind: str, name: str, whole: bool) -> None:
        self.kind, self.name, self.whole = kind, name, whole
        self.id = f"{kind}={name}{'-in-network' if whole else ''}"

    def make(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        if not self.whole:
            return construct(self.kind, CATALOGS[self.kind], Mixing(name=self.name), GRID, WIDTH).eval()
        chosen = {"token_mixing": Mixing(name="mlp"), "channel_mixing": Mixing(name="mlp")}
        chosen[self.kind] = Mixing(name=self.name)
        model = Model(patch_size=4, depth=1, width=WIDTH, layer_scale=0.5, drop_path=0.1)
        return Network(architecture(model, **chosen, image_size=12, channels=2, classes=6)).eval()

    def example(self, batch: int = BATCH) -> Tensor:
        shape = (2, 12, 12) if self.whole else (GRID.tokens, WIDTH)
        return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))

    def output_shape(self) -> tuple[int, ...]:
        return (BATCH, 6) if self.whole else (BATCH, GRID.tokens, WIDTH)


ENTRIES = [("token_mixing", name) for name in TOKEN_MIXINGS] + [("channel_mixing", name) for name in CHANNEL_MIXINGS]
SUBJECTS = [Subject(kind, name, whole) for whole in (False, True) for kind, name in ENTRIES]
every_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.id)
# What takes long for a whole network, in which only one module changes, is done for the module alone every day.
every_module = pytest.mark.parametrize(
    "subject",
    [pytest.param(one, marks=pytest.mark.slow if one.whole else ()) for one in SUBJECTS],
    ids=lambda subject: subject.id,
)
every_token_mixing = pytest.mark.parametrize("name", TOKEN_MIXINGS)
every_channel_mixing = pytest.mark.parametrize("name", CHANNEL_MIXINGS)


def token_mixing(name: str, grid: Grid = GRID, width: int = WIDTH) -> nn.Module:
    torch.manual_seed(0)
    return construct("token_mixing", TOKEN_MIXINGS, Mixing(name=name), grid, width).eval()


def channel_mixing(name: str, grid: Grid = GRID, width: int = WIDTH) -> nn.Module:
    torch.manual_seed(0)
    return construct("channel_mixing", CHANNEL_MIXINGS, Mixing(name=name), grid, width).eval()


# The contract


@every_subject
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shape_and_dtype(subject: Subject, dtype: torch.dtype) -> None:
    result = subject.make().to(dtype)(subject.example().to(dtype))
    assert result.shape == subject.output_shape()
    assert result.dtype == dtype
    assert result.isfinite().all()


@every_subject
def test_gradient_reaches_every_parameter(subject: Subject) -> None:
    module, x = subject.make(), subject.example().requires_grad_()
    result = module(x)
    (result * torch.randn_like(result)).sum().backward()
    unreached = [name for name, one in module.named_parameters() if one.grad is None or not one.grad.any()]
    assert unreached == []
    assert x.grad is not None
    assert x.grad.any()


@every_subject
def test_evaluation_is_deterministic(subject: Subject) -> None:
    module, x = subject.make(), subject.example()
    assert torch.equal(module(x), module(x))


@every_subject
def test_images_of_a_batch_do_not_touch_each_other(subject: Subject) -> None:
    module, x = subject.make(), subject.example().requires_grad_()
    result = module(x)
    (result[0] * torch.randn_like(result[0])).sum().backward()
    assert x.grad is not None
    assert x.grad[0].any()
    assert not x.grad[1:].any()


@every_subject
def test_state_dict_round_trip(subject: Subject) -> None:
    module, other, x = subject.make(seed=0), subject.make(seed=1), subject.example()
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(module(x), other(x))


@every_subject
def test_autocast(subject: Subject) -> None:
    module, x = subject.make(), subject.example()
    with torch.autocast("cpu", torch.bfloat16):
        reduced = module(x)
    assert reduced.isfinite().all()
    torch.testing.assert_close(reduced.float(), module(x), atol=0.05, rtol=0.05)


@every_module
def test_compiles_as_one_graph(subject: Subject) -> None:
    torch._dynamo.reset()
    module, x = subject.make(), subject.example()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))


@every_module
def test_export_round_trip(subject: Subject) -> None:
    module, x = subject.make().deployed().eval(), subject.example()
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    restored = torch.export.load(file).module()
    torch.testing.assert_close(restored(x), module(x))
    other_batch = subject.example(batch=5)
    torch.testing.assert_close(restored(other_batch), module(other_batch))


# What the two kinds mean


def influence(module: nn.Module) -> Tensor:
    """Whether output patch i depends on input patch j: tokens × tokens."""
    x = torch.randn(1, GRID.tokens, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
    result = module(x)
    probe = torch.randn_like(result[0, 0])  # a random weight for each channel, so that nothing cancels
    rows = [
        torch.autograd.grad((result[0, patch] * probe).sum(), x, retain_graph=True)[0] for patch in range(GRID.tokens)
    ]
    return torch.stack([row[0].abs().amax(1) > 0 for row in rows])


@every_channel_mixing
def test_channel_mixing_at_a_patch_depends_on_that_patch_only_where_declared(name: str) -> None:
    reached, own = influence(channel_mixing(name)), torch.eye(GRID.tokens, dtype=torch.bool)
    assert (reached & own).diagonal().all()
    assert torch.equal(reached, own) is CHANNEL_MIXINGS[name].per_patch


@every_channel_mixing
def test_channel_mixing_is_the_same_at_every_patch_where_it_stays_there(name: str) -> None:
    module, x = channel_mixing(name), torch.randn(1, GRID.tokens, WIDTH)
    order = torch.randperm(GRID.tokens, generator=torch.Generator().manual_seed(2))
    same = torch.allclose(module(x[:, order]), module(x)[:, order], atol=1e-5)
    assert same is CHANNEL_MIXINGS[name].per_patch


@every_token_mixing
def test_token_mixing_carries_information_between_patches(name: str) -> None:
    others = influence(token_mixing(name)) & ~torch.eye(GRID.tokens, dtype=torch.bool)
    assert others.any(dim=1).all(), "some patch hears of no other"
    assert others.any(dim=0).all(), "some patch is heard by no other"


@every_token_mixing
def test_position_blind_is_declared_exactly_when_true(name: str) -> None:
    module, x = token_mixing(name).double(), torch.randn(2, GRID.tokens, WIDTH, dtype=torch.float64)
    order = torch.randperm(GRID.tokens, generator=torch.Generator().manual_seed(2))
    same = torch.allclose(module(x[:, order]), module(x)[:, order], atol=1e-12, rtol=0)
    assert same is TOKEN_MIXINGS[name].position_blind


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_class_token_is_accepted_where_declared(kind: str, name: str) -> None:
    if CATALOGS[kind][name].class_token:
        x = torch.randn(2, GRID.tokens + 1, WIDTH)
        assert construct(kind, CATALOGS[kind], Mixing(name=name), GRID, WIDTH).eval()(x).shape == x.shape


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(2, 2), Grid(5, 3), Grid(1, 9)], ids=str)
def test_takes_any_grid_or_says_which(kind: str, name: str, grid: Grid) -> None:
    try:
        module = construct(kind, CATALOGS[kind], Mixing(name=name), grid, WIDTH)
    except ValueError as refusal:
        assert re.search(r"must .*, got .*; (try|use)", str(refusal))  # noqa: PT017 - not every mixing refuses
        return
    x = torch.randn(2, grid.tokens, WIDTH)
    assert module.eval()(x).shape == x.shape


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_weights_fit_every_grid_unless_a_mixing_is_tied_to_one(kind: str, name: str) -> None:

    def shapes(grid: Grid) -> dict[str, torch.Size]:
        module = construct(kind, CATALOGS[kind], Mixing(name=name), grid, WIDTH)
        return {key: tensor.shape for key, tensor in module.state_dict().items()}

    tied = getattr(CATALOGS[kind][name], "tied_to_grid", False)
    assert tied or shapes(Grid(3, 3)) == shapes(Grid(5, 5))


@every_subject
def test_deployed_form_computes_the_same_on_its_own(subject: Subject) -> None:
    """With batch statistics that have moved, and sharing no weights."""
    module, x = subject.make().train(), subject.example()
    for _ in range(3):
        module(2 * x + 1)
    expected, deployed = module.eval()(x), module.deployed().eval()
    torch.testing.assert_close(deployed(x), expected, atol=1e-4, rtol=1e-4)
    if deployed is not module:
        with torch.no_grad():
            for tensor in deployed.parameters():
                tensor.zero_()
    torch.testing.assert_close(module(x), expected)
