"""Every entry of both catalogs keeps the contract, alone and inside a network, and does what its name says.

The contract suite runs over whatever the catalogs list. Two Jacobian tests give the two kinds their meaning: a channel
mixing at a patch depends on that patch only, a token mixing carries information between patches. The variants that are
in the literature are held against the closed formulas and against plain PyTorch references.
"""

import io
from collections.abc import Callable, Iterator

import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from explore.architecture.catalog import Grid, Mixing, construct, hyperparameters, one_of, schema
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.channel_mixing.mlp import ChannelMlp
from explore.architecture.channel_mixing.swiglu import SwiGlu
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.architecture.token_mixing.attention import Attention
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.architecture.token_mixing.convolution import DepthwiseConvolution
from explore.architecture.token_mixing.mlp import TokenMlp
from explore.architecture.token_mixing.pooling import Pooling

GRID, WIDTH = Grid(3, 5), 8
BATCH = 3


class Subject:
    """A module under the contract, built anew on each call of `make`, with an input for it."""

    def __init__(self, kind: str, name: str, whole: bool) -> None:
        self.kind, self.name, self.whole = kind, name, whole
        self.id = f"{kind}={name}{'-in-network' if whole else ''}"

    def make(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        if not self.whole:
            catalog = TOKEN_MIXINGS if self.kind == "token_mixing" else CHANNEL_MIXINGS
            return construct(self.kind, catalog, Mixing(name=self.name), GRID, WIDTH).eval()
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
every_network = pytest.mark.parametrize(
    "subject", [one for one in SUBJECTS if one.whole], ids=lambda subject: subject.id
)
every_token_mixing = pytest.mark.parametrize("name", TOKEN_MIXINGS)
every_channel_mixing = pytest.mark.parametrize("name", CHANNEL_MIXINGS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors are slower on several threads, most of all when tests run in parallel."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


# Compiling and exporting are slow; a mixing that breaks the graph breaks that of the network around it.


@every_network
def test_compiles_as_one_graph(subject: Subject) -> None:
    torch._dynamo.reset()
    module, x = subject.make(), subject.example()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))


@every_network
def test_export_round_trip(subject: Subject) -> None:
    module, x = subject.make(), subject.example()
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
    x = torch.randn(1, GRID.tokens, WIDTH, generator=torch.Generator().manual_seed(1))
    jacobian = torch.autograd.functional.jacobian(module, x)  # 1 × tokens × channels × 1 × tokens × channels
    return jacobian[0, :, :, 0].abs().amax(dim=(1, 3)) > 0


@every_channel_mixing
def test_channel_mixing_at_a_patch_depends_on_that_patch_only(name: str) -> None:
    assert torch.equal(influence(channel_mixing(name)), torch.eye(GRID.tokens, dtype=torch.bool))


@every_channel_mixing
def test_channel_mixing_is_the_same_at_every_patch(name: str) -> None:
    module, x = channel_mixing(name), torch.randn(1, GRID.tokens, WIDTH)
    order = torch.randperm(GRID.tokens, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])


@every_token_mixing
def test_token_mixing_carries_information_between_patches(name: str) -> None:
    others = influence(token_mixing(name)) & ~torch.eye(GRID.tokens, dtype=torch.bool)
    assert others.any(dim=1).all(), "some patch hears of no other"
    assert others.any(dim=0).all(), "some patch is heard by no other"


@every_token_mixing
def test_position_blind_is_declared_exactly_when_true(name: str) -> None:
    module, x = token_mixing(name), torch.randn(2, GRID.tokens, WIDTH, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(GRID.tokens, generator=torch.Generator().manual_seed(2))
    same = torch.allclose(module(x[:, order]), module(x)[:, order], atol=1e-5)
    assert same is TOKEN_MIXINGS[name].position_blind


@pytest.mark.parametrize("name", [name for name, mixing in TOKEN_MIXINGS.items() if mixing.class_token])
def test_class_token_is_accepted_where_declared(name: str) -> None:
    x = torch.randn(2, GRID.tokens + 1, WIDTH)
    assert token_mixing(name)(x).shape == x.shape


@every_token_mixing
@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(2, 2), Grid(5, 3), Grid(1, 9)], ids=str)
def test_token_mixing_takes_any_grid(name: str, grid: Grid) -> None:
    x = torch.randn(2, grid.tokens, WIDTH)
    assert token_mixing(name, grid)(x).shape == x.shape


# Closed formulas and references


FORMULAS = [
    # mixing, channels, parameters, multiply-adds of one image of 14 × 14 patches
    (lambda grid, width: TokenMlp(grid, width), 384, 75_652, 28_901_376),
    (lambda grid, width: TokenMlp(grid, width), 768, 151_108, 115_605_504),
    (lambda grid, width: Attention(grid, width), 384, 591_360, 145_108_992),
    (lambda grid, width: Attention(grid, width), 768, 2_362_368, 521_428_992),
    (lambda grid, width: DepthwiseConvolution(grid, width), 384, 19_200, 3_687_936),
    (lambda grid, width: DepthwiseConvolution(grid, width, kernel=9), 384, 31_488, 6_096_384),
    (lambda grid, width: DepthwiseConvolution(grid, width), 768, 38_400, 7_375_872),
    (lambda grid, width: DepthwiseConvolution(grid, width, kernel=9), 768, 62_976, 12_192_768),
    (lambda grid, width: Pooling(grid, width), 384, 0, 0),
    (lambda grid, width: ChannelMlp(grid, width), 384, 1_181_568, 231_211_008),
    (lambda grid, width: ChannelMlp(grid, width), 768, 4_722_432, 924_844_032),
    (lambda grid, width: ChannelMlp(grid, width, expansion=3), 384, 886_272, 173_408_256),
    (lambda grid, width: ChannelMlp(grid, width, expansion=3), 768, 3_542_016, 693_633_024),
    (lambda grid, width: SwiGlu(grid, width), 384, 1_182_080, 231_211_008),
]


@pytest.mark.parametrize(("make", "width", "params", "macs"), FORMULAS)
def test_cost_equals_the_closed_formula(
    make: Callable[[Grid, int], nn.Module], width: int, params: int, macs: int
) -> None:
    with torch.device("meta"):
        module, x = make(Grid(14, 14), width), torch.empty(1, 196, width)
    with FlopCounterMode(display=False) as counter:
        module(x)
    assert sum(one.numel() for one in module.parameters()) == params
    assert counter.get_total_flops() == 2 * macs


def test_token_mlp_is_an_mlp_on_the_transposed_tokens() -> None:
    module, x = TokenMlp(GRID, WIDTH), torch.randn(2, GRID.tokens, WIDTH)
    expected = module.contract(F.gelu(module.expand(x.transpose(1, 2)))).transpose(1, 2)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_torch_multihead_attention(heads: int) -> None:
    module, x = Attention(GRID, WIDTH, heads=heads), torch.randn(2, GRID.tokens, WIDTH)
    reference = nn.MultiheadAttention(WIDTH, heads, batch_first=True)
    with torch.no_grad():
        module.query_key_value.bias.normal_()
        reference.in_proj_weight.copy_(module.query_key_value.weight)
        reference.in_proj_bias.copy_(module.query_key_value.bias)
    reference.out_proj.load_state_dict(module.projection.state_dict())
    torch.testing.assert_close(module(x), reference(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (64, 1), (100, 1), (192, 3), (200, 2), (384, 6), (1024, 16)])
def test_heads_have_at_least_64_channels_by_default(width: int, heads: int) -> None:
    assert Attention(GRID, width).heads == heads


def test_pooling_averages_the_patches_inside_the_image_and_subtracts_the_centre() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1)  # rows 0 1 2 and 3 4 5
    expected = torch.tensor([2.0, 2.5, 3.0, 2.0, 2.5, 3.0]).reshape(1, 6, 1) - x
    torch.testing.assert_close(Pooling(Grid(2, 3), 1)(x), expected)


def test_convolution_treats_tokens_as_rows_of_the_image() -> None:
    module = DepthwiseConvolution(Grid(2, 3), 1, kernel=3)
    nn.init.zeros_(module.filter.weight)
    with torch.no_grad():
        module.filter.weight[0, 0, 1, 2] = 1.0  # takes the patch to the right
    moved = module(torch.arange(1.0, 7.0).reshape(1, 6, 1))
    assert moved.flatten().tolist() == [2, 3, 0, 5, 6, 0]


# The catalog


class Scaled(nn.Module):
    """A mixing as a user would write one outside the package."""

    def __init__(self, grid: Grid, width: int, *, factor: float = 2.0, shared: bool = True, groups: int = 1) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_hyperparameters_are_the_keyword_only_parameters() -> None:
    found = hyperparameters(Scaled)
    assert [tuple(one) for one in found.values()] == [
        ("factor", float, 2.0),
        ("shared", bool, True),
        ("groups", int, 1),
    ]
    assert hyperparameters(Attention)["heads"].type == int | None


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_hyperparameter_is_documented(kind: str, name: str) -> None:
    mixing = (TOKEN_MIXINGS if kind == "token_mixing" else CHANNEL_MIXINGS)[name]
    for hyperparameter in hyperparameters(mixing):
        assert f"`{hyperparameter}`" in (mixing.__doc__ or "")


def test_hyperparameter_without_a_default_is_refused() -> None:
    def untyped(grid: Grid, width: int, *, factor=1.0) -> None: ...  # type: ignore[no-untyped-def]
    def mandatory(grid: Grid, width: int, *, factor: float) -> None: ...

    for constructor in (untyped, mandatory):
        with pytest.raises(TypeError, match=r"a hyperparameter needs a type and a default, got factor"):
            hyperparameters(constructor)


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_schema_gives_the_defaults_to_the_configuration(kind: str, name: str) -> None:
    mixing = (TOKEN_MIXINGS if kind == "token_mixing" else CHANNEL_MIXINGS)[name]
    config = OmegaConf.to_container(OmegaConf.structured(schema(name, mixing)))
    assert config == {"name": name} | {one.name: one.default for one in hyperparameters(mixing).values()}


def test_schema_refuses_a_wrong_type() -> None:
    config = OmegaConf.structured(schema("attention", Attention))
    config.heads = 4
    with pytest.raises(ValidationError, match="four"):
        config.heads = "four"


def test_construct_passes_the_options() -> None:
    module = construct("token_mixing", {"scaled": Scaled}, Mixing(name="scaled", options={"factor": 3}), GRID, WIDTH)
    assert module.factor == 3


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        (
            Mixing(name="atention"),
            r"token_mixing must be one of attention, .*, got 'atention'; did you mean attention\?$",
        ),
        (Mixing(name="42"), r"token_mixing must be one of attention, convolution, .*mlp, .*pooling.*, got '42'$"),
        (
            Mixing(name="mlp", options={"expantion": 1.0}),
            r"an option of token_mixing=mlp must be one of expansion, got 'expantion'; did you mean expansion\?",
        ),
        (
            Mixing(name="attention", options={"heads": "four"}),
            r"token_mixing.heads must be int or null, got 'four' for attention",
        ),
        (Mixing(name="convolution", options={"kernel": True}), r"token_mixing.kernel must be int, got True"),
        (Mixing(name="convolution", options={"kernel": 3.0}), r"token_mixing.kernel must be int, got 3.0"),
        (Mixing(name="attention", options={"heads": 5}), r"heads must divide width, got 5 and 8; try 1, 2, 4, 8"),
        (Mixing(name="attention", options={"heads": 0}), r"heads must divide width, got 0 and 8; try 1, 2, 4, 8"),
        (Mixing(name="convolution", options={"kernel": 4}), r"kernel must be an odd number of at least 3, got 4; try"),
        (Mixing(name="pooling", options={"kernel": 1}), r"kernel must be an odd number of at least 3, got 1; try"),
        (
            Mixing(name="mlp", options={"expansion": 0.01}),
            r"expansion must give at least one hidden channel, got 0.01 for width 8",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Mixing) else "",
)
def test_construct_refuses(mixing: Mixing, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        construct("token_mixing", TOKEN_MIXINGS, mixing, GRID, WIDTH)


def test_one_of_an_empty_choice() -> None:
    with pytest.raises(ValueError, match=r"an option of x cannot be given, there are none, got 'y'"):
        one_of("an option of x", "y", [])


def test_mixing_is_read_from_a_name_or_a_mapping() -> None:
    assert Mixing.of("mlp") == Mixing(name="mlp")
    assert Mixing.of({"name": "mlp", "expansion": 1.0}) == Mixing(name="mlp", options={"expansion": 1.0})
    for wrong in (3, {"expansion": 1.0}, None):
        with pytest.raises(ValueError, match=r"a mixing must be a name or a mapping with a name, got"):
            Mixing.of(wrong)  # type: ignore[arg-type]
