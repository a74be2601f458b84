"""A catalog turns classes into choices: options follow from signatures, and what is wrong is said in one sentence."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError
from torch import Tensor, nn

from explore.architecture.catalog import Grid, Mixing, construct, hyperparameters, one_of, schema
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.token_mixing.attention import Attention
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

GRID, WIDTH = Grid(3, 5), 8
ENTRIES = [("token_mixing", name) for name in TOKEN_MIXINGS] + [("channel_mixing", name) for name in CHANNEL_MIXINGS]


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
        (Mixing(name="42"), r"token_mixing must be one of attention, .*convolution, .*mlp, .*pooling.*, got '42'$"),
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
