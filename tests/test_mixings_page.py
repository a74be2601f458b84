"""The page of all mixings says what the source says, and the source says everything the page needs."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from explore.architecture.catalog import hyperparameters
from explore.architecture.channel_mixing.catalog import CHANNEL_MIXINGS
from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_mixings", DOCS / "make_mixings.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mixing", [*TOKEN_MIXINGS.values(), *CHANNEL_MIXINGS.values()])
def test_every_mixing_says_its_formula_cost_and_paper(mixing: type, maker: Any) -> None:
    about = maker.described(mixing)
    assert about.options.keys() == hyperparameters(mixing).keys()
    assert about.parameters
    assert about.macs
    assert len(about.paper) > 20


def test_what_is_missing_is_said(maker: Any) -> None:
    class Silent:
        """Does something."""

    with pytest.raises(ValueError, match="Silent must say Formula:, Mixes:, Parameters: and multiply-adds:"):
        maker.described(Silent)


def test_the_page_is_up_to_date(maker: Any) -> None:
    figures = json.loads(maker.FIGURES.read_text()) if maker.FIGURES.exists() else {}
    assert maker.PAGE.read_text() == maker.page(figures), "run make docs"
