"""Fixtures of the models' tests."""

from __future__ import annotations

import pytest

from fewseg.models.fast import winograd


@pytest.fixture(autouse=True)
def tiles_from_one_position_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' maps are small: without this they would not take the way of a photo's."""
    monkeypatch.setattr(winograd, "FEWEST_POSITIONS", 1)
