"""Learning rates rise, then fall; decay is for matrices only; a recipe that breaks a rule is refused."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explore.architecture.catalog import Mixing
from explore.architecture.network import Network
from explore.architecture.spec import Model, architecture
from explore.training.optimizer import averaging, make_optimizer, rate
from explore.training.options import SCHEDULES, Training

SHORT = Training(epochs=3, batch_size=256, lr=5e-3, precision="32-true", accelerator="cpu")


def network(mixing: str = "mlp", pooling: str = "mean") -> Network:
    torch.manual_seed(0)
    model = Model(patch_size=2, depth=2, width=16, pooling=pooling)
    mixings = Mixing(name=mixing), Mixing(name="mlp")
    return Network(architecture(model, *mixings, image_size=8, channels=1, classes=10))


recipes = st.builds(
    Training,
    schedule=st.sampled_from(SCHEDULES),
    warmup_epochs=st.floats(0, 12),
    epochs=st.integers(1, 10),
    ema=st.floats(0, 0.999),
)


@given(recipe=recipes, steps=st.integers(1, 500))
def test_rate_rises_through_the_warm_up_then_never_rises_again(recipe: Training, steps: int) -> None:
    rates = [rate(step, steps, recipe) for step in range(steps)]
    warmup = min(steps, math.ceil(recipe.warmup_epochs * steps / recipe.epochs))
    assert all(0 < one <= 1 for one in rates)
    assert all(before < after for before, after in pairwise(rates[:warmup]))
    assert all(before >= after for before, after in pairwise(rates[warmup:]))


@given(steps=st.integers(100, 2000), warmup=st.floats(0, 5), schedule=st.sampled_from(["cosine", "linear"]))
def test_rate_ends_near_zero(steps: int, warmup: float, schedule: str) -> None:
    recipe = Training(schedule=schedule, warmup_epochs=warmup, epochs=10)
    assert rate(steps - 1, steps, recipe) < 0.03
    assert rate(steps, steps, recipe) == pytest.approx(0, abs=1e-9)
    assert rate(2 * steps, steps, recipe) == pytest.approx(0, abs=1e-9)


@given(epoch=st.integers(1, 500), longer=st.integers(1, 5), warmup=st.floats(0, 3))
def test_constant_rate_does_not_know_when_the_training_ends(epoch: int, longer: int, warmup: float) -> None:
    short = Training(schedule="constant", warmup_epochs=warmup, epochs=3)
    long = replace(short, epochs=3 * longer)
    rates = [rate(step, 3 * epoch, short) for step in range(3 * epoch)]
    assert rates == pytest.approx([rate(step, 3 * epoch * longer, long) for step in range(3 * epoch)])
    assert rate(3 * epoch, 3 * epoch, short) == 1


@given(recipe=recipes, step=st.integers(0, 10_000))
def test_average_forgets_the_first_steps_sooner(recipe: Training, step: int) -> None:
    assert averaging(0, recipe) == min(recipe.ema, 0.1)
    assert averaging(step, recipe) <= averaging(step + 1, recipe) <= recipe.ema
    assert averaging(10**6, recipe) == recipe.ema


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert rate(60, 110, replace(SHORT, warmup_epochs=SHORT.epochs * 10 / 110)) == pytest.approx(0.5)


def test_only_matrices_decay() -> None:
    net = network(mixing="attention", pooling="class_token")
    decayed, others = make_optimizer(net, replace(SHORT, weight_decay=0.3)).param_groups
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    in_decayed = {names[id(parameter)] for parameter in decayed["params"]}
    in_others = {names[id(parameter)] for parameter in others["params"]}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert in_decayed | in_others == set(names.values())
    assert not in_decayed & in_others
    assert {"positions", "class_token", "head.bias", "norm.weight", "norm.bias"} <= in_others
    assert {"head.weight", "stem.projection.weight"} <= in_decayed
    assert all(name.endswith(".weight") for name in in_decayed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "training.epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "training.batch_size must be at least 1, got 0"),
        ({"rung": 0}, "training.rung must be at least 1 or null, got 0"),
        ({"devices": 0}, "training.devices must be at least 1, got 0"),
        ({"threads": 0}, "training.threads must be at least 1 or null, got 0"),
        ({"lr": 0.0}, "training.lr must be above 0 and finite, got 0.0; try 0.001"),
        ({"lr": math.inf}, "training.lr must be above 0 and finite, got inf"),
        ({"lr": math.nan}, "training.lr must be above 0 and finite, got nan"),
        ({"warmup_epochs": -1.0}, "training.warmup_epochs must be at least 0 and finite, got -1.0"),
        ({"ema": -0.1}, r"training.ema must lie in \[0, 1\), got -0.1"),
        ({"label_smoothing": math.nan}, r"training.label_smoothing must lie in \[0, 1\), got nan"),
        ({"weight_decay": -1.0}, "training.weight_decay must be at least 0 and finite, got -1.0"),
        ({"clip_norm": math.nan}, "training.clip_norm must be at least 0 and finite, got nan"),
        ({"seed": -1}, r"training.seed must be at least 0 and below 2\*\*32, got -1"),
        ({"seed": 2**32}, r"training.seed must be at least 0 and below 2\*\*32, got 4294967296"),
        ({"schedule": "step"}, "training.schedule must be one of cosine, linear, constant, got 'step'"),
        ({"accelerator": "tpu"}, "training.accelerator must be one of auto, cpu, gpu, got 'tpu'"),
    ],
)
def test_recipe_that_breaks_a_rule_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, **change).check()  # type: ignore[arg-type]


def test_default_recipe_keeps_the_rules() -> None:
    Training().check()
    Training(seed=2**32 - 1, threads=1).check()
