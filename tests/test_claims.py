"""The benchmark of the claims compares what it says it compares, and its arithmetic is right.

python -m pytest tests/test_claims.py -m "not gpu"
"""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import claims
from benchmarks.claims_picture import draw

WIDTH, DEPTH = 64, 2
OPTIONS = claims.Options(width=WIDTH, depth=DEPTH)


def stem_and_head(tokens: int) -> int:
    return tokens * 3 * claims.PATCH**2 * WIDTH + WIDTH * 1000


@pytest.mark.parametrize("side", [7, 14, 20])
def test_networks_multiply_as_the_formulas_say(side: int) -> None:
    tokens = side**2
    fixed, grown = WIDTH // 2, round(WIDTH / 2 * tokens / 196)
    expected = {
        "mixer": 2 * tokens * fixed * WIDTH + 8 * tokens * WIDTH**2,
        "mixer_grown": 2 * tokens * grown * WIDTH + 8 * tokens * WIDTH**2,
        # One more token, for the class.
        "vit": 12 * (tokens + 1) * WIDTH**2 + 2 * (tokens + 1) ** 2 * WIDTH,
    }
    for kind, block in expected.items():
        assert claims.counted(kind, side, OPTIONS)["macs"] == DEPTH * block + stem_and_head(tokens)


def test_both_mixers_are_the_published_one_at_196_patches() -> None:
    published = claims.published("mixer_b16")
    for kind in ("mixer", "mixer_grown"):
        found = claims.network(kind, 14, 768, 12)
        assert (found.model, found.grids(), found.classes) == (published.model, published.grids(), published.classes)
        assert found.stages[0].token_mixing[0].options == {"expansion": 0.5}
    assert claims.network("vit", 14, 768, 12).model == claims.published("vit_b16").model


def test_the_quadratic_share_is_that_of_the_formula() -> None:
    assert claims.quadratic_share(196, 768) == pytest.approx(196 / (196 + 4608))
    assert claims.quadratic_share(4608, 768) == 0.5


def point(network: str, tokens: int, macs: float, eager: float, compiled: float) -> dict[str, Any]:
    # Every turn is slower than the one before, for all alike.
    seconds = {"eager": [1 / eager, 2 / eager, 9 / eager], "compiled": [1 / compiled, 3 / compiled, 4 / compiled]}
    return {"network": network, "tokens": tokens, "macs": macs, **seconds}


POINTS = [
    point("mixer", 100, 10.0, 8.0, 16.0),
    point("mixer_grown", 100, 10.0, 8.0, 16.0),
    point("vit", 100, 15.0, 4.0, 16.0),
    point("mixer", 200, 20.0, 4.0, 8.0),
    point("mixer_grown", 200, 40.0, 2.0, 8.0),
    point("vit", 200, 40.0, 1.0, 4.0),
]


def test_ratios_say_by_how_much_mixer_is_ahead() -> None:
    first, second = claims.ratios(POINTS)
    assert (first["tokens"], first["mixer_macs"], first["mixer_eager"], first["mixer_compiled"]) == (100, 1.5, 2.0, 1.0)
    assert (second["mixer_eager"], second["mixer_grown_eager"], second["mixer_grown_macs"]) == (4.0, 2.0, 1.0)


def test_exponents_are_those_of_the_growth() -> None:
    (mixer,) = claims.exponents([one for one in POINTS if one["network"] == "mixer"])
    (vit,) = claims.exponents([one for one in POINTS if one["network"] == "vit"])
    assert (mixer["from"], mixer["to"], mixer["macs"], mixer["eager"]) == (100, 200, 1.0, 1.0)
    assert vit["eager"] == pytest.approx(2.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_whole_benchmark_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["width=64", "depth=1", "sides=2,3", "blocks=1", "published=none", "device=cpu"]
    claims.main([*small, "format=json", f"picture={tmp_path}/claims.png"])
    result = json.loads(capsys.readouterr().out)
    assert [one["tokens"] for one in result["points"]] == [4, 4, 4, 9, 9, 9]
    assert all(len(one["compiled"]) == 1 and one["compiled"][0] > 0 for one in result["points"])
    assert (tmp_path / "claims.png").read_bytes().startswith(b"\x89PNG")
    claims.show(result)
    assert "softmax(QKᵀ)V in ViT" in capsys.readouterr().out
    draw(result, tmp_path / "again.png")
