"""Fixtures of the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_helpers import BASE_RECIPE, Toy

from fewseg import registry


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[Toy]:
    """The toy method, registered under its name."""
    monkeypatch.setattr(registry, "_REGISTERED", {"model": {"toy": Toy}, "source": {}})
    return Toy


@pytest.fixture(scope="session")
def base_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of a base learner that trains in a second."""
    path = tmp_path_factory.mktemp("recipe") / "base.yaml"
    path.write_text(BASE_RECIPE)
    return path
